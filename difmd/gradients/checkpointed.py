"""Reverse mode that stores some states and recomputes the steps between them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from difmd._internal.reductions import largest
from difmd.errors import InputError
from difmd.gradients.base import GradientMethod
from difmd.gradients.floats import floats, instantiated, is_marked, marks_of, moved_by
from difmd.gradients.segment import Carry, Extent, Inputs, Plan, segment, segment_with_extent
from difmd.neighbors import Neighbors, rebuild
from difmd.system import System


def checkpointed(*, levels: int = 1) -> GradientMethod:
    """Store the first state of each segment and recompute the others: one more forward pass for each level.

    With segments of about √n steps memory grows as √n. The segment is the `rebuild_every` of the rollout, or
    `save_every` when the list is updated dynamically. With more levels, segments form nested groups of
    similar sizes, and only the first states of the largest groups are stored. With `rebuild_every` the second
    pass is cheaper than the first, as lists hold only the pairs that came within the cut-off.

    Args:
        levels: levels of groups, including the segments.

    Returns:
        `GradientMethod`, for every integrator.

    Raises:
        InputError: `levels` below 1.

    References:
        Griewank & Walther, ACM Trans. Math. Softw. 26, 19 (2000), doi:10.1145/347837.347846.
    """
    if levels < 1:
        raise InputError(f"levels = {levels} must be at least 1")
    name = "checkpointed()" if levels == 1 else f"checkpointed({levels=})"
    return GradientMethod(run=functools.partial(_run, levels), name=name)


class _Arguments(NamedTuple):
    """The inputs, the initial state, and what `save` closes over, which are differentiated."""

    inputs: Inputs
    carry: Carry
    consts: list[Array]


class _Checkpoint(NamedTuple):
    """Stored at the start of a group: the leaves of the state that steps change, and a list that is updated.

    `reach`: positions and cut-off from which to build the fixed list of a segment.
    """

    moved: list[Array]
    neighbors: Neighbors | None
    reach: tuple[Array, Array] | None


class _Cotangents(NamedTuple):
    """Cotangents of the state, and of params, integrator and what `save` closes over."""

    state: list[Array]
    varied: list[Array]


_PlanOf: TypeAlias = Callable[[list[Array]], Plan]
"""The plan for given values of what `save` closes over."""


def _run(levels: int, plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    neighbors = inputs.neighbors if carry.neighbors is None else carry.neighbors
    save, consts = jax.closure_convert(plan.save, carry.state, neighbors)
    lengths = factors(plan.n_segments, levels)

    def plan_of(consts: list[Array]) -> Plan:
        return plan._replace(save=lambda *at: save(*at, *consts))

    @jax.custom_vjp
    def run(arguments: _Arguments) -> tuple[Carry, Any]:
        def through(carry: Carry, _: None) -> tuple[Carry, Any]:
            return segment(plan_of(arguments.consts), arguments.inputs, carry)

        return lax.scan(through, arguments.carry, None, length=plan.n_segments)

    def forward(perturbed: _Arguments) -> tuple[tuple[Carry, Any], Any]:
        arguments = jax.tree.map(lambda x: x.value, perturbed)
        varies = jax.tree.map(lambda x: x.perturbed, perturbed)
        (end, frames), starts = _forward(lengths, plan_of, arguments)
        frames = jax.tree.map(lambda x: x.reshape(plan.n_segments, *x.shape[len(lengths) :]), frames)
        # What a step changes varies, whether the initial state does or not.
        moved = moved_by(arguments.inputs.integrator, arguments.carry.state)
        is_state = [a or b for a, b in zip(jax.tree.leaves(varies.carry.state), moved, strict=True)]
        is_varied = (varies.inputs.params, varies.inputs.integrator, varies.consts)
        return (end, frames), (arguments, starts, marks_of(is_varied), marks_of(is_state))

    def backward(residuals: Any, of_results: tuple[Carry, Any]) -> tuple[_Arguments]:
        arguments, starts, *marks = residuals
        is_varied, is_state = map(is_marked, marks)
        of_end, of_frames = instantiated(of_results)
        inputs = arguments.inputs
        varied, insert = floats((inputs.params, inputs.integrator, arguments.consts), is_varied)
        cotangents = _Cotangents(floats(of_end.state, is_state)[0], [jnp.zeros_like(x) for x in varied])
        grouped = [x.reshape(*lengths, *x.shape[1:]) for x in floats(of_frames)[0]]
        varies = (is_varied, is_state)
        cotangents = _backward(lengths, plan_of, arguments, starts, cotangents, grouped, varies)
        params, integrator, of_consts = insert(cotangents.varied, None)
        state = floats(arguments.carry.state, is_state)[1](cotangents.state, None)
        # None: no differentiable number in it.
        nothing: Any = None
        return (_Arguments(Inputs(params, integrator, nothing), Carry(state, nothing, nothing), of_consts),)

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(_Arguments(inputs, carry, consts))


def _forward(
    lengths: list[int], plan_of: _PlanOf, arguments: _Arguments
) -> tuple[tuple[Carry, Any], _Checkpoint]:
    """The end, the frames [*lengths, n_frames, ...], and the checkpoints of the `lengths[0]` groups."""
    inputs, begin, consts = arguments
    plan = plan_of(consts)
    moved = moved_by(inputs.integrator, begin.state)

    def group(carry: Carry, _: None) -> tuple[Carry, Any]:
        reach = None
        if lengths[1:]:
            end, frames = _forward(lengths[1:], plan_of, arguments._replace(carry=carry))[0]
        elif plan.rebuilds:
            end, frames, extent = segment_with_extent(plan, inputs, carry)
            reach = _reach(inputs.neighbors, carry.state.system, end.state.system, extent)
        else:
            end, frames = segment(plan, inputs, carry)
        stored = [x for x, moves in zip(jax.tree.leaves(carry.state), moved, strict=True) if moves]
        return end, (frames, _Checkpoint(stored, carry.neighbors, reach))

    end, (frames, starts) = lax.scan(group, begin, None, length=lengths[0])
    return (end, frames), starts


def _backward(
    lengths: list[int], plan_of: _PlanOf, arguments: _Arguments, starts: _Checkpoint, cotangents: _Cotangents,
    of_frames: list[Array], varies: tuple[list[bool], list[bool]],
) -> _Cotangents:  # fmt: skip
    """Cotangents at the start of the segments of `_forward`, from those at their end and of their frames."""
    inputs, begin, consts = arguments
    is_varied, is_state = varies
    varied, insert = floats((inputs.params, inputs.integrator, consts), is_varied)
    moved = moved_by(inputs.integrator, begin.state)

    def carry_of(start: _Checkpoint) -> Carry:
        stored = iter(start.moved)
        leaves, tree = jax.tree.flatten(begin.state)
        leaves = [next(stored) if moves else x for x, moves in zip(leaves, moved, strict=True)]
        return begin._replace(state=jax.tree.unflatten(tree, leaves), neighbors=start.neighbors)

    def through_segment(cotangents: _Cotangents, start: _Checkpoint, of_frames: list[Array]) -> _Cotangents:
        carry = carry_of(start)
        fixed = None
        if start.reach is not None:
            middle, reach = start.reach
            fixed = rebuild(carry.state.system.replace(positions=middle), inputs.neighbors, reach)
        numbers, state_of = floats(carry.state, is_state)

        def recomputed(numbers: list[Array], varied: list[Array]) -> tuple[list[Array], list[Array]]:
            params, integrator, consts = insert(varied)
            current = inputs._replace(params=params, integrator=integrator)
            start = carry._replace(state=state_of(numbers))
            end, frames = segment(plan_of(consts), current, start, fixed)
            return floats(end.state, is_state)[0], floats(frames)[0]

        _, pull = jax.vjp(recomputed, numbers, varied)
        of_state, of_varied = pull((cotangents.state, of_frames))
        return _Cotangents(of_state, [a + b for a, b in zip(cotangents.varied, of_varied, strict=True)])

    def through_group(
        cotangents: _Cotangents, group: tuple[_Checkpoint, list[Array]]
    ) -> tuple[_Cotangents, None]:
        start, of_frames = group
        if not lengths[1:]:
            return through_segment(cotangents, start, of_frames), None
        inner = _forward(lengths[1:], plan_of, arguments._replace(carry=carry_of(start)))[1]
        return _backward(lengths[1:], plan_of, arguments, inner, cotangents, of_frames, varies), None

    return lax.scan(through_group, cotangents, (starts, of_frames), reverse=True)[0]


def _reach(neighbors: Neighbors, start: System, end: System, extent: Extent) -> tuple[Array, Array]:
    """The positions and the cut-off of a list that holds all pairs of a segment."""
    # Atoms move about the middle of their bounding boxes by at most half a diagonal.
    middle = 0.5 * (extent.lowest + extent.highest)
    squares = jnp.sum((0.5 * (extent.highest - extent.lowest)) ** 2, axis=-1)
    moved = jnp.sqrt(largest(jnp.where(start.atomic_numbers > 0, squares, 0)))
    # The margin is far above the rounding of coordinates.
    reach = neighbors.cutoff + 2 * moved + 1e-3
    full = neighbors.cutoff + neighbors.skin
    # False also where something is NaN, or the cell has moved the images.
    is_less = (reach < full) & jnp.all(start.cell == end.cell)
    return jnp.where(is_less, middle, start.positions), jnp.where(is_less, reach, full)


def factors(number: int, n_factors: int) -> list[int]:
    """Factors of a number, as equal as its divisors allow, the largest first; fewer for primes.

    >>> factors(1000, 3), factors(7, 2)
    ([10, 10, 10], [7])
    """
    chosen = []
    for remaining in range(n_factors, 1, -1):
        root = number ** (1 / remaining)
        divisors = (d for d in range(2, number + 1) if number % d == 0)
        divisor = min(divisors, key=lambda d: abs(d - root), default=1)
        if divisor in (1, number):
            break
        chosen.append(divisor)
        number //= divisor
    return sorted([*chosen, number], reverse=True)
