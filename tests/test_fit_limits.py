"""Fits stop where `simulate` does: atoms too close, and energies that jump."""

import jax
import jax.numpy as jnp
import pytest
from test_fit_given_liquid import BOXES, DENSITY, SAMPLING, T

import difmd
from difmd import units
from difmd.errors import SimulationError
from difmd.fitting import DiffusivityTarget, FitError, fit_diffusivity, given_replicas
from difmd.potentials import lennard_jones, switched, truncated

TARGET = DiffusivityTarget(temperature=T, diffusivity=60 * units.D, density=DENSITY)
# Atoms that pass through each other, and wells whose edges conserve no energy.
BAD = {
    "TOO_CLOSE": lennard_jones(
        ["Ne", "Ar"], sigma=3.0, epsilon=1e-30, cutoff=6.0, truncation=switched(5.0)
    ),
    "ENERGY_JUMP": lennard_jones(["Ne", "Ar"], sigma=3.0, epsilon=1.0, cutoff=4.0, truncation=truncated()),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("flag", BAD)
def test_a_fit_stops_where_simulate_does(flag):
    potential = BAD[flag]
    params = potential.init(jax.random.key(0))
    systems = jax.tree.map(lambda *x: jnp.stack(x), *BOXES)
    bath = difmd.langevin(dt=SAMPLING.dt, temperature=T, friction=SAMPLING.friction)
    with pytest.raises(SimulationError, match=flag):
        difmd.simulate(
            potential, params, systems, bath, n_steps=2520, save_every=252, chunk_steps=252,
            initial_temperature=T, key=jax.random.key(3), progress=False,
        )  # fmt: skip
    replicas = given_replicas(potential, BOXES, sampling=SAMPLING)
    with pytest.raises(FitError, match=flag) as caught:
        fit_diffusivity(
            potential, params, [TARGET], sampling=SAMPLING, replicas=[replicas], n_iterations=1,
            key=jax.random.key(4), progress=False,
        )  # fmt: skip
    assert caught.value.partial_result.history == []
    assert isinstance(caught.value.__cause__, SimulationError)
