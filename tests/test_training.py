"""Training: convergence, exact resumption, best parameters, and error messages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd.data import Frame, make_batches
from difmd.errors import InputError
from difmd.forces import Evaluation, evaluate
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, mace, switched
from difmd.system import host_system, make_system
from difmd.training import (
    Recipe,
    TrainingError,
    TrainingInterrupted,
    Weights,
    loss,
    loss_and_gradient,
    residuals,
    train,
)

CUTOFF = 5.0
TRUTH = lennard_jones(["Ar"], sigma=3.3, epsilon=0.05, cutoff=CUTOFF, truncation=switched(4.0))
START = lennard_jones(["Ar"], sigma=3.5, epsilon=0.03, cutoff=CUTOFF, truncation=switched(4.0))
RECIPE = Recipe(n_epochs=5, batch_size=4, learning_rate=2e-2, ema=0.9, max_shapes=1)


LABEL = jax.jit(lambda system, neighbors: evaluate(TRUTH, TRUTH.init(jax.random.key(0)), system, neighbors))


def frames(n, seed=0, n_atoms=(4, 8)):
    """Distorted crystals labelled with `TRUTH`, and a constant on top of the energy."""
    rng = np.random.default_rng(seed)
    labelled = []
    for k in range(n):
        cells = n_atoms[k % len(n_atoms)] // 4
        a = rng.uniform(5.0, 5.4)
        cell = np.diag([a * cells, a, a]) + 0.05 * rng.normal(size=(3, 3))
        grid = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
        grid = np.concatenate([(grid + [c, 0, 0]) / [cells, 1, 1] for c in range(cells)])
        positions = grid @ cell + rng.normal(0, 0.15, grid.shape)
        system = make_system(positions, [18] * len(grid), cell=cell)
        exact = LABEL(system, neighbor_list(system, cutoff=CUTOFF))
        labelled.append(
            Frame(
                system=host_system(positions, [18] * len(grid), cell=cell),
                energy=float(exact.energy) - 10.0 * len(grid),
                forces=np.asarray(exact.forces),
                stress=np.asarray(exact.stress),
                source=f"frame {k}",
            )
        )
    return labelled


TRAIN, VALID = frames(8, n_atoms=(4,)), frames(4, seed=1, n_atoms=(4,))
REFERENCES = {18: -10.0}


def run(recipe=RECIPE, potential=START, train_frames=None, **arguments):
    return train(
        potential, train_frames or TRAIN, valid=VALID, references=REFERENCES, recipe=recipe, progress=False,
        **arguments,
    )  # fmt: skip


def constant_weights(weights):
    return dataclasses.replace(RECIPE, initial_weights=weights, final_weights=weights)


def assert_equal(first, other):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_recovers_the_parameters_of_the_data():
    weights = Weights(1.0, 1.0, 1.0)
    result = run(dataclasses.replace(constant_weights(weights), n_epochs=150))
    assert result.params["sigma"].item() == pytest.approx(3.3, rel=1e-3)
    assert result.params["epsilon"].item() == pytest.approx(0.05, rel=1e-2)
    assert result.history[-1]["forces_rmse"] < 0.02 * result.history[0]["forces_rmse"]


@pytest.mark.parametrize(
    ("n_epochs", "size"),
    [
        (20, {"n_layers": 1, "correlation": 2, "l_max": 1}),
        pytest.param(30, {"n_layers": 2, "l_max": 2}, marks=pytest.mark.slow),
    ],
)
def test_network_learns_and_compiles_once_per_shape(n_epochs, size):
    potential = mace(["Ar"], cutoff=CUTOFF, n_features=4, radial_hidden=(8,), scale=0.1, **size)
    mixed = frames(8, n_atoms=(4, 8))
    # Eight frames are too few to fit stresses as well: the errors of held-out forces would rise again.
    weights = Weights(1.0, 1.0, 0.0)
    recipe = dataclasses.replace(constant_weights(weights), n_epochs=n_epochs, max_shapes=2)
    result = run(recipe, potential=potential, train_frames=mixed)
    assert result.history[-1]["forces_rmse"] < 0.5 * result.history[0]["forces_rmse"]
    assert result.n_compiled <= 4
    for name in ("scale", "shift"):
        assert_equal(result.params[name], potential.init(jax.random.key(0))[name])


def test_interrupted_training_resumes_to_the_same_result(tmp_path):
    uninterrupted = run()
    for epoch, k in ((0, "first"), (2, "later")):

        def stop(entry, epoch=epoch):
            if entry["epoch"] == epoch:
                raise KeyboardInterrupt

        with pytest.raises(TrainingInterrupted, match="to continue"):
            run(folder=tmp_path / k, on_validation=stop)
        resumed = run(folder=tmp_path / k)
        assert_equal(resumed.params, uninterrupted.params)
        assert_equal(resumed.last_params, uninterrupted.last_params)
        names = ("epoch", "train_loss", "valid_loss", "forces_rmse")
        assert [[e[n] for n in names] for e in resumed.history] == [
            [e[n] for n in names] for e in uninterrupted.history
        ]
    with pytest.raises(InputError, match="another training"):
        run(dataclasses.replace(RECIPE, learning_rate=1e-3), folder=tmp_path / "later")


def test_best_parameters_are_those_of_the_lowest_validation_loss(tmp_path):
    result = run(dataclasses.replace(RECIPE, n_epochs=20, learning_rate=0.3))
    scores = [entry["valid_loss"] for entry in result.history]
    assert result.best_epoch == int(np.argmin(scores))
    recipe = dataclasses.replace(RECIPE, n_epochs=40, learning_rate=0.3, patience=2)
    early = run(recipe, folder=tmp_path)
    assert len(early.history) < 40 and early.history[-1]["epoch"] == early.best_epoch + 2
    resumed = run(recipe, folder=tmp_path)
    assert len(resumed.history) == len(early.history)
    assert_equal(resumed.params, early.params)


def test_batch_without_a_finite_gradient_is_skipped():
    """Overlapping atoms: r⁻¹² overflows."""
    (bad,) = frames(1, seed=9, n_atoms=(4,))
    positions = np.array(bad.positions)
    positions[1] = positions[0] + [0, 0, 1e-30]
    bad = bad.replace(system=bad.system.replace(positions=positions))
    recipe = dataclasses.replace(RECIPE, n_epochs=2, batch_size=1)
    result = run(recipe, train_frames=[*TRAIN, bad])
    assert [entry["skipped"] for entry in result.history] == [1, 1]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.params))
    for moved, start in zip(
        jax.tree.leaves(result.last_params), jax.tree.leaves(START.init(jax.random.key(0))), strict=True
    ):
        assert np.all(np.abs(moved / start - 1) > 1e-3)
    with pytest.raises(TrainingError, match="in a row gave no finite gradient") as caught:
        run(dataclasses.replace(recipe, n_epochs=30), train_frames=[bad])
    assert_equal(caught.value.partial_result.params, START.init(jax.random.key(0)))


@pytest.mark.quick("None")
@pytest.mark.parametrize("huber", [None, 0.01])
def test_gradient_of_the_loss_agrees_with_central_differences(huber):
    (batch,) = make_batches(TRAIN[:3], cutoff=CUTOFF, batch_size=3, references=REFERENCES, max_shapes=1)
    measure = lambda evaluation, part: loss(evaluation, part, Weights(2.0, 1.0, 3.0), huber=huber)  # noqa: E731
    params = START.init(jax.random.key(0))
    value = jax.jit(lambda p: loss_and_gradient(START, p, batch, measure))
    _, gradient = value(params)
    for name in params:
        step = 1e-5
        plus, minus = (value({**params, name: params[name] + h})[0] for h in (step, -step))
        np.testing.assert_allclose(jnp.sum(gradient[name]), (plus - minus) / (2 * step), rtol=1e-6)


def test_loss_agrees_with_the_literature():
    """Energies per atom, forces per component, and missing labels are ignored."""
    data = frames(3, n_atoms=(4, 8))
    (batch,) = make_batches(data, cutoff=CUTOFF, batch_size=4, references=REFERENCES, max_shapes=1)
    labels = batch.labels
    exact = Evaluation(labels.energy, labels.forces, labels.stress)
    assert loss(exact, batch, Weights(1.0, 1.0, 1.0)) == 0
    n = np.array([4, 8, 4])
    off = exact._replace(energy=labels.energy + 0.1, forces=labels.forces + 0.2)
    expected = 2.0 * np.mean((0.1 / n) ** 2) + 3.0 * 0.2**2
    assert loss(off, batch, Weights(2.0, 3.0, 1.0)) == pytest.approx(expected, rel=1e-9)
    volumes = [f.volume / f.n_atoms for f in data]
    strained = exact._replace(stress=labels.stress + 0.01)
    assert loss(strained, batch, Weights(0.0, 0.0, 1.0)) == pytest.approx(
        np.mean([(0.01 * v) ** 2 for v in volumes]), rel=1e-9
    )
    huber = loss(off, batch, Weights(0.0, 1.0, 0.0), huber=0.05)
    assert huber == pytest.approx(0.05 * (2 * 0.2 - 0.05), rel=1e-9)


def molecules(n, seed=0):
    """Three atoms with charges that depend on their distances; some labels are missing."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.8, 0.6], [0.0, -0.8, 0.6]]) + rng.normal(
            0, 0.1, (3, 3)
        )
        apart = positions[1:] - positions[0]
        lengths = np.linalg.norm(apart, axis=1)
        force = -2.0 * (lengths - 1.0)[:, None] * apart / lengths[:, None]
        frame = Frame(
            system=host_system(positions + rng.normal(size=3), [8, 1, 1]),
            energy=float(np.sum((lengths - 1.0) ** 2)),
            forces=np.array([-force.sum(0), *force]),
            dipole=0.3 * np.sum((2 - lengths)[:, None] * apart, axis=0),
            source=f"molecule {k}",
        )
        missing = [{}, {"dipole": None}, {"forces": None}, {"energy": None, "forces": None}][k % 4]
        frames.append(frame.replace(**missing))
    return frames


