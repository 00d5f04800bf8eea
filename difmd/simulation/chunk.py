"""How `simulate` runs some steps at a time: its start, a chunk, and a chunk that went wrong once more."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from difmd._internal.replicas import map_replicas
from difmd.errors import Flag, Status
from difmd.forces import evaluate, forces, forces_and_virial
from difmd.gradients.segment import Carry, Inputs, Plan, has_finite_forces, step
from difmd.integrators import Forces, Integrator, MDState, draw_momenta, on_mobile
from difmd.neighbors import Neighbors, rebuild
from difmd.potentials import Params, Potential
from difmd.simulation.limits import closeness
from difmd.simulation.recorder import Record
from difmd.simulation.rollouts import Rollout, rollout
from difmd.system import System


# Runs once: what it takes to compile counts.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def begin(
    integrator: Integrator,
    system: System,
    temperature: Array | None,
    momenta: Array | None,
    key: Array,
) -> MDState:
    """The state that a run of one system or of replicas starts from; its forces come with the first chunk."""
    unknown = Forces(
        lambda system: jnp.full_like(system.positions, jnp.nan),
        lambda system: (jnp.full_like(system.positions, jnp.nan), jnp.full_like(system.cell, jnp.nan)),
    )

    def one(system: System, momenta: Array | None, keys: Array) -> MDState:
        if momenta is None:
            assert temperature is not None
            momenta = draw_momenta(keys[1], system, temperature)
        return integrator.init(system, momenta, keys[0], unknown)

    keys = jax.random.split(key)
    if system.positions.ndim == 2:
        return one(system, momenta, keys)
    keys = jax.vmap(lambda key: jax.random.split(key, len(system.positions)), out_axes=1)(keys)
    return jax.vmap(one)(system, momenta, keys)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_chunk(
    potential: Potential,
    n_steps: int,
    save_every: int,
    params: Params,
    integrator: Integrator,
    state: MDState,
    neighbors: Neighbors,
) -> Rollout:
    """Some steps, and at step 0 the forces before; not one step with a list or forces that will not do.

    The list is built here, as XLA compiles what is in one function once. It depends on the state and its own
    capacity alone, so that a replay and a continuation go the same way. With each frame comes how close its
    atoms are.
    """
    each = functools.partial(_each, state)

    def record(state: MDState, neighbors: Neighbors) -> tuple[Record, Array]:
        now = evaluate(potential, params, state.system, neighbors)
        received = jnp.full_like(now.energy, jnp.nan)
        if integrator.reservoir is not None:
            received = integrator.reservoir(state)
        frame = Record(
            state.system.positions, state.momenta, now.energy, now.stress, state.system.cell, received
        )
        return frame, closeness(state.system, neighbors)

    def run(state: MDState, neighbors: Neighbors) -> Rollout:
        return rollout(
            potential, params, state, integrator, neighbors,
            n_steps=n_steps, save_every=save_every, save=record,
        )  # fmt: skip

    def problems(state: MDState, neighbors: Neighbors) -> Status:
        status = Status.ok().raise_flag(Flag.NEIGHBOR_OVERFLOW, neighbors.overflow, state.step)
        return status.raise_flag(Flag.NON_FINITE, ~has_finite_forces(state), state.step)

    def halted(state: MDState, neighbors: Neighbors, status: Status) -> Rollout:
        shapes = jax.eval_shape(go, state, neighbors, status)
        frames = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.frames)
        return Rollout(state, neighbors, frames, status)

    # Traced once, for its shapes and to be run.
    go = jax.jit(lambda state, neighbors, status: each(run)(state, neighbors))
    neighbors = each(rebuild)(state.system, neighbors)
    state = _with_forces(potential, params, state, neighbors)
    status = each(problems)(state, neighbors)
    return lax.cond(jnp.any(status.flags != 0), halted, go, state, neighbors, status)


@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def step_by_step(
    potential: Potential,
    params: Params,
    integrator: Integrator,
    state: MDState,
    neighbors: Neighbors,
    n_steps: Int[Array, ""] | int,
) -> MDState:
    """The state after any number of steps of a chunk, whatever is wrong with it."""
    plan = Plan(potential, forces, lambda *_: None, save_every=1, n_frames=1, n_segments=1, rebuilds=False)

    def run(state: MDState, neighbors: Neighbors) -> MDState:
        inputs = Inputs(params, integrator, neighbors)
        start = Carry(state, neighbors, Status.ok())
        return lax.fori_loop(0, n_steps, lambda _, carry: step(plan, inputs, carry), start).state

    neighbors = _each(state, rebuild)(state.system, neighbors)
    state = _with_forces(potential, params, state, neighbors)
    return _each(state, run)(state, neighbors)


@functools.partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def record_of_start(
    potential: Potential, params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> Record:
    """A state as a frame, with a leading axis of 1; its stress is not found."""

    def record(state: MDState, neighbors: Neighbors) -> Record:
        system = state.system
        energy = potential.apply(params, system, neighbors)
        received = jnp.full_like(energy, jnp.nan)
        if integrator.reservoir is not None:
            received = integrator.reservoir(state)
        stress = jnp.full_like(system.cell, jnp.nan)
        return Record(system.positions, state.momenta, energy, stress, system.cell, received)

    current = _each(state, rebuild)(state.system, neighbors)
    return jax.tree.map(lambda x: x[None], _each(state, record)(state, current))


def _each(state: MDState, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one system, of all replicas."""
    return function if state.momenta.ndim == 2 else map_replicas(function, len(state.momenta))


def _with_forces(potential: Potential, params: Params, state: MDState, neighbors: Neighbors) -> MDState:
    """A state of step 0 with its forces, which are yet to be found."""

    def force(state: MDState, neighbors: Neighbors) -> tuple[Array, Array | None]:
        if state.virial is None:
            return on_mobile(state.system, forces(potential, params, state.system, neighbors)), None
        return forces_and_virial(potential, params, state.system, neighbors)

    def known(state: MDState, neighbors: Neighbors) -> tuple[Array, Array | None]:
        del neighbors
        return state.forces, state.virial

    begins = jnp.any(state.step == 0)
    found, virial = lax.cond(begins, _each(state, force), known, state, neighbors)
    return state.replace(forces=found, virial=virial)
