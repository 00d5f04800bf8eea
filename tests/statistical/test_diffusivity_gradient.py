"""The gradient of D: against finite differences, and against an identity of the Lennard-Jones fluid."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd import units
from difmd.fitting import DiffusivityTarget, Sampling, equilibrate, measure_diffusivity, melt, produce
from difmd.fitting.targets.diffusion import diffusion_samples
from difmd.observables import diffusivity_from_arrays, with_control

pytestmark = pytest.mark.slow

TEMPERATURE = 107.0  # K
DENSITY = 429.08 * units.KG_PER_M3
SAMPLING = Sampling(
    atomic_number=6,
    mass=16.043,
    n_atoms=108,
    n_replicas=96,
    n_gradient_replicas=16,
    melt_time=2 * units.PS,
    equilibration_time=6 * units.PS,
    production_time=4 * units.PS,
    window=(1.0 * units.PS, 1.4 * units.PS),
    gradient_window=(1.0 * units.PS, 1.4 * units.PS),
)
ROUNDS = 24
SIGMA, EPSILON = 3.73, 148.0


def lennard_jones(sigma=SIGMA, epsilon=EPSILON):
    """United-atom methane; float32, as in production."""
    potential = difmd.lennard_jones(["C"], sigma=1.0, epsilon=1.0, cutoff=9.5, truncation=difmd.switched(8.5))
    params = {"sigma": jnp.float32([sigma]), "epsilon": jnp.float32([epsilon * units.KB])}
    return potential, params


@pytest.fixture(scope="module")
def potential():
    """One potential for the module, so that it is compiled once."""
    return lennard_jones()[0]


@pytest.fixture(autouse=True, scope="module")
def single_precision():
    """These runs are long, and float32 is what users take for them."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


PLATEAU = (2.0 * units.PS, 3.0 * units.PS)


def value(potential, params, temperature, like, seed):
    """From long trajectories: ln D in the window of `SAMPLING` and on the plateau, and ∂lnD/∂ln t."""
    long = dataclasses.replace(SAMPLING, production_time=36 * units.PS)
    interval = long.dt * long.save_every
    keys = jax.random.split(jax.random.key(seed))
    at = {"temperature": temperature, "sampling": long}
    replicas = melt(potential, params, density=DENSITY, key=keys[0], like=like, **at)
    done, _ = produce(potential, params, replicas, key=keys[1], **at)
    masses = replicas.systems.masses[0]

    def at_lags(factor):
        first, last = (round(factor * t / interval) for t in long.window)
        return np.asarray(diffusion_samples(done, masses, first, last)).mean(axis=1)

    square = np.sum(np.asarray(done.momenta, np.float64) ** 2, axis=(-1, -2)).mean(axis=1)
    kelvin = square / (float(masses[0]) * 3 * (SAMPLING.n_atoms - 1) * units.KB)
    early = with_control(at_lags(1.0), kelvin, temperature)
    late = diffusivity_from_arrays(
        done.positions, done.momenta, masses, interval=interval, window=PLATEAU, temperature=temperature
    ).einstein
    slope = np.log(at_lags(1.2).mean() / at_lags(1 / 1.2).mean()) / (2 * np.log(1.2))
    logs = [(np.log(float(d.value)), float(d.stderr / d.value)) for d in (early, late)]
    return {"early": logs[0], "late": logs[1], "slope": slope}