def water(**arguments):
    """A network of one layer, which compiles quickly."""
    return mace(
        ["H", "O"], cutoff=3.0, n_features=8, l_max=1, correlation=2, n_layers=1, radial_hidden=(8,),
        avg_num_neighbors=2.0, **arguments,
    )  # fmt: skip


@pytest.mark.slow
def test_network_learns_dipoles_from_frames_with_missing_labels():
    potential, weights = water(charges=True), Weights(1.0, 1.0, 0.0, 10.0)
    recipe = dataclasses.replace(constant_weights(weights), n_epochs=40, batch_size=4)
    result = train(
        potential, molecules(64), valid=molecules(16, seed=1), references={1: 0.0, 8: 0.0}, recipe=recipe,
        progress=False,
    )  # fmt: skip
    first, last = result.history[0], result.history[-1]
    assert last["dipole_rmse"] < 0.25 * first["dipole_rmse"] and last["dipole_error"] < 0.1
    assert last["forces_rmse"] < 0.3 * first["forces_rmse"]
    assert last["valid_loss"] == pytest.approx(
        last["energy_rmse"] ** 2 + last["forces_rmse"] ** 2 + 10 * last["dipole_rmse"] ** 2, rel=1e-9
    )


def test_dipole_loss_ignores_missing_labels():
    data = molecules(4)
    (batch,) = make_batches(data, cutoff=3.0, batch_size=5)
    labels = batch.labels
    np.testing.assert_array_equal(labels.has_dipole, [True, False, True, True, False])
    exact = Evaluation(labels.energy, labels.forces, labels.stress, dipole=labels.dipole)
    weights = Weights(0.0, 0.0, 0.0, 2.0)
    assert loss(exact, batch, weights) == 0
    off = exact._replace(dipole=labels.dipole + np.array([0.3, 0.0, -0.1]))
    assert loss(off, batch, weights) == pytest.approx(2.0 * 0.1 / 3, rel=1e-9)
    batches = make_batches(data, cutoff=3.0, batch_size=5)
    errors = residuals(lambda b: off, batches).errors()
    lengths = [np.linalg.norm(frame.dipole) for frame in data if frame.dipole is not None]
    assert errors.dipole_rmse == pytest.approx((0.1 / 3) ** 0.5, rel=1e-9)
    assert errors.dipole_mae == pytest.approx(0.4 / 3, rel=1e-9)
    assert errors.dipole_error == pytest.approx(0.1**0.5 / np.mean(lengths), rel=1e-9)
    silent = residuals(lambda b: off._replace(dipole=None), batches).errors()
    assert np.isnan([silent.dipole_rmse, silent.dipole_mae, silent.dipole_error]).all()
    with pytest.raises(InputError, match="charges=True"):
        loss(off._replace(dipole=None), batch, weights)


