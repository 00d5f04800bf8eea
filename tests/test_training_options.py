"""Schedules, optimizers, replay, time limits, committees and several devices; exact resumption of each."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_training import CUTOFF, RECIPE, REFERENCES, START, TRAIN, VALID, assert_equal, frames, run

import difmd
from difmd.errors import InputError
from difmd.forces import evaluate
from difmd.neighbors import neighbor_list
from difmd.training import (
    Recipe,
    TrainingInterrupted,
    consensus,
    only,
    reduce_on_plateau,
    report,
    train,
    train_committee,
    warmup_cosine,
)
from difmd.training.model_files import describe
from difmd.training.recipe import learning_rate_of

OLD = frames(6, seed=5, n_atoms=(4,))


@pytest.fixture(scope="module")
def alone():
    """A training with default options."""
    return run(potential=START)


def stop_after(epoch):
    def stop(entry):
        if (entry[0] if isinstance(entry, list) else entry)["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


def without_times(history):
    """The history without wall times, as text, in which NaN equals NaN."""
    return json.dumps([{name: value for name, value in e.items() if name != "seconds"} for e in history])


@pytest.mark.slow
def test_plateau_weight_decay_and_replay_resume_exactly_and_save_models(tmp_path):
    recipe = dataclasses.replace(
        RECIPE, n_epochs=6, schedule=reduce_on_plateau(patience=1, minimum=0.1), learning_rate=None,
        optimizer=optax.adamw(0.2, weight_decay=1e-3),
    )  # fmt: skip
    arguments = {"potential": START, "replay": OLD, "replay_fraction": 0.25}
    uninterrupted = run(recipe, **arguments)
    assert uninterrupted.n_compiled == 2
    rates = [entry["learning_rate"] for entry in uninterrupted.history]
    # Halved after a validation without improvement, and never below a tenth.
    expected, best, factor = [], np.inf, 1.0
    for entry in uninterrupted.history:
        expected.append(factor)
        if entry["valid_loss"] >= best:
            factor = max(factor / 2, 0.1)
        best = min(best, entry["valid_loss"])
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert min(rates) < 1
    with pytest.raises(TrainingInterrupted):
        run(recipe, folder=tmp_path, on_validation=stop_after(3), **arguments)
    resumed = run(recipe, folder=tmp_path, **arguments)
    assert_equal((resumed.params, resumed.last_params), (uninterrupted.params, uninterrupted.last_params))
    assert without_times(resumed.history) == without_times(uninterrupted.history)
    for name, params in (("best", resumed.params), ("last", resumed.last_params)):
        potential, stored, source = difmd.load(tmp_path / f"{name}.npz")
        assert_equal(stored, params)
        assert potential.description == START.description
        assert source["n_frames"] == {"train": 8, "valid": 4, "replay": 6} and len(source["sha256"]) == 3
        assert source["recipe"]["schedule"]["patience"] == 1 and source["seed"] == 0
        assert source["references_eV"] == {"18": -10.0}
        assert source["versions"] == {"difmd": difmd.__version__, "jax": jax.__version__}
        epoch = source["validation"]["epoch"]
        assert epoch == (resumed.best_epoch if name == "best" else 5)
        assert source["validation"]["forces_rmse"] == resumed.history[epoch]["forces_rmse"]
    assert not resumed.notes and resumed.is_complete
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_time_limit_stops_after_a_validation_and_the_table_resumes(alone, tmp_path, capsys):
    first = run(potential=START, folder=tmp_path, time_limit=1e-9)
    assert len(first.history) == 1 and not first.is_complete
    capsys.readouterr()
    resumed = train(START, TRAIN, valid=VALID, references=REFERENCES, recipe=RECIPE, folder=tmp_path)
    assert_equal((resumed.params, resumed.last_params), (alone.params, alone.last_params))
    assert resumed.is_complete and resumed.seconds >= first.seconds
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("resumed after 1 epochs") for line in lines)
    table = [line for line in lines if line[:6].strip().isdigit()]
    assert [int(line[:6]) for line in table] == [2, 3, 4, 5]
    assert table[-1].split()[2] == "0:00:00" and all(len(line) < 80 for line in table)
    last = resumed.history[-1]
    assert float(table[-1].split()[4]) == pytest.approx(1e3 * last["energy_rmse"], rel=1e-3)
    assert table[-1].endswith("*") == (resumed.best_epoch == 4)
    with pytest.raises(InputError, match="time_limit"):
        run(time_limit=0.0)


def committee(**arguments):
    return train_committee(
        START, TRAIN, valid=VALID, references=REFERENCES, recipe=RECIPE, progress=False, **arguments
    )


@pytest.mark.slow
def test_members_equal_separate_trainings(alone):
    two = committee(n_members=2)
    members = [alone, run(dataclasses.replace(RECIPE, seed=1), potential=START)]
    for k, one in enumerate(members):
        for prediction, expected in zip(
            jax.tree.leaves(two.last_params), jax.tree.leaves(one.last_params), strict=True
        ):
            np.testing.assert_allclose(prediction[k], expected, rtol=1e-9)
        assert two.best_epochs[k] == one.best_epoch
        assert two.histories[k][-1]["forces_rmse"] == pytest.approx(one.history[-1]["forces_rmse"], rel=1e-6)
    system = jax.tree.map(jnp.asarray, TRAIN[0].system)
    neighbors = neighbor_list(system, cutoff=CUTOFF)
    prediction = jax.jit(lambda p: consensus(START, p, system, neighbors))(two.params)
    each = [evaluate(START, one.params, system, neighbors) for one in members]
    forces = np.stack([e.forces for e in each])
    np.testing.assert_allclose(prediction.mean.forces, forces.mean(0), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(prediction.spread.forces, forces.std(0, ddof=1), rtol=1e-5, atol=1e-9)
    assert prediction.spread.energy > 0
    with pytest.raises(InputError, match="leading axes"):
        consensus(START, alone.params, system, neighbors)


@pytest.mark.slow
def test_bootstrapped_committee_resumes_exactly(tmp_path):
    start = START.init(jax.random.key(0))
    arguments = {"n_members": 3, "bootstrap": True, "params": start, "replay": OLD}
    uninterrupted = committee(**arguments)
    with pytest.raises(TrainingInterrupted) as caught:
        committee(**arguments, folder=tmp_path, on_validation=stop_after(2))
    assert len(caught.value.partial_result.histories[2]) == 3
    resumed = committee(**arguments, folder=tmp_path)
    assert_equal((resumed.params, resumed.last_params), (uninterrupted.params, uninterrupted.last_params))
    for one, other in zip(resumed.histories, uninterrupted.histories, strict=True):
        assert without_times(one) == without_times(other)
    for k in range(3):
        _, params, source = difmd.load(tmp_path / f"last_{k}.npz")
        assert_equal(params, jax.tree.map(lambda x, k=k: x[k], resumed.last_params))
        assert source["member"] == k
    assert len({float(x) for x in resumed.last_params["sigma"].ravel()}) == 3
    with pytest.raises(InputError, match="n_members = 1"):
        committee(n_members=1)
    with pytest.raises(InputError, match="with an axis of n_members = 3"):
        committee(params=jax.tree.map(lambda x: jnp.stack([x] * 5), start))


def test_default_schedule_is_that_of_optax():
    expected = optax.warmup_cosine_decay_schedule(0.0, 2e-2, 10, 100, 2e-4)
    rate = learning_rate_of(Recipe(schedule=warmup_cosine(warm_up=0.1)), 100)
    for step in (0, 5, 10, 50, 100):
        assert rate(step) == expected(step)
    for schedule in (warmup_cosine(warm_up=0.1, final=1.0), reduce_on_plateau(warm_up=0.1)):
        constant = learning_rate_of(Recipe(learning_rate=0.1, schedule=schedule), 100)
        np.testing.assert_allclose([constant(5), constant(10), constant(100)], [0.05, 0.1, 0.1], rtol=1e-6)
    recipe = Recipe(optimizer=optax.sgd(0.1), schedule=optax.linear_schedule(1.0, 0.0, 10))
    factor = learning_rate_of(recipe, 7)
    np.testing.assert_allclose([factor(0), factor(5)], [1.0, 0.5], rtol=1e-6)


@pytest.mark.slow
def test_optimizer_with_its_learning_rate_replaces_the_default():
    """AMSGrad at its learning rate differs from the default by rounding only; sgd(0) changes nothing."""
    recipe = dataclasses.replace(RECIPE, n_epochs=2)
    default = run(recipe)
    explicit = run(dataclasses.replace(recipe, learning_rate=None, optimizer=optax.amsgrad(2e-2)))
    for a, b in zip(jax.tree.leaves(explicit.params), jax.tree.leaves(default.params), strict=True):
        # Schedules of optax are in single precision.
        np.testing.assert_allclose(a, b, rtol=1e-6)
    still = run(dataclasses.replace(recipe, learning_rate=None, optimizer=optax.sgd(0.0)))
    assert_equal(still.last_params, START.init(jax.random.key(0)))


def test_changed_numbers_of_an_optimizer_change_its_description():
    same = [describe(optax.adamw(optax.cosine_decay_schedule(1e-3, 100), weight_decay=1e-4)) for _ in "ab"]
    assert same[0] == same[1]
    schedule = optax.cosine_decay_schedule(1e-3, 100)
    before = describe(schedule)
    schedule(3)
    assert describe(schedule) == before
    others = [
        optax.adamw(optax.cosine_decay_schedule(1e-3, 101), weight_decay=1e-4),
        optax.adamw(optax.cosine_decay_schedule(1e-3, 100), weight_decay=2e-4),
        optax.adamw(lambda step: 1e-3 * 0.9**step),
        optax.adamw(lambda step: 1e-3 * 0.8**step),
        optax.chain(optax.clip(1.0), optax.adam(1e-3)),
    ]
    texts = [json.dumps(describe(optimizer)) for optimizer in others] + [json.dumps(same[0])]
    assert len(set(texts)) == len(texts)


def test_checkpoint_of_another_optimizer_is_refused(tmp_path):
    recipe = dataclasses.replace(RECIPE, n_epochs=1, learning_rate=None, optimizer=optax.adam(1e-2))
    run(recipe, folder=tmp_path)
    run(dataclasses.replace(recipe, optimizer=optax.adam(1e-2)), folder=tmp_path)
    with pytest.raises(InputError, match="another training"):
        run(dataclasses.replace(recipe, optimizer=optax.adam(1.1e-2)), folder=tmp_path)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: run(Recipe(optimizer="adamw")), "optimizer = 'adamw' is not an optax optimizer"),
        (lambda: run(Recipe(schedule="cosine")), "schedule = 'cosine' must be"),
        (lambda: run(Recipe(learning_rate=1e-3, optimizer=optax.adam(1e-3))), "leave it out"),
        (lambda: reduce_on_plateau(factor=1.0), "factor"),
        (lambda: reduce_on_plateau(patience=0), "patience"),
        (lambda: reduce_on_plateau(minimum=2.0), "minimum"),
        (lambda: warmup_cosine(warm_up=-0.1), "warm_up"),
    ],
)
def test_invalid_settings_are_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()


def test_results_summarise_themselves(alone):
    lines = repr(alone).splitlines()
    assert 4 <= len(lines) <= 6 and "force RMSE" in repr(alone) and "array(" not in repr(alone)
    assert alone._repr_html_().startswith("<table")
    assert alone.params is alone.best_params
    best = alone.history[alone.best_epoch]
    assert alone.summary()["F_rmse_meV_A"] == pytest.approx(1e3 * best["forces_rmse"])
    table = alone.to_pandas()
    assert list(table["epoch"]) == [0, 1, 2, 3, 4] and table["energy_weight"].iloc[-1] <= 100
    assert len(repr(RECIPE).splitlines()) <= 6


def test_table_without_pandas_is_an_error_with_a_remedy(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        alone.to_pandas()


def test_invalid_replay_is_refused():
    for fraction in (0.0, 1.0, 0.01):
        with pytest.raises(InputError, match="replay_fraction"):
            run(replay=OLD, replay_fraction=fraction)


def test_report_has_kinds_and_is_json(tmp_path):
    kinds = [frame.replace(kind="ab"[k % 2]) for k, frame in enumerate(VALID)]
    recipe = dataclasses.replace(RECIPE, n_epochs=1)
    unknown = dataclasses.replace(START, description=None)
    result = run(recipe, potential=unknown, is_trained=only("sigma"), folder=tmp_path)
    assert result.last_params["epsilon"].item() == 0.03 and result.last_params["sigma"].item() != 3.5
    # A potential without a description is noted and is not an error.
    assert "best.npz and last.npz are not written" in result.notes[0]
    assert [path.name for path in tmp_path.iterdir()] == ["training.npz"]
    training_report = report(START, result, valid=kinds, test=TRAIN)
    assert [(row.part, row.group) for row in training_report.rows] == [
        ("valid", "all"), ("valid", "a"), ("valid", "b"), ("test", "all"),
    ]  # fmt: skip
    everything, a, b, _ = (row.errors for row in training_report.rows)
    assert everything.forces_rmse == pytest.approx(result.history[0]["forces_rmse"], rel=1e-9)
    assert everything.energy_rmse**2 == pytest.approx((a.energy_rmse**2 + b.energy_rmse**2) / 2, rel=1e-9)
    stored = json.loads(json.dumps(training_report.as_json(), allow_nan=False))
    assert stored["errors"][1]["kind"] == "a" and stored["errors"][1]["n_atoms"] == 8
    assert stored["errors"][0]["F_rmse_meV_A"] == pytest.approx(1e3 * everything.forces_rmse)
    assert stored["n_compiled"] == result.n_compiled and stored["wall_s"] > 0
    assert training_report.summary("valid")["F_rmse_meV_A"] == stored["errors"][0]["F_rmse_meV_A"]
    assert "dipole_error_percent" not in training_report.summary("test")
    with pytest.raises(InputError, match="no part 'train', only"):
        training_report.summary("train")
    text = str(training_report).splitlines()
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
def test_four_devices_agree_with_one(alone, tmp_path):
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
