"""Energy conservation of velocity Verlet over a long run in float64."""

import jax
import numpy as np
import pytest

import difmd
from difmd import units
from difmd.fitting import Sampling
from difmd.fitting.liquids.melting import crystal

pytestmark = pytest.mark.slow

TEMPERATURE = 120.0
SAMPLING = Sampling(atomic_number=18, mass=39.948, n_atoms=864)


@pytest.fixture(scope="module")
def liquid():
    """864 argon-like atoms at 1.374 g/cm³, molten, and their potential."""
    potential = difmd.lennard_jones(
        ["Ar"], sigma=3.405, epsilon=119.8 * units.KB, cutoff=8.5, truncation=difmd.switched(7.5)
    )
    params = potential.init(jax.random.key(0))
    system = crystal(1374 * units.KG_PER_M3, SAMPLING)
    bath = difmd.langevin(dt=4 * units.FS, temperature=TEMPERATURE, friction=1 / units.PS)
    run = difmd.simulate(
        potential, params, system, bath, n_steps=3000, save_every=500, initial_temperature=4 * TEMPERATURE,
        key=jax.random.key(3), progress=False,
    )  # fmt: skip
    return potential, params, run.state


def energies(liquid, dt, n_steps, save_every):
    """Total energy per atom over kT, and times in ps."""
    potential, params, state = liquid
    run = difmd.simulate(
        potential, params, state.system, difmd.velocity_verlet(dt=dt), n_steps=n_steps,
        save_every=save_every, chunk_steps=1000, momenta=difmd.integrators.remove_drift(
            state.momenta, state.system
        ),
        key=jax.random.key(4), progress=False,
    )  # fmt: skip
    total = (run.potential_energy + run.kinetic_energy) / (864 * units.KB * run.temperature.mean())
    return run.time, total


def test_drift(liquid):
    """10⁵ steps of 2 fs: |drift| ≤ 1e-5 kT per atom per ps."""
    times, total = energies(liquid, 2 * units.FS, 100_000, 100)
    drift = np.polyfit(times, total, 1)[0]
    print(f"drift {drift:.2e} kT per atom per ps, rms {total.std():.2e} kT")
    assert abs(drift) <= 1e-5


def test_order(liquid):
    """The energy error is proportional to the square of the time step.

    Over half a picosecond, in which trajectories of different steps are still one and the same, so that
    their errors E(t) − E(0) are the same function of time.
    """
    errors = {}
    for femtoseconds in (2, 4, 8):
        dt = femtoseconds * units.FS
        _, total = energies(liquid, dt, 512 // femtoseconds, 8 // femtoseconds)
        errors[femtoseconds] = np.sqrt(np.mean((total[1:] - total[0]) ** 2))
    print("rms energy error in kT:", {k: f"{v:.3e}" for k, v in errors.items()})
    assert 3.8 <= errors[4] / errors[2] <= 4.2
    assert 3.8 <= errors[8] / errors[4] <= 4.2