@pytest.fixture(scope="module")
def found(potential):
    """Logarithmic derivatives of D by the estimator, with and without the initial-state term."""
    _, params = lennard_jones()
    keys = jax.random.split(jax.random.key(11), 2 * ROUNDS + 1)
    at = {"temperature": TEMPERATURE, "sampling": SAMPLING}
    replicas = melt(potential, params, density=DENSITY, key=keys[-1], **at)
    target = DiffusivityTarget(temperature=TEMPERATURE, diffusivity=1.0, density=DENSITY)
    rounds = []
    for n in range(ROUNDS):
        replicas = equilibrate(potential, params, replicas, time=2 * units.PS, key=keys[2 * n], **at)
        point, replicas = measure_diffusivity(
            potential, params, target, replicas, sampling=SAMPLING, key=keys[2 * n + 1], with_gradient=True
        )
        rounds.append(point.gradient)
    mean = np.mean([float(g.value) for g in rounds])
    out = {"replicas": replicas}
    for name in ("sigma", "epsilon"):
        scale = float(params[name][0]) / mean
        along = np.array([float(g.along[name][0]) for g in rounds]) * scale
        initial = np.array([float(g.initial[name][0]) for g in rounds]) * scale
        for key, series in (("full", along + initial), ("along", along)):
            out[key, name] = series.mean(), series.std(ddof=1) / np.sqrt(ROUNDS)
            print(f"dlnD/dln {name}, {key}: {out[key, name][0]:.3f} ± {out[key, name][1]:.3f}")
    return out


@pytest.fixture(scope="module")
def differences(potential, found):
    """The same derivatives, and that in T, by central differences of long runs from the same seed."""
    like = found["replicas"]
    out = {}
    for name, change in (("sigma", 0.005), ("epsilon", 0.08), ("temperature", 0.08)):
        ends = []
        for sign in (1, -1):
            factor = 1 + sign * change
            sigma = SIGMA * factor if name == "sigma" else SIGMA
            epsilon = EPSILON * factor if name == "epsilon" else EPSILON
            kelvin = TEMPERATURE * factor if name == "temperature" else TEMPERATURE
            ends.append(value(potential, lennard_jones(sigma, epsilon)[1], kelvin, like, 5))
        span = np.log((1 + change) / (1 - change))
        for window in ("early", "late"):
            (up, up_error), (down, down_error) = (end[window] for end in ends)
            out[window, name] = (up - down) / span, np.hypot(up_error, down_error) / span
            slope, error = out[window, name]
            print(f"dlnD/dln {name} by differences, {window}: {slope:.3f} ± {error:.3f}")
        out["slope", name] = 0.5 * (ends[0]["slope"] + ends[1]["slope"])
    print(f"dlnD/dln t: {out['slope', 'temperature']:.3f}")
    return out


def agree(one, other):
    """Whether two estimates agree within two standard errors of their difference."""
    return abs(one[0] - other[0]) <= 2 * np.hypot(one[1], other[1])


@pytest.mark.parametrize("name", ["sigma", "epsilon"])
def test_gradient_agrees_with_finite_differences(found, differences, name):
    """Within 2 standard errors, which are at most 10 %; without the initial-state term it does not."""
    gradient = found["full", name]
    expected = differences["early", name]
    assert gradient[1] <= 0.10 * abs(gradient[0]) and expected[1] <= 0.10 * abs(expected[0])
    assert agree(gradient, expected)
    assert not agree(found["along", name], expected)


def test_dimensional_identity(found, differences):
    """∂lnD/∂lnε = ½ − ∂lnD/∂lnT at fixed σ and ρ; without the initial-state term it fails.

    D(t) at fixed lags also feels the unit of time, τ ∝ ε^−½: ½ ∂lnD/∂ln t, zero on the plateau.
    """
    slope, error = differences["early", "temperature"]
    expected = (0.5 + 0.5 * differences["slope", "temperature"] - slope, error)
    assert agree(found["full", "epsilon"], expected)
    assert not agree(found["along", "epsilon"], expected)


@pytest.mark.parametrize("name", ["sigma", "epsilon"])
def test_early_derivative_stands_for_that_of_the_plateau(found, differences, name):
    """What a fit takes: logarithmic slopes at early lags, within 25 % of those of D on its plateau."""
    gradient, plateau = found["full", name], differences["late", name]
    error = np.hypot(gradient[1], plateau[1])
    assert abs(gradient[0] - plateau[0]) <= 0.25 * abs(plateau[0]) + 2 * error
