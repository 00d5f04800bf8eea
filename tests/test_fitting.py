"""`fit_diffusivity`: with an exact model in place of the simulation, and on a small liquid."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from difmd import units
from difmd.errors import InputError
from difmd.fitting import (
    DiffusivityTarget,
    FitError,
    FitInterrupted,
    Replicas,
    Sampling,
    StatePoint,
    StatePointRun,
    absolute_residual,
    fit_diffusivity,
    gauss_newton,
    identity,
    logarithmic,
    relative_residual,
)
from difmd.fitting.liquids.melting import crystal
from difmd.neighbors import neighbor_list
from difmd.observables import Diffusivity, Estimate
from difmd.potentials import lennard_jones, switched
from difmd.sensitivity import EquilibriumGradient

POINTS = importlib.import_module("difmd.fitting.state_points_term")
FIT = importlib.import_module("difmd.fitting.driver")


# The fit, with an exact model in place of the simulation


SAMPLING = Sampling(
    atomic_number=6,
    mass=16.043,
    n_atoms=32,
    n_replicas=3,
    n_gradient_replicas=2,
    melt_time=0.1 * units.PS,
    equilibration_time=0.1 * units.PS,
    relaxation_time=0.1 * units.PS,
    production_time=0.7 * units.PS,
    window=(0.16 * units.PS, 0.24 * units.PS),
    gradient_window=(0.16 * units.PS, 0.24 * units.PS),
    origin_time=0.03 * units.PS,
    save_every=2,
    skin=1.5,
)
METHANE_LJ = lennard_jones(["C"], sigma=3.7, epsilon=140 * units.KB, cutoff=6.0, truncation=switched(5.0))
TRUE = {"sigma": jnp.asarray([3.75]), "epsilon": jnp.asarray([150 * units.KB])}
START = {"sigma": jnp.asarray([3.60]), "epsilon": jnp.asarray([130 * units.KB])}


def exact_diffusivity(params, temperature):
    """A made-up law in which two temperatures determine both parameters."""
    beta = 1 / (units.KB * temperature)
    return (0.05 * (3.75 / params["sigma"]) ** 4 * jnp.exp(-2 * beta * params["epsilon"]))[0]


EXACT_TARGETS = tuple(
    DiffusivityTarget(
        temperature=t, diffusivity=float(exact_diffusivity(TRUE, t)) + correction, density=0.2, viscosity=0.01
    )
    for t, correction in ((90.0, 1e-3), (110.0, 2e-3))
)


@pytest.fixture
def exact(monkeypatch):
    """`fit_diffusivity` with the exact model; `calls` counts measurements, `bad` are spoilt."""
    calls, bad = [], {}

    def run_state_point(setup, params, targets, replicas, key):
        (target,) = targets
        calls.append(target.temperature)
        value, gradient = jax.value_and_grad(exact_diffusivity)(params, target.temperature)
        spoil = bad.get(len(calls), "")
        value = np.nan if spoil == "value" else float(value)
        if spoil == "gradient":
            gradient = jax.tree.map(lambda x: x * jnp.nan, gradient)
        none = np.zeros(0)
        found = Diffusivity(
            einstein=Estimate(np.float64(value), np.float64(1e-4)),
            green_kubo=Estimate(np.float64(value), np.float64(1e-4)),
            times=none,
            msd=none,
            msd_stderr=none,
            vacf=none,
            vacf_stderr=none,
            window=(1.0, 2.0),
            samples=none,
            green_kubo_samples=none,
        )
        zero = jax.tree.map(jnp.zeros_like, gradient)
        slopes = EquilibriumGradient(jnp.asarray(value), jnp.asarray(0.0), gradient, zero, gradient, zero)
        run = StatePointRun(setup, params, target.temperature, replicas, None, None, key)
        return [StatePoint(found, 1e-3 if target.temperature == 90 else 2e-3, slopes)], run

    monkeypatch.setattr(POINTS, "run_state_point", run_state_point)
    monkeypatch.setattr(POINTS, "equilibrate", lambda potential, params, replicas, **kwargs: replicas)
    monkeypatch.setattr(POINTS, "keep_liquid", lambda replicas, **kwargs: replicas)
    one = crystal(0.2, SAMPLING)
    systems = jax.tree.map(lambda x: jnp.stack([x] * 3), one)
    lists = neighbor_list(systems, cutoff=6.0, skin=1.5)

    def fit(**changes):
        kwargs = {"sampling": SAMPLING, "n_iterations": 3, "key": jax.random.key(0), "progress": False}
        kwargs["replicas"] = [Replicas(systems, lists)] * 2
        # The moments of optax's own optimisers mix dtypes.
        with jax.numpy_dtype_promotion("standard" if "optimizer" in changes else "strict"):
            return fit_diffusivity(METHANE_LJ, START, EXACT_TARGETS, **{**kwargs, **changes})

    fit.calls, fit.bad = calls, bad
    return fit


def interrupt(entry):
    raise KeyboardInterrupt


def same(first, second):
    return all(bool(jnp.all(x == y)) for x, y in zip(*map(jax.tree.leaves, (first, second)), strict=True))


@pytest.mark.parametrize("residual", [relative_residual, absolute_residual])
def test_fit_finds_the_parameters(exact, residual):
    found = exact(n_iterations=6, residual=residual, optimizer=gauss_newton(full_steps=6))
    for name in TRUE:
        assert found.params[name][0] == pytest.approx(float(TRUE[name][0]), rel=1e-6), name
    assert [len(found.history), len(exact.calls)] == [6, 12]
    first = found.history[0]
    for name in START:
        np.testing.assert_allclose(first["params"][name], START[name], rtol=1e-12)
    expected = [(float(exact_diffusivity(START, t)) + c) / units.D for t, c in ((90.0, 1e-3), (110.0, 2e-3))]
    np.testing.assert_allclose(first["diffusivity"]["D_1e-9_m2_s"], expected, rtol=1e-12)
    losses = [entry["loss"] for entry in found.history]
    assert found.best_loss == min(losses) < 1e-6 * losses[0]
    best = found.history[int(np.argmin(losses))]["params"]
    assert found.best_params["sigma"][0] == pytest.approx(best["sigma"][0], rel=1e-12)


@pytest.mark.parametrize("coordinates", [logarithmic(), identity()], ids=["logarithmic", "identity"])
def test_gradient_of_the_loss(exact, coordinates):
    """A step of gradient descent is −rate × the central difference of the loss."""
    rate, step = 1e-6, 1e-6

    def loss(free):
        params = coordinates.from_free(free)
        value = np.array([float(exact_diffusivity(params, t.temperature)) for t in EXACT_TARGETS])
        measured = np.array([t.diffusivity for t in EXACT_TARGETS])
        return np.mean(np.log((value + [1e-3, 2e-3]) / measured) ** 2)

    found = exact(n_iterations=1, optimizer=optax.sgd(rate), transform=coordinates)
    free, moved = coordinates.to_free(START), coordinates.to_free(found.last_params)
    for name in START:
        ahead, behind = ({**free, name: free[name] * (1 + s)} for s in (step, -step))
        slope = (loss(ahead) - loss(behind)) / (2 * step * float(free[name][0]))
        assert float(moved[name][0] - free[name][0]) == pytest.approx(-rate * slope, rel=1e-4), name


def test_fit_with_adam(exact, tmp_path):
    found = exact(n_iterations=8, optimizer=optax.adam(0.02), folder=tmp_path)
    losses = [entry["loss"] for entry in found.history]
    assert losses[-1] < 0.5 * losses[0]
    # The first step of Adam is the learning rate in each coordinate.
    for name in START:
        moved = np.log(found.history[1]["params"][name][0] / float(START[name][0]))
        assert abs(moved) == pytest.approx(0.02, rel=1e-5)
    calls = len(exact.calls)
    assert same(exact(n_iterations=8, optimizer=optax.adam(0.02), folder=tmp_path).params, found.params)
    assert len(exact.calls) == calls


@pytest.mark.parametrize("optimizer", [None, optax.adam(0.02)], ids=["gauss_newton", "adam"])
def test_resumed_fit_equals_an_uninterrupted_one(exact, tmp_path, optimizer):
    uninterrupted = exact(optimizer=optimizer)
    with pytest.raises(FitInterrupted, match="1 of 3.*folder") as caught:
        exact(optimizer=optimizer, folder=tmp_path, on_iteration=interrupt)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert len(caught.value.partial_result.history) == 1
    exact.calls.clear()
    resumed = exact(optimizer=optimizer, folder=tmp_path)
    assert len(exact.calls) == 4
    assert same(resumed.params, uninterrupted.params) and same(resumed.best_params, uninterrupted.best_params)
    assert resumed.history == uninterrupted.history and resumed.best_loss == uninterrupted.best_loss


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_fit_that_is_not_finite(exact, tmp_path, what):
    """The second of three iterations is spoilt: the error holds the first, and the fit can go on."""
    uninterrupted = exact()
    exact.calls.clear()
    exact.bad[3] = what
    with pytest.raises(FitError, match="iteration 2: .*not finite") as caught:
        exact(folder=tmp_path)
    result = caught.value.partial_result
    assert len(result.history) == 1
    assert same(result.best_params, logarithmic().from_free(logarithmic().to_free(START)))
    assert np.isfinite(result.best_loss) and result.best_loss == result.history[0]["loss"]
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(result.params))
    assert not same(result.params, result.best_params)
    exact.bad.clear()
    assert same(exact(folder=tmp_path).params, uninterrupted.params)


@pytest.mark.parametrize(
    "change",
    [
        {"key": jax.random.key(1)},
        {"sampling": dataclasses.replace(SAMPLING, friction=0.5)},
        {"initial_state_term": False},
        {"residual": absolute_residual},
        {"transform": identity()},
    ],
    ids=["seed", "sampling", "initial_state_term", "residual", "transform"],
)
def test_checkpoint_of_another_fit_is_refused(exact, tmp_path, change):
    exact(n_iterations=2, folder=tmp_path)
    before = (tmp_path / "fit.npz").read_bytes()
    with pytest.raises(InputError, match="delete it, or choose another folder"):
        exact(n_iterations=2, folder=tmp_path, **change)
    assert (tmp_path / "fit.npz").read_bytes() == before


def test_full_disk_in_a_fit_loses_nothing(exact, tmp_path, monkeypatch):
    """The second of three checkpoints finds no space: the error holds what there is, the fit can go on."""
    uninterrupted, save = exact(), FIT.save_checkpoint

    def full(*args):
        raise InputError("cannot write the checkpoint")

    with pytest.raises(FitError, match="iteration 2: cannot write") as caught:
        exact(folder=tmp_path, on_iteration=lambda _: monkeypatch.setattr(FIT, "save_checkpoint", full))
    assert len(caught.value.partial_result.history) == 2
    monkeypatch.setattr(FIT, "save_checkpoint", save)
    exact.calls.clear()
    assert same(exact(folder=tmp_path).params, uninterrupted.params)
    assert len(exact.calls) == 4


def test_damaged_checkpoint_of_a_fit_is_refused(exact, tmp_path):
    (tmp_path / "fit.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="cannot be read"):
        exact(folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"n_iterations": 0}, "n_iterations = 0"),
        ({"replicas": []}, "0 sets of replicas for 2 state points"),
    ],
)
def test_fit_refuses(exact, change, culprit):
    with pytest.raises(InputError, match=culprit):
        exact(**change)
    assert exact.calls == []


def test_fit_refuses_before_it_measures(exact, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="cannot write to the run folder"):
        exact(folder=file / "run")
    kwargs = {"sampling": SAMPLING, "n_iterations": 1, "key": jax.random.key(0), "progress": False}
    with pytest.raises(InputError, match="no targets"):
        fit_diffusivity(METHANE_LJ, START, [], **kwargs)
    with pytest.raises(InputError, match="sigma.*not finite"):
        fit_diffusivity(METHANE_LJ, {**START, "sigma": jnp.asarray([jnp.inf])}, EXACT_TARGETS, **kwargs)
    with pytest.raises(InputError, match="sigma.*not positive"):
        fit_diffusivity(METHANE_LJ, {**START, "sigma": jnp.asarray([-3.0])}, EXACT_TARGETS, **kwargs)
    assert exact.calls == []


def test_species_of_the_sampling_must_be_known(exact):
    """Argon, where the potential is for methane."""
    with pytest.raises(InputError, match="Ar"):
        exact(sampling=dataclasses.replace(SAMPLING, atomic_number=18), replicas=None)
