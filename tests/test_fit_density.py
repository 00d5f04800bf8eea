"""Densities at a pressure: a dilute gas, whose equation of state and its derivative are known."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.integrate import quad

from difmd import make_system, units
from difmd.errors import InputError
from difmd.fitting import (
    DensityTarget,
    Sampling,
    fit,
    given_replicas,
    measure,
    relative_residual,
    state_points,
)
from difmd.potentials import lennard_jones, switched

T, MASS, N_ATOMS, N_REPLICAS = 250.0, 16.0, 32, 8
SIGMA, EPSILON = 3.7, 140 * units.KB
POTENTIAL = lennard_jones("C", sigma=SIGMA, epsilon=EPSILON, cutoff=9.0, truncation=switched(8.0))
PARAMS = POTENTIAL.init(jax.random.key(0))
# 0.03 atoms in σ³.
NUMBER_DENSITY = 0.03 / SIGMA**3
PRESSURE = NUMBER_DENSITY * units.KB * T
SAMPLING = Sampling(
    n_atoms=N_ATOMS, n_replicas=N_REPLICAS, n_gradient_replicas=2, relaxation_time=1 * units.PS,
    production_time=1 * units.PS, window=(0.1 * units.PS, 0.2 * units.PS),
    gradient_window=(0.1 * units.PS, 0.2 * units.PS), friction=2 / units.PS, skin=3.0,
)  # fmt: skip
TARGET = DensityTarget(
    temperature=T, density=MASS * NUMBER_DENSITY, pressure=PRESSURE, production_time=20 * units.PS,
    equilibration_time=2 * units.PS, time_constant=0.3 * units.PS, compressibility=1 / PRESSURE,
)  # fmt: skip


def expected(epsilon):
    """ρ = βPm/(1 + B₂βP) to second order in the density, with B₂ of the switched potential."""

    def mayer(r):
        x = np.clip((r**2 - 8.0**2) / (9.0**2 - 8.0**2), 0, 1)
        s = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5
        u = 4 * epsilon * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6) * s
        return np.expm1(-u / (units.KB * T)) * r**2

    b2 = -2 * np.pi * quad(mayer, 1e-3, 9.0, points=[SIGMA, 8.0], limit=200)[0]
    ideal = PRESSURE / (units.KB * T)
    # P = kT (n + B₂ n²).
    n = (-1 + np.sqrt(1 + 4 * b2 * ideal)) / (2 * b2)
    return MASS * n


@pytest.fixture(scope="module")
def replicas():
    rng = np.random.default_rng(0)
    edge = (N_ATOMS / NUMBER_DENSITY) ** (1 / 3)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)[::2] * edge / 4
    boxes = [
        make_system(
            sites + rng.uniform(-0.5, 0.5, sites.shape), np.full(N_ATOMS, 6),
            masses=np.full(N_ATOMS, MASS), cell=[edge] * 3,
        )
        for _ in range(N_REPLICAS)
    ]  # fmt: skip
    return given_replicas(POTENTIAL, boxes, sampling=SAMPLING)


@pytest.fixture(scope="module")
def measured(replicas):
    (result,), _, production = measure(
        POTENTIAL, PARAMS, [TARGET], replicas, sampling=SAMPLING, key=jax.random.key(1), with_gradient=True
    )
    assert production is None
    return result


@pytest.mark.slow
def test_density_and_gradient_of_a_dilute_gas(measured):
    exact = expected(EPSILON)
    assert measured.stderr < 0.02 * exact
    assert abs(measured.value - exact) < 4 * measured.stderr
    slope = (expected(1.01 * EPSILON) - expected(0.99 * EPSILON)) / (0.02 * EPSILON)
    error = float(measured.gradient_stderr["epsilon"][0])
    assert error < 0.25 * slope
    assert abs(float(measured.gradient["epsilon"][0]) - slope) < 4 * error


@pytest.mark.slow
def test_residual_and_record(measured):
    target = dataclasses.replace(TARGET, stderr=0.01 * TARGET.density)
    (residuals,) = DensityTarget.residuals([target], [measured], relative_residual, 1.0)
    np.testing.assert_allclose(residuals.values, [np.log(measured.value / target.density)])
    np.testing.assert_allclose(
        residuals.jacobian["sigma"][0], measured.gradient["sigma"] / measured.value, rtol=1e-12
    )
    noise = np.hypot(target.stderr, measured.stderr) / measured.value
    np.testing.assert_allclose(residuals.noise, [noise])
    record = DensityTarget.record([target], [measured])
    assert record["density_kg_m3"] == [measured.value / units.KG_PER_M3]
    assert set(record["density_gradient"]) == set(PARAMS)


@pytest.mark.slow
def test_a_fit_to_a_density(replicas):
    short = dataclasses.replace(TARGET, density=1.002 * TARGET.density, production_time=2 * units.PS)
    term = state_points(POTENTIAL, PARAMS, [short], sampling=SAMPLING, replicas=[replicas])
    result = fit(PARAMS, [term], n_iterations=1, key=jax.random.key(2), progress=False)
    entry = result.history[0]
    density = entry["state_points"]["density_kg_m3"][0] * units.KG_PER_M3
    assert entry["loss"] == pytest.approx(np.log(density / short.density) ** 2)
    assert not np.allclose(result.params["sigma"], PARAMS["sigma"])


@pytest.mark.parametrize("change", [{"pressure": np.nan}, {"density": -1.0}, {"time_constant": 0.0}])
def test_bad_densities_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        dataclasses.replace(TARGET, **change)
