"""Runs of replicas for the checks with dynamics; times are in steps, so that they suit any system."""

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
from difmd.simulation.driver import simulate
from difmd.simulation.limits import Limits
from difmd.system import System
from difmd.trajectory.trajectory import Trajectory
from difmd.validation.ensembles import KineticEnergies, Volumes

EVERY = 10
"""Steps between frames."""

# Steps in which momenta and volumes relax.
_FRICTION, _BAROSTAT = 50, 50

# Runs of half the length that find out how much the volume fluctuates, each with what the one before found.
_PILOTS = 2

# Volumes forget what they were more slowly than momenta, so that runs at each pressure are longer.
_LONGER = 2


def equilibrated(
    potential: Potential, params: Params, system: System, *, temperature: float, dt: float, n_steps: int,
    n_replicas: int, limits: Limits, key: Key[Array, ""],
) -> MDState:  # fmt: skip
    """Replicas of a system after Langevin dynamics, each with noise of its own.

    Raises:
        SimulationError: as `simulate`.
    """
    systems = jax.tree.map(lambda x: jnp.broadcast_to(x, (n_replicas, *x.shape)), system)
    run = simulate(
        potential, params, systems, _bath(dt, temperature), n_steps=n_steps, initial_temperature=temperature,
        save_every=EVERY, key=key, limits=limits, progress=False,
    )  # fmt: skip
    return _end(run)


def newtonian(
    potential: Potential, params: Params, start: MDState, *, dt: float, n_steps: int, chunk_steps: int,
    limits: Limits, key: Key[Array, ""],
) -> Trajectory:  # fmt: skip
    """Velocity Verlet from there; runs with the same chunks compile once.

    Raises:
        SimulationError: as `simulate`.
    """
    return simulate(
        potential, params, start.system, velocity_verlet(dt=dt), n_steps=n_steps, save_every=EVERY,
        chunk_steps=chunk_steps, momenta=start.momenta, key=key, limits=limits, progress=False,
    )  # fmt: skip


def kinetic_energies(
    potential: Potential, params: Params, start: MDState, *, temperature: float, dt: float, n_steps: int,
    limits: Limits,
) -> KineticEnergies:  # fmt: skip
    """Of Langevin dynamics that go on from there.

    Raises:
        SimulationError: as `simulate`.
    """
    run = simulate(
        potential, params, start, _bath(dt, temperature), n_steps=n_steps, save_every=EVERY, limits=limits,
        progress=False,
    )  # fmt: skip
    masses = np.asarray(start.system.masses, np.float64)
    each = np.sum(run.momenta.astype(np.float64) ** 2, axis=-1) / (2 * masses * units.KB * temperature)
    labels, members = kinds(jax.tree.map(lambda x: x[0], start.system))
    samples = np.stack([each[..., own].sum(axis=-1) for own in members], axis=-1)
    # The thermostat moves the centre of mass, too.
    return KineticEnergies(labels, np.array([3.0 * len(own) for own in members]), samples)


def kinds(system: System) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Labels of the kinds of atoms that move, which differ in species or mass, and the atoms of each."""
    from ase.data import chemical_symbols

    numbers, masses = np.asarray(system.atomic_numbers), np.asarray(system.masses, np.float64)
    mobile = np.asarray(system.is_mobile)
    found = np.unique(np.stack([numbers[mobile], masses[mobile]], axis=1), axis=0)
    symbols = [chemical_symbols[int(z)] for z, _ in found]
    labels = tuple(
        symbol if symbols.count(symbol) == 1 else f"{symbol} of {mass:g} amu"
        for symbol, (_, mass) in zip(symbols, found, strict=True)
    )
    return labels, [np.flatnonzero(mobile & (numbers == z) & (masses == mass)) for z, mass in found]


def volumes(
    potential: Potential, params: Params, start: MDState, *, temperature: float, pressure: float, dt: float,
    n_steps: int, limits: Limits, key: Key[Array, ""],
) -> Volumes:  # fmt: skip
    """Of stochastic cell rescaling at three pressures, each after a run at the middle one.

    That also finds the compressibility, with which volumes relax as quickly as they may. The pressures are so
    far apart that volumes shift by their width, for which the error of the slope between them is about the
    least.

    Raises:
        SimulationError: as `simulate`.
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
    for pilot in keys[:_PILOTS]:
        before = run(start, n_steps // 2, pressure, pilot, compressibility)
        start = _end(before)
        late = before.volume[len(before.volume) // 2 :]
        # What differs between replicas counts, as they may still relax slowly.
        width, mean = float(late.std()), float(late.mean())
        compressibility = width**2 / (kT * mean)
    pressures = pressure + kT / width * np.array([-1, 0, 1])
    samples = []
    for outside, one in zip(pressures, keys[_PILOTS:], strict=True):
        done = run(start, _LONGER * n_steps, float(outside), one, compressibility)
        samples.append(done.volume[len(done.volume) // 4 :])
    return Volumes(pressures, temperature, np.stack(samples))


def _end(run: Trajectory) -> MDState:
    """The last state of a run, which only trajectories from disk may lack."""
    if run.state is None:
        raise SimulationError("the run has no state to go on from", run)
    return run.state


def _bath(dt: float, temperature: float) -> Any:
    return langevin(dt=dt, temperature=temperature, friction=1 / (_FRICTION * dt))
