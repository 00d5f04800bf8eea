"""Molecular dynamics of replicas: equilibration in a heat bath, and Newtonian production runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from difmd._internal.summaries import brief_repr
from difmd.errors import check_positive
from difmd.fitting.liquids.replicas import Replicas, check_replicas
from difmd.fitting.liquids.sampling import CHUNK, Sampling
from difmd.integrators import Integrator, MDState, draw_momenta, langevin, velocity_verlet
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.simulation.chunk import initial_state, record_nothing
from difmd.simulation.engine import run_chunks
from difmd.system import System


@brief_repr
class Production(NamedTuple):
    """Newtonian trajectories of all replicas.

    Attributes:
        positions: unwrapped [Å]; [replicas, frames, atoms, 3].
        momenta: [amu Å/time]; [replicas, frames, atoms, 3].
        energies: U of each frame if ∂U/∂θ was recorded, else None [eV]; [replicas, frames].
        energy_gradients: ∂U/∂θ of each frame, a pytree of [replicas, frames, ...], or None.
    """

    positions: Array
    momenta: Array
    energies: Any
    energy_gradients: Any


def equilibrate(
    potential: Potential,
    params: Params,
    replicas: Replicas,
    *,
    temperature: float,
    time: float,
    sampling: Sampling,
    key: Key[Array, ""],
) -> Replicas:
    """Run Langevin dynamics of all replicas for a time, in chunks of 252 steps.

    Momenta are drawn anew for every chunk, which thermostats as well.

    Args:
        potential: the energy model.
        params: its parameters.
        replicas: initial configurations.
        temperature: of the bath [K].
        time: [Å√(amu/eV)], rounded up to a multiple of 252 steps.
        sampling: time step and friction.
        key: seed.

    Returns:
        The replicas at the end.

    Raises:
        InputError: a temperature or time that is not positive, or replicas that do not fit the potential.
        SimulationError: a run failed, as in `difmd.simulate` with its default limits.
    """
    check_positive("temperature", temperature, "K")
    check_positive("time", time, "Å√(amu/eV)")
    check_replicas(potential, params, replicas)
    integrator = langevin(dt=sampling.dt, temperature=temperature, friction=sampling.friction)
    for chunk in range(-(-sampling.steps(time) // CHUNK)):
        chunk_key = jax.random.fold_in(key, chunk)
        state = _initial_state(integrator, replicas.systems, temperature, chunk_key)
        for done in run_chunks(
            potential, params, state, integrator, replicas.neighbors,
            n_steps=CHUNK, save_every=CHUNK, chunk_steps=CHUNK, record=record_nothing,
        ):  # fmt: skip
            replicas = replicas._replace(systems=done.state.system, neighbors=done.neighbors)
    return replicas


def produce(
    potential: Potential,
    params: Params,
    replicas: Replicas,
    *,
    temperature: float,
    sampling: Sampling,
    key: Key[Array, ""],
    with_energy_gradients: bool = False,
) -> tuple[Production, Replicas]:
    """Draw momenta at the temperature and integrate Newton's equations for the production time.

    Args:
        potential: the energy model.
        params: its parameters.
        replicas: equilibrated at this temperature.
        temperature: [K].
        sampling: time step, length, and steps between frames.
        key: seed of the momenta.
        with_energy_gradients: record U and ∂U/∂θ of every frame.

    Returns:
        The trajectories, and the replicas at their ends.

    Raises:
        InputError: a temperature that is not positive, or replicas that do not fit the potential.
        SimulationError: a run failed, as in `difmd.simulate` with its default limits.
    """
    check_positive("temperature", temperature, "K")
    check_replicas(potential, params, replicas)
    integrator = velocity_verlet(dt=sampling.dt)
    state = _initial_state(integrator, replicas.systems, temperature, key)
    every = sampling.save_every
    chunk_steps = CHUNK // every * every
    n_chunks = -(-sampling.n_frames * every // chunk_steps)
    parts = []
    for done in run_chunks(
        potential, params, state, integrator, replicas.neighbors,
        n_steps=n_chunks * chunk_steps, save_every=every, chunk_steps=chunk_steps,
        record=_record_with_gradients if with_energy_gradients else _record,
    ):  # fmt: skip
        replicas = replicas._replace(systems=done.state.system, neighbors=done.neighbors)
        parts.append(done.frames)
    frames = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1)[:, : sampling.n_frames], *parts)
    return frames, replicas


_draw = jax.jit(jax.vmap(draw_momenta, (0, 0, None)))


def _initial_state(integrator: Integrator, systems: System, temperature: float, key: Array) -> MDState:
    """Replicas with new momenta."""
    keys = jax.random.split(key, len(systems.positions))
    return initial_state(integrator, systems, _draw(keys, systems, temperature), keys)


def _record(
    potential: Potential, params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> tuple[Array, Production]:
    del integrator
    energy = potential.apply(params, state.system, neighbors)
    return energy, Production(state.system.positions, state.momenta, None, None)


def _record_with_gradients(
    potential: Potential, params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> tuple[Array, Production]:
    del integrator
    energy, slopes = jax.value_and_grad(potential.apply)(params, state.system, neighbors)
    return energy, Production(state.system.positions, state.momenta, energy, slopes)
