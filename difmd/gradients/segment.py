"""A step and a segment of a rollout, as pure functions of everything they depend on.

`rollout` makes a `Plan` of segments, and a gradient method runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from difmd._internal.lattice import invert, product
from difmd._internal.reductions import largest
from difmd.errors import Flag, Status
from difmd.forces import forces_and_virial
from difmd.integrators import Forces, Integrator, MDState
from difmd.neighbors import Neighbors, rebuild, update
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.system import System

# Largest strain of the cell in one step; typical barostats need less than a thousandth of it.
_STRAIN = 0.1


class Inputs(NamedTuple):
    """Inputs of a rollout besides its initial state; other lists are rebuilt from `neighbors`."""

    params: Params
    integrator: Integrator
    neighbors: Neighbors


class Carry(NamedTuple):
    """What one segment passes to the next; `neighbors` is None where each segment builds a list."""

    state: MDState
    neighbors: Neighbors | None
    status: Status


class Extent(NamedTuple):
    """Bounding boxes of the paths of atoms [Å]; each [atoms, 3]."""

    lowest: Array
    highest: Array

    def extended(self, positions: Array) -> Extent:
        """Boxes that contain these positions as well."""
        return Extent(jnp.minimum(self.lowest, positions), jnp.maximum(self.highest, positions))


class Plan(NamedTuple):
    """The layout of a rollout; all of it is static.

    Attributes:
        potential: the energy model.
        force: `force(potential, params, system, neighbors)`, as `difmd.forces`.
        save: `save(state, neighbors)`, the contents of a frame.
        save_every: steps between frames.
        n_frames: frames of a segment.
        n_segments: segments.
        rebuilds: whether each segment begins with a new list; otherwise it is updated when needed.
    """

    potential: Potential
    force: Callable[[Potential, Params, System, Neighbors], Array]
    save: Callable[[MDState, Neighbors], Any]
    save_every: int
    n_frames: int
    n_segments: int
    rebuilds: bool


def step(plan: Plan, inputs: Inputs, carry: Carry, fixed: Neighbors | None = None) -> Carry:
    """One step, with a `fixed` list or with that of the carry, which is updated when needed."""
    current = _list_of(carry, fixed)

    def current_for(system: System) -> Neighbors:
        nonlocal current
        if fixed is None:
            current = update(system, current)
        return current

    force = Forces(
        lambda system: plan.force(plan.potential, inputs.params, system, current_for(system)),
        lambda system: forces_and_virial(plan.potential, inputs.params, system, current_for(system)),
    )
    state = inputs.integrator.step(carry.state, force)
    # A list that is updated when needed is never stale.
    status = check(state.system, current, carry.status, state.step, stale=fixed is not None)
    status = check_motion(state, current, inputs.integrator.dt, status)
    if state.virial is not None:
        status = check_cell(carry.state.system.cell, state, status)
    return Carry(state, current if fixed is None else None, status)


def segment(plan: Plan, inputs: Inputs, carry: Carry, fixed: Neighbors | None = None) -> tuple[Carry, Any]:
    """The steps from one rebuild to the next, or to the next frame: the end, and frames [n_frames, ...].

    `fixed` is the list of all steps; default: built here if the plan rebuilds.
    """
    (carry, _), frames = _segment(plan, inputs, carry, fixed, None)
    return carry, frames


def segment_with_extent(plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any, Extent]:
    """`segment`, and the bounding boxes of the paths of atoms."""
    start = carry.state.system.positions
    (carry, extent), frames = _segment(plan, inputs, carry, None, Extent(start, start))
    assert extent is not None
    return carry, frames, extent


def _segment(
    plan: Plan, inputs: Inputs, carry: Carry, fixed: Neighbors | None, extent: Extent | None
) -> tuple[tuple[Carry, Extent | None], Any]:
    # Steps do not carry a list that is built here, so that reverse mode stores it once.
    if fixed is None and plan.rebuilds:
        fixed = rebuild(carry.state.system, inputs.neighbors)

    def advance(both: tuple[Carry, Extent | None], _: None) -> tuple[Any, None]:
        carry, extent = both
        carry = step(plan, inputs, carry, fixed)
        return (carry, extent if extent is None else extent.extended(carry.state.system.positions)), None

    def frame(both: tuple[Carry, Extent | None], _: None) -> tuple[Any, Any]:
        both, _ = lax.scan(advance, both, None, length=plan.save_every)
        return both, plan.save(both[0].state, _list_of(both[0], fixed))

    return lax.scan(frame, (carry, extent), None, length=plan.n_frames)


def _list_of(carry: Carry, fixed: Neighbors | None) -> Neighbors:
    neighbors = carry.neighbors if fixed is None else fixed
    assert neighbors is not None
    return neighbors


def check_motion(state: MDState, neighbors: Neighbors, dt: Array | float, status: Status) -> Status:
    """Raise flags for a state after a step that is not finite, or in which an atom moved too far."""
    # NaN and infinity propagate. Over the axes first, as XLA is slow to reduce [atoms, 3].
    fastest = functools.reduce(jnp.maximum, [jnp.abs(p) for p in state.momenta.T])
    step = dt * largest(fastest / state.system.masses)
    status = status.raise_flag(Flag.NON_FINITE, ~(jnp.isfinite(step) & has_finite_forces(state)), state.step)
    # An explosion may stay finite for a long time.
    return status.raise_flag(Flag.TOO_FAST, step > neighbors.cutoff, state.step)


def check_cell(before: Array, state: MDState, status: Status) -> Status:
    """Raise a flag for a step that changed the cell too much for its equations to hold."""
    change = product(invert(before), state.system.cell) - jnp.eye(3, dtype=before.dtype)
    # A NaN compares False and is reported as non-finite.
    return status.raise_flag(Flag.CELL_COLLAPSE, jnp.max(jnp.abs(change)) > _STRAIN, state.step)


def has_finite_forces(state: MDState) -> Bool[Array, ""]:
    """Whether all positions and forces are finite."""
    # As in `check_motion`; of the sum of both, as the maximum is what costs time.
    return jnp.isfinite(largest(jnp.abs(sum((state.system.positions + state.forces).T))))
