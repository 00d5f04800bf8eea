"""Runs of replicas for checks with dynamics; time constants are in steps, so that they fit any system."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd.errors import SimulationError
from difmd.integrators import MDState, cell_rescaling, langevin, velocity_verlet
from difmd.integrators.cell_rescaling import WATER
from difmd.potentials import Params, Potential
from difmd.potentials.species import symbols
from difmd.simulation.driver import simulate
from difmd.simulation.limits import Limits
from difmd.system import System
from difmd.trajectory.trajectory import Trajectory
from difmd.validation.ensembles import KineticEnergies, Volumes

EVERY = 10
"""Steps between frames."""

# Relaxation times of momenta and volumes, in steps.
_FRICTION, _BAROSTAT = 50, 50

# Runs of half the length that estimate the compressibility, each with the estimate of the previous one.
_PILOTS = 2

# Volumes decorrelate more slowly than momenta, so that runs at each pressure are longer by this factor.
_LONGER = 2


def equilibrated(
    potential: Potential, params: Params, system: System, *, temperature: float, dt: float, n_steps: int,
    n_replicas: int, limits: Limits, key: Key[Array, ""],
) -> MDState:  # fmt: skip
    """Replicas of a system after Langevin dynamics with independent noise."""
    systems = jax.tree.map(lambda x: jnp.broadcast_to(x, (n_replicas, *x.shape)), system)
    run = simulate(
        potential, params, systems, _thermostat(dt, temperature), n_steps=n_steps,
        initial_temperature=temperature, save_every=EVERY, key=key, limits=limits, progress=False,
    )  # fmt: skip
    return _end(run)


def newtonian(
    potential: Potential, params: Params, start: MDState, *, dt: float, n_steps: int, chunk_steps: int,
    limits: Limits, key: Key[Array, ""],
) -> Trajectory:  # fmt: skip
    """A velocity Verlet run from a state; runs with the same chunks compile once."""
    return simulate(
        potential, params, start.system, velocity_verlet(dt=dt), n_steps=n_steps, save_every=EVERY,
        chunk_steps=chunk_steps, momenta=start.momenta, key=key, limits=limits, progress=False,
    )  # fmt: skip


def kinetic_energies(
    potential: Potential, params: Params, start: MDState, *, temperature: float, dt: float, n_steps: int,
    limits: Limits,
) -> KineticEnergies:  # fmt: skip
    """Kinetic energies of Langevin dynamics from a state."""
    run = simulate(
        potential, params, start, _thermostat(dt, temperature), n_steps=n_steps, save_every=EVERY,
        limits=limits, progress=False,
    )  # fmt: skip
    masses = np.asarray(start.system.masses, np.float64)
    each = np.sum(run.momenta.astype(np.float64) ** 2, axis=-1) / (2 * masses * units.KB * temperature)
    labels, members = kinds(jax.tree.map(lambda x: x[0], start.system))
    samples = np.stack([each[..., atoms].sum(axis=-1) for atoms in members], axis=-1)
    # The thermostat acts on the centre of mass, too.
    return KineticEnergies(labels, np.array([3.0 * len(atoms) for atoms in members]), samples)


def kinds(system: System) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Labels of the kinds of mobile atoms, which differ in species or mass, and the atoms of each kind."""
    numbers, masses = np.asarray(system.atomic_numbers), np.asarray(system.masses, np.float64)
    mobile = np.asarray(system.is_mobile)
    unique = np.unique(np.stack([numbers[mobile], masses[mobile]], axis=1), axis=0)
    names = symbols(unique[:, 0].astype(int).tolist())
    labels = tuple(
        name if names.count(name) == 1 else f"{name} of {mass:g} amu"
        for name, mass in zip(names, unique[:, 1], strict=True)
    )
    return labels, [np.flatnonzero(mobile & (numbers == z) & (masses == mass)) for z, mass in unique]


def volumes(
    potential: Potential, params: Params, start: MDState, *, temperature: float, pressure: float, dt: float,
    n_steps: int, limits: Limits, key: Key[Array, ""],
) -> Volumes:  # fmt: skip
    """Volumes of stochastic cell rescaling at three pressures, after runs at the middle one.

    These runs estimate the compressibility, with which volumes relax at the given time constant. Between two
    pressures the mean volume shifts by its standard deviation, which about minimises the error of the slope.
    """
    settings: dict[str, Any] = {
        "dt": dt, "temperature": temperature, "friction": 1 / (_FRICTION * dt),
        "time_constant": _BAROSTAT * dt,
    }  # fmt: skip
    keys = jax.random.split(key, _PILOTS + 3)

    def run(start: MDState, steps: int, outside: float, key: Array, compressibility: float) -> Trajectory:
        press = cell_rescaling(pressure=outside, compressibility=compressibility, **settings)
        return simulate(
            potential, params, start.system, press, n_steps=steps, save_every=EVERY,
            momenta=start.momenta, key=key, limits=limits, progress=False,
        )  # fmt: skip

    kT = units.KB * temperature
    compressibility = WATER
    for pilot_key in keys[:_PILOTS]:
        pilot = run(start, n_steps // 2, pressure, pilot_key, compressibility)
        start = _end(pilot)
        late = pilot.volume[len(pilot.volume) // 2 :]
        # Over all replicas, whose means may differ as they relax slowly.
        width, mean = float(late.std()), float(late.mean())
        compressibility = width**2 / (kT * mean)
    pressures = pressure + kT / width * np.array([-1, 0, 1])
    samples = []
    for outside, run_key in zip(pressures, keys[_PILOTS:], strict=True):
        volume = run(start, _LONGER * n_steps, float(outside), run_key, compressibility).volume
        samples.append(volume[len(volume) // 4 :])
    return Volumes(pressures, temperature, np.stack(samples))


def _end(run: Trajectory) -> MDState:
    """The last state of a run, which only trajectories from disk lack."""
    if run.state is None:
        raise SimulationError("the run has no final state", run)
    return run.state


def _thermostat(dt: float, temperature: float) -> Any:
    return langevin(dt=dt, temperature=temperature, friction=1 / (_FRICTION * dt))
