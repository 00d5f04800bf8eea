"""Every thermostat samples the canonical ensemble: kinetic and potential energies, and mixed masses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import difmd
from difmd import units
from difmd._internal.replicas import map_replicas
from difmd.fitting import Sampling, melt
from difmd.integrators import draw_momenta
from difmd.neighbors import neighbor_list
from difmd.observables.statistics import over_replicas
from difmd.validation.histograms import log_ratio_slope

pytestmark = pytest.mark.slow

N_ATOMS, N_REPLICAS, N_FRAMES, EVERY = 32, 64, 1000, 10
DENSITY, T = 1374 * units.KG_PER_M3 * 0.7, 130.0
DT = 4 * units.FS
POTENTIAL = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=5.0, truncation=difmd.switched(4.0))
PARAMS = POTENTIAL.init(jax.random.key(0))
INTEGRATORS = {
    "langevin": lambda kelvin: difmd.langevin(dt=DT, temperature=kelvin, friction=2 / units.PS),
    "csvr": lambda kelvin: difmd.csvr(dt=DT, temperature=kelvin, time_constant=0.1 * units.PS),
    "nose_hoover": lambda kelvin: difmd.nose_hoover(dt=DT, temperature=kelvin, time_constant=0.1 * units.PS),
}
# Components of the total momentum that stay zero; noise of Langevin dynamics moves the centre of mass.
CONSERVED = {"langevin": 0, "csvr": 3, "nose_hoover": 3}


@pytest.fixture(scope="module")
def liquid():
    """Boxes of a dense fluid, half of its atoms four times as heavy as the others."""
    sampling = Sampling(
        atomic_number=18, mass=39.948, n_atoms=N_ATOMS, n_replicas=N_REPLICAS, n_gradient_replicas=2, dt=DT,
        melt_time=2 * units.PS, equilibration_time=4 * units.PS, skin=1.2,
    )  # fmt: skip
    found = melt(POTENTIAL, PARAMS, temperature=T, density=DENSITY, sampling=sampling, key=jax.random.key(1))
    masses = jnp.broadcast_to(jnp.where(jnp.arange(N_ATOMS) % 2, 80.0, 20.0), (N_REPLICAS, N_ATOMS))
    systems = found.systems.replace(masses=masses)
    return found._replace(systems=systems, neighbors=neighbor_list(systems, cutoff=5.0, skin=1.2, slack=1.6))


@pytest.fixture(scope="module")
def sampled(liquid):
    """`sampled(name, kelvin)`: kinetic energies of light and heavy atoms, and U; each [replicas, frames]."""
    known = {}

    def energies(state, neighbors):
        kinetic = jnp.sum(state.momenta**2, axis=-1) / (2 * state.system.masses)
        return kinetic[::2].sum(), kinetic[1::2].sum(), POTENTIAL.apply(PARAMS, state.system, neighbors)

    def get(name, kelvin):
        if (name, kelvin) not in known:
            integrator = INTEGRATORS[name](kelvin)

            def one(system, neighbors, key):
                keys = jax.random.split(key)
                momenta = draw_momenta(keys[0], system, kelvin)
                state = difmd.initialize(
                    POTENTIAL, PARAMS, system, integrator, neighbors, momenta=momenta, key=keys[1]
                )
                done = difmd.rollout(
                    POTENTIAL, PARAMS, state, integrator, neighbors, n_steps=EVERY * N_FRAMES,
                    save_every=EVERY, save=energies,
                )  # fmt: skip
                return done.frames, done.status

            keys = jax.random.split(jax.random.key(7), N_REPLICAS)
            frames, status = jax.jit(map_replicas(one, N_REPLICAS))(liquid.systems, liquid.neighbors, keys)
            assert not np.any(np.asarray(status.flags))
            known[name, kelvin] = [np.asarray(x)[:, N_FRAMES // 4 :] for x in frames]
        return known[name, kelvin]

    return get


@pytest.mark.parametrize("name", INTEGRATORS)
def test_kinetic_energy_is_gamma_distributed(sampled, name):
    """Mean and variance within 5 standard errors, and a Kolmogorov–Smirnov test of thinned samples.

    BAOAB momenta are those of the canonical ensemble but for (ωΔt)²/4, some 0.5 % here.
    """
    light, heavy, _ = sampled(name, T)
    kt, n_free = units.KB * T, 3 * N_ATOMS - CONSERVED[name]
    reduced = (light + heavy) / kt
    mean = over_replicas(reduced.mean(axis=1))
    assert abs(mean.value / (n_free / 2) - 1) < 5 * mean.stderr / (n_free / 2) + 0.006
    spread = over_replicas(((reduced - reduced.mean()) ** 2).mean(axis=1))
    assert abs(spread.value / (n_free / 2) - 1) < 5 * spread.stderr / (n_free / 2) + 0.012
    # What the momenta are off by in the mean is taken out.
    thinned = reduced[:, ::50].ravel() * (n_free / 2) / reduced.mean()
    assert scipy.stats.kstest(thinned, scipy.stats.gamma(n_free / 2).cdf).pvalue > 1e-6


@pytest.mark.parametrize("name", INTEGRATORS)
def test_species_have_one_temperature(sampled, name):
    """Equipartition between light and heavy atoms, with the share of each in the centre of mass."""
    light, heavy, _ = sampled(name, T)
    total = N_ATOMS / 2 * (20.0 + 80.0)
    half = N_ATOMS / 2
    free = [3 * half - CONSERVED[name] * half * mass / total for mass in (20.0, 80.0)]
    assert sum(free) == pytest.approx(3 * N_ATOMS - CONSERVED[name])
    for kinetic, n_free in zip((light, heavy), free, strict=True):
        found = over_replicas(kinetic.mean(axis=1) / (units.KB * T) / (n_free / 2))
        assert abs(found.value - 1) < 5 * found.stderr + 0.008


@pytest.mark.parametrize("name", INTEGRATORS)
def test_potential_energies_obey_boltzmann(sampled, name):
    """ln of the ratio of histograms at two temperatures is linear in U with the slope β₁ − β₂.

    As a maximum-likelihood fit of which of the two a sample is from (Shirts 2013), with replicas as the
    independent unit.
    """
    warm = 1.1 * T
    cold, hot = (sampled(name, kelvin)[2] for kelvin in (T, warm))
    expected = 1 / (units.KB * T) - 1 / (units.KB * warm)

    parts = np.array_split(np.arange(N_REPLICAS), 16)
    found = over_replicas(np.array([log_ratio_slope(cold[part], hot[part]) for part in parts]))
    assert found.stderr < 0.1 * expected
    assert abs(found.value - expected) < 5 * found.stderr
