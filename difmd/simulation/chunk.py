"""The compiled functions of a run: its initial state, a chunk of steps, and a chunk step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from difmd._internal.replicas import map_replicas
from difmd.errors import Flag, Status
from difmd.forces import evaluate, forces, forces_and_virial
from difmd.gradients.segment import Carry, Inputs, Plan, has_finite_forces, step
from difmd.integrators import Forces, Integrator, MDState, draw_momenta, kinetic_energy
from difmd.integrators.base import on_mobile
from difmd.neighbors import Neighbors, rebuild
from difmd.potentials import Params, Potential
from difmd.simulation.limits import closeness
from difmd.simulation.rollouts import Rollout, rollout
from difmd.system import System
from difmd.trajectory.frames import Frames

Record: TypeAlias = Callable[[Potential, Params, Integrator, MDState, Neighbors], tuple[Array, Any]]
"""`record(potential, params, integrator, state, neighbors)` → potential energy [eV], what to store."""

# Functions that run once, so that compiling them is what counts.
_ONCE = {"xla_backend_optimization_level": 0}


class Checks(NamedTuple):
    """What the host checks of each frame: energies [eV], cell [Å; ..., 3, 3], `closeness` of its atoms."""

    potential_energy: Any
    kinetic_energy: Any
    reservoir: Any
    cell: Any
    closest: Any


@functools.partial(jax.jit, compiler_options=_ONCE)
def initial_state(integrator: Integrator, system: System, momenta: Array, keys: Array) -> MDState:
    """The state at step 0 of one system, or of replicas with a key each; `run_chunk` evaluates its forces."""
    return _initial_state(integrator, system, momenta, keys)


@functools.partial(jax.jit, compiler_options=_ONCE)
def draw_state(integrator: Integrator, system: System, temperature: Array, key: Array) -> MDState:
    """The same with momenta drawn at a temperature [K]; one key for momenta and noise of all replicas."""
    noise_keys, momentum_keys = split_keys(system, key)
    draw = draw_momenta if system.positions.ndim == 2 else jax.vmap(draw_momenta, (0, 0, None))
    return _initial_state(integrator, system, draw(momentum_keys, system, temperature), noise_keys)


def split_keys(system: System, key: Array) -> tuple[Array, Array]:
    """Keys of the noise and of the momenta: one each, or one a replica."""
    noise, momenta = jax.random.split(key)
    if system.positions.ndim == 2:
        return noise, momenta
    n_replicas = len(system.positions)
    return jax.random.split(noise, n_replicas), jax.random.split(momenta, n_replicas)


def _initial_state(integrator: Integrator, system: System, momenta: Array, keys: Array) -> MDState:
    unknown = Forces(
        lambda system: jnp.full_like(system.positions, jnp.nan),
        lambda system: (jnp.full_like(system.positions, jnp.nan), jnp.full_like(system.cell, jnp.nan)),
    )

    def init(system: System, momenta: Array, key: Array) -> MDState:
        return integrator.init(system, momenta, key, unknown)

    return (init if system.positions.ndim == 2 else jax.vmap(init))(system, momenta, keys)


def record_frame(
    potential: Potential, params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> tuple[Array, Frames]:
    """A `Record` that stores all `Frames` have."""
    now, system = evaluate(potential, params, state.system, neighbors), state.system
    received = _received(integrator, state, now.energy)
    return now.energy, Frames(system.positions, state.momenta, now.energy, now.stress, system.cell, received)


def record_nothing(
    potential: Potential, params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> tuple[Array, None]:
    """A `Record` that stores nothing; the energy is still checked."""
    del integrator
    return potential.apply(params, state.system, neighbors), None


def _received(integrator: Integrator, state: MDState, like: Array) -> Array:
    """Energy that baths have received, NaN where the integrator does not account for it."""
    return jnp.full_like(like, jnp.nan) if integrator.reservoir is None else integrator.reservoir(state)


def _checks(integrator: Integrator, state: MDState, neighbors: Neighbors, energy: Array) -> Checks:
    kinetic, closest = kinetic_energy(state.system, state.momenta), closeness(state.system, neighbors)
    return Checks(energy, kinetic, _received(integrator, state, energy), state.system.cell, closest)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def run_chunk(
    potential: Potential, n_steps: int, save_every: int, record: Record, params: Params,
    integrator: Integrator, state: MDState, neighbors: Neighbors,
) -> Rollout:  # fmt: skip
    """Advance by some steps, after an evaluation of the forces at step 0; frames are records and `Checks`.

    The list depends on the state and on its capacity alone, so that replays and continuations are the same.
    If it overflows or the forces are not finite, no step is done.
    """
    each = functools.partial(_each, state)

    def save(state: MDState, neighbors: Neighbors) -> tuple[Any, Checks]:
        energy, stored = record(potential, params, integrator, state, neighbors)
        return stored, _checks(integrator, state, neighbors, energy)

    def run(state: MDState, neighbors: Neighbors) -> Rollout:
        return rollout(
            potential, params, state, integrator, neighbors, n_steps=n_steps, save_every=save_every, save=save
        )

    def problems(state: MDState, neighbors: Neighbors) -> Status:
        status = Status.ok().raise_flag(Flag.NEIGHBOR_OVERFLOW, neighbors.overflow, state.step)
        return status.raise_flag(Flag.NON_FINITE, ~has_finite_forces(state), state.step)

    def halted(state: MDState, neighbors: Neighbors, status: Status) -> Rollout:
        shapes = jax.eval_shape(advanced, state, neighbors, status)
        frames = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.frames)
        return Rollout(state, neighbors, frames, status)

    # Traced once, for its shapes and to be run.
    advanced = jax.jit(lambda state, neighbors, status: each(run)(state, neighbors))
    neighbors = each(rebuild)(state.system, neighbors)
    state = _with_forces(potential, params, state, neighbors)
    status = each(problems)(state, neighbors)
    return lax.cond(jnp.any(status.flags != 0), halted, advanced, state, neighbors, status)


@functools.partial(jax.jit, static_argnums=0, compiler_options=_ONCE)
def step_by_step(
    potential: Potential, params: Params, state: MDState, integrator: Integrator, neighbors: Neighbors,
    n_steps: Int[Array, ""] | int,
) -> MDState:  # fmt: skip
    """The state after any number of steps of a chunk, whatever is wrong with it."""
    plan = Plan(potential, forces, lambda *_: None, save_every=1, n_frames=1, n_segments=1, rebuilds=False)

    def run(state: MDState, neighbors: Neighbors) -> MDState:
        inputs = Inputs(params, integrator, neighbors)
        start = Carry(state, neighbors, Status.ok())
        return lax.fori_loop(0, n_steps, lambda _, carry: step(plan, inputs, carry), start).state

    neighbors = _each(state, rebuild)(state.system, neighbors)
    state = _with_forces(potential, params, state, neighbors)
    return _each(state, run)(state, neighbors)


@functools.partial(jax.jit, static_argnums=0, compiler_options=_ONCE)
def checks_of_start(
    potential: Potential, params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> Checks:
    """The checks of a state as those of a frame, with a leading axis of 1."""

    def checks(state: MDState, neighbors: Neighbors) -> Checks:
        return _checks(integrator, state, neighbors, potential.apply(params, state.system, neighbors))

    current = _each(state, rebuild)(state.system, neighbors)
    return jax.tree.map(lambda x: x[None], _each(state, checks)(state, current))


def _each(state: MDState, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one system, mapped over replicas where there are any."""
    return function if state.momenta.ndim == 2 else map_replicas(function, len(state.momenta))


def _with_forces(potential: Potential, params: Params, state: MDState, neighbors: Neighbors) -> MDState:
    """The state; at step 0 with its forces, which have not been evaluated before."""

    def force(state: MDState, neighbors: Neighbors) -> tuple[Array, Array | None]:
        if state.virial is None:
            return on_mobile(state.system, forces(potential, params, state.system, neighbors)), None
        return forces_and_virial(potential, params, state.system, neighbors)

    def stored(state: MDState, neighbors: Neighbors) -> tuple[Array, Array | None]:
        del neighbors
        return state.forces, state.virial

    is_start = jnp.any(state.step == 0)
    current, virial = lax.cond(is_start, _each(state, force), stored, state, neighbors)
    return state.replace(forces=current, virial=virial)