def test_dipoles_of_periodic_frames_are_ignored():
    (frame,) = molecules(1)
    in_cell = frame.replace(system=host_system(frame.positions, frame.numbers, cell=9 * np.eye(3)))
    batches = make_batches([in_cell], cutoff=3.0, batch_size=1)
    (batch,) = batches
    undefined = np.full((1, 3), np.nan)
    evaluation = Evaluation(batch.labels.energy, batch.labels.forces, batch.labels.stress, dipole=undefined)
    assert loss(evaluation, batch, Weights(1.0, 1.0, 0.0, 1.0)) == 0
    assert np.isnan(residuals(lambda b: evaluation, batches).errors().dipole_rmse)
    weights = Weights(1.0, 1.0, 0.0, 1.0)
    recipe = constant_weights(weights)
    arguments = {"references": {1: 0.0, 8: 0.0}, "recipe": recipe, "progress": False}
    with pytest.raises(InputError, match="periodic directions"):
        train(water(charges=True), [frame, in_cell], valid=[frame], **arguments)
    with pytest.raises(InputError, match="charges=True"):
        train(water(), [frame], valid=[frame], **arguments)
    with pytest.raises(InputError, match="validate with has a dipole"):
        train(water(charges=True), [frame], valid=[frame.replace(dipole=None)], **arguments)


