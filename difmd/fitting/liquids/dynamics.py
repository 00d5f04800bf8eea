"""Molecular dynamics of replicas: equilibration in a heat bath, and Newtonian production runs."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from difmd._internal.replicas import map_replicas, run_replicas
from difmd._internal.summaries import fields_summary
from difmd.errors import Status, check_positive
from difmd.fitting.liquids.replicas import Replicas, check_replicas
from difmd.fitting.liquids.sampling import CHUNK, Sampling
from difmd.integrators import Integrator, MDState, draw_momenta, langevin, velocity_verlet
from difmd.neighbors import Neighbors, rebuild
from difmd.potentials import Params, Potential
from difmd.simulation.replay import replay_on_overflow
from difmd.simulation.rollouts import initialize, rollout
from difmd.system import System


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

    def __repr__(self) -> str:
        """Shapes, without the arrays."""
        return fields_summary(self)


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
        SimulationError: a run failed.
    """
    check_positive("temperature", temperature, "K")
    check_positive("time", time, "Å√(amu/eV)")
    check_replicas(potential, params, replicas)
    for chunk in range(-(-sampling.steps(time) // CHUNK)):
        systems, lists = replicas.systems, replicas.neighbors
        keys = jax.random.split(jax.random.fold_in(key, chunk), len(systems.positions))
        momenta = _draw(keys, systems, temperature)

        def run(
            neighbors: Neighbors,
            systems: System = systems,
            momenta: Array = momenta,
            keys: Any = keys,
        ) -> _Advanced:
            integrator = langevin(dt=sampling.dt, temperature=temperature, friction=sampling.friction)
            static, batched = (potential, CHUNK, CHUNK, False), (systems, momenta, neighbors, keys)
            shared = (params, integrator)
            return run_replicas(_advance, static, shared, batched, n_atoms=systems.n_atoms)

        done, lists, _ = replay_on_overflow(run, systems, lists)
        replicas = replicas._replace(systems=done.systems, neighbors=lists)
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
        SimulationError: a run failed.
    """
    check_positive("temperature", temperature, "K")
    check_replicas(potential, params, replicas)
    keys = jax.random.split(key, len(replicas.systems.positions))
    momenta = _draw(keys, replicas.systems, temperature)
    frames_per_chunk = CHUNK // sampling.save_every
    parts = []
    for _ in range(-(-sampling.n_frames // frames_per_chunk)):
        systems, lists = replicas.systems, replicas.neighbors

        def run(neighbors: Neighbors, systems: System = systems, momenta: Array = momenta) -> _Advanced:
            every = sampling.save_every
            static = (potential, frames_per_chunk * every, every, with_energy_gradients)
            shared = (params, velocity_verlet(dt=sampling.dt))
            batched = (systems, momenta, neighbors, keys)
            return run_replicas(_advance, static, shared, batched, n_atoms=systems.n_atoms)

        done, lists, _ = replay_on_overflow(run, systems, lists)
        replicas = replicas._replace(systems=done.systems, neighbors=lists)
        momenta = done.momenta
        parts.append(done.frames)
    frames = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1)[:, : sampling.n_frames], *parts)
    return Production(*frames), replicas


_draw = jax.jit(jax.vmap(draw_momenta, (0, 0, None)))


class _Advanced(NamedTuple):
    systems: System
    momenta: Array
    frames: tuple[Array, Array, Any, Any]
    status: Status


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _advance(
    potential: Potential,
    n_steps: int,
    save_every: int,
    with_energy_gradients: bool,
    params: Params,
    integrator: Integrator,
    systems: System,
    momenta: Array,
    neighbors: Neighbors,
    keys: Array,
) -> _Advanced:
    """Replicas by `n_steps`; the list is built anew at the start, which makes repeats exact."""

    def save(state: MDState, neighbors: Neighbors) -> tuple[Array, Array, Any, Any]:
        energy, slopes = None, None
        if with_energy_gradients:
            energy, slopes = jax.value_and_grad(potential.apply)(params, state.system, neighbors)
        return state.system.positions, state.momenta, energy, slopes

    def one(system: System, momenta: Array, neighbors: Neighbors, key: Array) -> _Advanced:
        fresh = rebuild(system, neighbors)
        state = initialize(potential, params, system, integrator, fresh, momenta=momenta, key=key)
        run = rollout(
            potential,
            params,
            state,
            integrator,
            fresh,
            n_steps=n_steps,
            save_every=save_every,
            save=save,
        )
        return _Advanced(run.state.system, run.state.momenta, run.frames, run.status)

    return map_replicas(one, len(keys))(systems, momenta, neighbors, keys)
