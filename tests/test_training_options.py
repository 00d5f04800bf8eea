"""Schedules, replay, time limits, committees, several devices: each resumes to the same bits."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import CUTOFF, RECIPE, REFERENCES, START, TRAIN, VALID, frames, run, same

import difmd
from difmd.errors import InputError
from difmd.forces import evaluate
from difmd.neighbors import neighbor_list
from difmd.training import (
    Recipe,
    TrainingInterrupted,
    consensus,
    only,
    report,
    train,
    train_committee,
)
from difmd.training.step import optimizer_of, rate_at

OLD = frames(6, seed=5, n_atoms=(4,))


@pytest.fixture(scope="module")
def alone():
    """A training without anything special."""
    return run(potential=START)


def stop_after(epoch):
    def stop(entry):
        if (entry[0] if isinstance(entry, list) else entry)["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def told(history):
    """What does not depend on the clock, as text, in which NaN equals NaN."""
    return json.dumps([{name: value for name, value in e.items() if name != "seconds"} for e in history])


@pytest.mark.slow
def test_plateau_decay_and_replay_resume_bit_for_bit_and_models_are_kept(tmp_path):
    recipe = dataclasses.replace(
        RECIPE, n_epochs=6, schedule="plateau", plateau_patience=1, final_rate=0.1, optimizer="adamw",
        weight_decay=1e-3, learning_rate=0.2,
    )  # fmt: skip
    arguments = {"potential": START, "replay": OLD, "replay_fraction": 0.25}
    whole = run(recipe, **arguments)
    assert whole.n_compiled == 2
    rates = [entry["learning_rate"] for entry in whole.history]
    # Halved after a validation without progress, and never below a tenth.
    expected, best, factor = [], np.inf, 1.0
    for entry in whole.history:
        expected.append(0.2 * factor)
        if entry["valid_loss"] >= best:
            factor = max(factor / 2, 0.1)
        best = min(best, entry["valid_loss"])
    # One step of warm-up, from 0.
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert min(rates) < 0.2
    with pytest.raises(TrainingInterrupted):
        run(recipe, folder=tmp_path, on_validation=stop_after(3), **arguments)
    again = run(recipe, folder=tmp_path, **arguments)
    same((again.params, again.last_params), (whole.params, whole.last_params))
    assert told(again.history) == told(whole.history)
    for name, params in (("best", again.params), ("last", again.last_params)):
        potential, stored, source = difmd.load(tmp_path / f"{name}.npz")
        same(stored, params)
        assert potential.description == START.description
        assert source["n_frames"] == {"train": 8, "valid": 4, "replay": 6} and len(source["sha256"]) == 3
        assert source["recipe"]["plateau_patience"] == 1 and source["seed"] == 0
        assert source["references_eV"] == {"18": -10.0}
        assert source["versions"] == {"difmd": difmd.__version__, "jax": jax.__version__}
        epoch = source["validation"]["epoch"]
        assert epoch == (again.best_epoch if name == "best" else 5)
        assert source["validation"]["forces_rmse"] == again.history[epoch]["forces_rmse"]
    assert not again.notes and again.is_complete
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_a_time_limit_ends_after_a_validation_and_the_table_tells(alone, tmp_path, capsys):
    first = run(potential=START, folder=tmp_path, time_limit=1e-9)
    assert len(first.history) == 1 and not first.is_complete
    capsys.readouterr()
    again = train(START, TRAIN, valid=VALID, references=REFERENCES, recipe=RECIPE, folder=tmp_path)
    same((again.params, again.last_params), (alone.params, alone.last_params))
    assert again.is_complete and again.seconds >= first.seconds
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("resumed after 1 epochs") for line in lines)
    table = [line for line in lines if line[:6].strip().isdigit()]
    assert [int(line[:6]) for line in table] == [2, 3, 4, 5]
    assert table[-1].split()[2] == "0:00:00" and all(len(line) < 80 for line in table)
    last = again.history[-1]
    assert float(table[-1].split()[4]) == pytest.approx(1e3 * last["energy_rmse"], rel=1e-3)
    assert table[-1].endswith("*") == (again.best_epoch == 4)
    with pytest.raises(InputError, match="time_limit"):
        run(time_limit=0.0)


def committee(**arguments):
    return train_committee(
        START, TRAIN, valid=VALID, references=REFERENCES, recipe=RECIPE, progress=False, **arguments
    )


@pytest.mark.slow
def test_members_are_what_they_are_alone(alone):
    two = committee(n_members=2)
    members = [alone, run(dataclasses.replace(RECIPE, seed=1), potential=START)]
    for k, one in enumerate(members):
        for found, expected in zip(
            jax.tree.leaves(two.last_params), jax.tree.leaves(one.last_params), strict=True
        ):
            np.testing.assert_allclose(found[k], expected, rtol=1e-9)
        assert two.best_epochs[k] == one.best_epoch
        assert two.histories[k][-1]["forces_rmse"] == pytest.approx(one.history[-1]["forces_rmse"], rel=1e-6)
    system = jax.tree.map(jnp.asarray, TRAIN[0].system)
    neighbors = neighbor_list(system, cutoff=CUTOFF)
    found = jax.jit(lambda p: consensus(START, p, system, neighbors))(two.params)
    each = [evaluate(START, one.params, system, neighbors) for one in members]
    forces = np.stack([e.forces for e in each])
    np.testing.assert_allclose(found.mean.forces, forces.mean(0), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(found.spread.forces, forces.std(0, ddof=1), rtol=1e-5, atol=1e-9)
    assert found.spread.energy > 0
    with pytest.raises(InputError, match="leading axes"):
        consensus(START, alone.params, system, neighbors)


@pytest.mark.slow
def test_a_committee_of_samples_resumes_bit_for_bit(tmp_path):
    start = START.init(jax.random.key(0))
    arguments = {"n_members": 3, "bootstrap": True, "params": start, "replay": OLD}
    whole = committee(**arguments)
    with pytest.raises(TrainingInterrupted) as caught:
        committee(**arguments, folder=tmp_path, on_validation=stop_after(2))
    assert len(caught.value.result.histories[2]) == 3
    again = committee(**arguments, folder=tmp_path)
    same((again.params, again.last_params), (whole.params, whole.last_params))
    assert [told(h) for h in again.histories] == [told(h) for h in whole.histories]
    for k in range(3):
        _, params, source = difmd.load(tmp_path / f"last_{k}.npz")
        same(params, jax.tree.map(lambda x, k=k: x[k], again.last_params))
        assert source["member"] == k
    assert len({float(x) for x in again.last_params["sigma"].ravel()}) == 3
    with pytest.raises(InputError, match="n_members = 1"):
        committee(n_members=1)
    with pytest.raises(InputError, match="the same with an axis"):
        committee(params=jax.tree.map(lambda x: jnp.stack([x] * 5), start))


def test_schedules_and_optimizers():
    for schedule, at_end in (("cosine", 0.01), ("constant", 1.0), ("plateau", 1.0)):
        rate = rate_at(dataclasses.replace(RECIPE, schedule=schedule, warm_up=0.1), 100)
        np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0, 1e-2, 2e-2], rtol=1e-6)
        np.testing.assert_allclose(rate(100), 2e-2 * at_end, rtol=1e-6)
    params = {"a": jnp.array([2.0])}
    gradient = {"a": jnp.array([0.0])}
    for name in ("amsgrad", "adamw"):
        optimizer = optimizer_of(dataclasses.replace(RECIPE, optimizer=name, weight_decay=0.1))
        with jax.numpy_dtype_promotion("standard"):
            direction, _ = optimizer.update(gradient, optimizer.init(params), params)
        # Without a gradient a step takes off learning rate × weight decay.
        np.testing.assert_allclose(direction["a"], [0.2])


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"optimizer": "adam"}, "optimizer = 'adam' must be one of amsgrad, adamw"),
        ({"schedule": "step"}, "schedule = 'step' must be one of cosine, constant, plateau"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"plateau_factor": 1.0}, "plateau_factor"),
        ({"plateau_patience": 0}, "plateau_patience"),
    ],
)
def test_wrong_settings_are_refused(changes, match):
    with pytest.raises(InputError, match=match):
        run(Recipe(**changes))


def test_wrong_replay_is_refused():
    for fraction in (0.0, 1.0, 0.01):
        with pytest.raises(InputError, match="replay_fraction"):
            run(replay=OLD, replay_fraction=fraction)


def test_a_report_has_kinds_and_is_json(tmp_path):
    kinds = [frame.replace(kind="ab"[k % 2]) for k, frame in enumerate(VALID)]
    recipe = dataclasses.replace(RECIPE, n_epochs=1)
    unknown = dataclasses.replace(START, description=None)
    result = run(recipe, potential=unknown, is_trained=only("sigma"), folder=tmp_path)
    assert result.last_params["epsilon"].item() == 0.03 and result.last_params["sigma"].item() != 3.5
    # What cannot be described is told and is no error.
    assert "best.npz and last.npz are not written" in result.notes[0]
    assert [path.name for path in tmp_path.iterdir()] == ["training.npz"]
    found = report(START, result, valid=kinds, test=TRAIN)
    assert [(row.part, row.group) for row in found.rows] == [
        ("valid", "all"), ("valid", "a"), ("valid", "b"), ("test", "all"),
    ]  # fmt: skip
    everything, a, b, _ = (row.errors for row in found.rows)
    assert everything.forces_rmse == pytest.approx(result.history[0]["forces_rmse"], rel=1e-9)
    assert everything.energy_rmse**2 == pytest.approx((a.energy_rmse**2 + b.energy_rmse**2) / 2, rel=1e-9)
    stored = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert stored["errors"][1]["kind"] == "a" and stored["errors"][1]["n_atoms"] == 8
    assert stored["errors"][0]["F_rmse_meV_A"] == pytest.approx(1e3 * everything.forces_rmse)
    assert stored["n_compiled"] == result.n_compiled and stored["wall_s"] > 0
    assert found.summary("valid")["F_rmse_meV_A"] == stored["errors"][0]["F_rmse_meV_A"]
    assert "dipole_error_percent" not in found.summary("test")
    with pytest.raises(InputError, match="no part 'train', only"):
        found.summary("train")
    text = str(found).splitlines()
    assert text[2].startswith("valid ") and text[3].startswith("  a ")
    assert "best epoch 1 of 1" in text[-2] and text[-1] == result.notes[0]


SCRIPT = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
import numpy as np
from test_training import RECIPE, REFERENCES, START, TRAIN, VALID
from difmd.training import train, train_committee

assert len(jax.local_devices()) == 4
arguments = dict(valid=VALID, references=REFERENCES, recipe=RECIPE, progress=False)
one = train(START, TRAIN, folder=sys.argv[1], time_limit=1e-9, **arguments)
assert not one.is_complete
one = train(START, TRAIN, folder=sys.argv[1], **arguments)
assert one.n_compiled == 2
assert len(one.last_params["sigma"].sharding.device_set) == 1
two = train_committee(START, TRAIN, n_members=2, **arguments)
np.savez(
    sys.argv[1] + "/found.npz", sigma=one.params["sigma"], loss=[e["train_loss"] for e in one.history],
    members=two.params["sigma"],
)
"""


@pytest.mark.slow
def test_four_devices_give_what_one_gives(alone, tmp_path):
    environment = {**os.environ, "DIFMD_CACHE": "off", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["sigma"], alone.params["sigma"], rtol=1e-9)
    np.testing.assert_allclose(found["loss"], [entry["train_loss"] for entry in alone.history], rtol=1e-7)
    np.testing.assert_allclose(found["members"][0], alone.params["sigma"], rtol=1e-9)