@pytest.mark.slow
def test_gradient_of_the_dipole_loss_agrees_with_central_differences():
    (batch,) = make_batches(molecules(4), cutoff=3.0, batch_size=4)
    measure = lambda evaluation, part: loss(evaluation, part, Weights(1.0, 1.0, 0.0, 3.0))  # noqa: E731
    potential = water(charges=True)
    params = potential.init(jax.random.key(0))
    value = jax.jit(lambda p: loss_and_gradient(potential, p, batch, measure))
    _, gradient = value(params)
    rng = np.random.default_rng(0)
    along = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
    plus, minus = (value(jax.tree.map(lambda p, a, h=h: p + h * a, params, along))[0] for h in (1e-6, -1e-6))
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, a: jnp.sum(g * a), gradient, along)))
    np.testing.assert_allclose(slope, (plus - minus) / 2e-6, rtol=1e-5)


def test_gradient_is_finite_for_frames_without_a_volume():
    """Their stress is NaN, which must not reach the parameters."""
    free = [
        frame.replace(system=host_system(frame.positions, frame.numbers), stress=None) for frame in TRAIN[:2]
    ]
    (batch,) = make_batches(free, cutoff=CUTOFF, batch_size=2, references=REFERENCES)
    params = START.init(jax.random.key(0))
    measure = lambda evaluation, part: loss(evaluation, part, Weights(1.0, 1.0, 1.0))  # noqa: E731
    value, gradient = jax.jit(lambda p: loss_and_gradient(START, p, batch, measure))(params)
    assert value > 0
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all() and np.any(leaf != 0)
    with pytest.raises(InputError, match="no volume"):
        strained = free[0].replace(stress=np.eye(3))
        run(train_frames=[strained])


def test_errors_of_predictions_that_are_not_finite_are_infinite():
    (batch,) = make_batches(TRAIN[:2], cutoff=CUTOFF, batch_size=2, references=REFERENCES)
    batches = make_batches(TRAIN[:2], cutoff=CUTOFF, batch_size=2, references=REFERENCES)
    labels = batch.labels
    broken = Evaluation(labels.energy, labels.forces.copy(), labels.stress)
    broken.forces[1, 0, 0] = np.nan
    errors = residuals(lambda b: broken, batches).errors()
    assert errors.forces_rmse == np.inf and errors.energy_rmse == 0


def test_checkpoint_of_other_data_is_refused(tmp_path):
    run(dataclasses.replace(RECIPE, n_epochs=1), folder=tmp_path)
    relabelled = [frame.replace(energy=frame.energy + 0.1) for frame in TRAIN]
    with pytest.raises(InputError, match="other data"):
        run(dataclasses.replace(RECIPE, n_epochs=1), train_frames=relabelled, folder=tmp_path)


def test_invalid_input_is_refused():
    with pytest.raises(InputError, match="at least one of each"):
        train(START, TRAIN, valid=[], references=REFERENCES)
    bare = [frame.replace(energy=None, forces=None, stress=None) for frame in TRAIN]
    with pytest.raises(InputError, match="no frame to train on has one of the labels"):
        train(START, bare, valid=VALID, references=REFERENCES)
    with pytest.raises(InputError, match="n_epochs = 0"):
        run(dataclasses.replace(RECIPE, n_epochs=0))
    krypton = [f.replace(system=f.system.replace(atomic_numbers=np.full(f.n_atoms, 36))) for f in TRAIN]
    with pytest.raises(InputError, match="no energy for the elements"):
        train(START, TRAIN, valid=VALID, references={})
    for name, value in (("clip", 0.0), ("ema", 1.0), ("patience", 0), ("huber", -1.0)):
        with pytest.raises(InputError, match=name):
            run(dataclasses.replace(RECIPE, **{name: value}))
    with pytest.raises(InputError, match="none may be negative"):
        run(dataclasses.replace(RECIPE, final_weights=Weights(0.0, 0.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="Kr"):
        train(START, krypton, valid=VALID, references={36: 0.0, 18: 0.0})
