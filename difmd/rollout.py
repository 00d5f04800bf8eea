"""`rollout`: a trajectory as a pure function, for jit, vmap over replicas, and grad."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from difmd.errors import Flag, InputError, Status
from difmd.forces import forces
from difmd.gradients.methods import GradientMethod, checkpointed
from difmd.integrators import Integrator, MDState
from difmd.neighbors import Neighbors, rebuild, update
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.reductions import largest
from difmd.system import System

_Carry: TypeAlias = tuple[MDState, Neighbors, Status]


class Frame(NamedTuple):
    """What `rollout` keeps by default.

    Attributes:
        positions: unwrapped [Å]; [atoms, 3].
        momenta: [amu Å/(Å√(amu/eV))]; [atoms, 3].
    """

    positions: Array
    momenta: Array


class Rollout(NamedTuple):
    """The result of `rollout`.

    Attributes:
        state: the last state.
        neighbors: the last neighbour list.
        frames: what `save` returned every `save_every` steps, stacked; the start is not among them.
        status: sticky flags; look at it before you use the rest.
    """

    state: MDState
    neighbors: Neighbors
    frames: Any
    status: Status


def keep_frame(state: MDState, neighbors: Neighbors) -> Frame:
    """Positions and momenta, the default of `rollout(save=)`."""
    del neighbors
    return Frame(state.system.positions, state.momenta)


def initialize(
    potential: Potential,
    params: Params,
    integrator: Integrator,
    system: System,
    momenta: Float[Array, "atoms 3"],
    key: Key[Array, ""],
    neighbors: Neighbors,
) -> MDState:
    """The state at step 0, with the forces evaluated (pure).

    Args:
        potential: the energy model.
        params: its parameters.
        integrator: which will step from there.
        system: the configuration.
        momenta: [amu Å/(Å√(amu/eV))]; [atoms, 3].
        key: seed of the integrator's noise.
        neighbors: a current list for the system.

    Raises:
        InputError: as `forces`.
    """

    def force(system: System) -> Array:
        return forces(potential, params, system, neighbors)

    return integrator.init(system, momenta, key, force)


def rollout(
    potential: Potential,
    params: Params,
    integrator: Integrator,
    state: MDState,
    neighbors: Neighbors,
    *,
    n_steps: int,
    save_every: int = 1,
    rebuild_every: int | None = None,
    save: Callable[[MDState, Neighbors], Any] = keep_frame,
    gradient: GradientMethod | None = None,
) -> Rollout:
    """Advance `state` by `n_steps`; pure, so it can be jitted, mapped and differentiated.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        integrator: how to step.
        state: where to start, with current forces; differentiable.
        neighbors: a current list for it, the one its forces come from; nothing flows through it.
        n_steps: steps to do, a multiple of the segment.
        save_every: steps between frames; the status is checked every step all the same.
        rebuild_every: rebuild the list every so many steps, a multiple of `save_every`; an atom that
            moved more than skin/2 in between sets `NEIGHBOR_STALE`. None: rebuild when needed, never
            stale, but slower to differentiate.
        save: what to keep of a state; it also gets the list that is current for it.
        gradient: how reverse mode works; default `checkpointed()`.

    Returns:
        `Rollout`. The run goes on to the end whatever the status.

    Raises:
        InputError: numbers of steps that do not divide.
    """
    gradient = checkpointed() if gradient is None else gradient
    # The forces of the start are those of this list.
    begun = check(state.system, neighbors, Status.ok(), state.step)
    segment_steps = save_every if rebuild_every is None else rebuild_every
    smallest = min(n_steps, segment_steps, save_every)
    if smallest < 1 or segment_steps % save_every or n_steps % segment_steps:
        raise InputError(
            f"n_steps = {n_steps}, rebuild_every = {rebuild_every}, save_every = {save_every}: each "
            "must be a positive multiple of the next"
        )

    def one_step(state: MDState, current: Neighbors, status: Status) -> _Carry:
        def force(system: System) -> Array:
            nonlocal current
            if rebuild_every is None:
                current = update(system, current)
            return forces(potential, params, system, current)

        state = integrator.step(state, force)
        # A list that is rebuilt when needed cannot be stale.
        status = check(state.system, current, status, state.step, stale=rebuild_every is not None)
        return state, current, _check_motion(state, current, integrator.dt, status)

    def dynamic_segment(carry: _Carry, _: None) -> tuple[_Carry, Any]:
        return _frames(lambda c: one_step(*c), lambda c: save(c[0], c[1]), carry, 1, save_every)

    def static_segment(carry: tuple[MDState, Status], _: None) -> tuple[Any, Any]:
        # The list is constant over the segment and no part of the carry of its steps, so that reverse
        # mode keeps it once and not per step.
        fresh = rebuild(carry[0].system, neighbors)

        def step(carry: tuple[MDState, Status]) -> tuple[MDState, Status]:
            state, _, status = one_step(carry[0], fresh, carry[1])
            return state, status

        n_frames = segment_steps // save_every
        return _frames(step, lambda c: save(c[0], fresh), carry, n_frames, save_every)

    length = n_steps // segment_steps
    if rebuild_every is None:
        carry = (state, neighbors, begun)
        carry, frames = lax.scan(gradient.wrap(dynamic_segment), carry, None, length=length)
        state, neighbors, status = carry
    else:
        (state, status), frames = lax.scan(gradient.wrap(static_segment), (state, begun), None, length=length)
        neighbors = rebuild(state.system, neighbors)
    frames = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), frames)
    return Rollout(state, neighbors, frames, status)


def _frames(
    step: Callable[[Any], Any],
    save: Callable[[Any], Any],
    carry: Any,
    n_frames: int,
    save_every: int,
) -> tuple[Any, Any]:
    """`n_frames` times: `save_every` steps and one `save`."""

    def one_frame(carry: Any, _: None) -> tuple[Any, Any]:
        carry, _ = lax.scan(lambda c, _: (step(c), None), carry, None, length=save_every)
        return carry, save(carry)

    return lax.scan(one_frame, carry, None, length=n_frames)


def _check_motion(state: MDState, neighbors: Neighbors, dt: Array, status: Status) -> Status:
    # A maximum keeps NaN and infinity. Over the axes first, as XLA is slow to reduce [atoms, 3].
    fastest = functools.reduce(jnp.maximum, [jnp.abs(p) for p in state.momenta.T])
    step = dt * largest(fastest / state.system.masses)
    status = status.raise_flag(Flag.NON_FINITE, ~(jnp.isfinite(step) & has_finite_forces(state)), state.step)
    # An explosion may stay finite for a long time, with every list and every number meaningless.
    return status.raise_flag(Flag.TOO_FAST, step > neighbors.cutoff, state.step)


def has_finite_forces(state: MDState) -> Bool[Array, ""]:
    """Whether all forces, and the positions that they are of, are finite."""
    # As in `_check_motion`; one sum of both, as it is the maximum that costs.
    return jnp.isfinite(largest(jnp.abs(sum((state.system.positions + state.forces).T))))
