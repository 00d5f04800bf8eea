"""Reverse mode that stores some states and computes the steps between them again."""

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
    """Store the start of each segment and recompute the rest: one forward pass more for each level.

    With segments of about √n steps memory grows as √n. The segment is the `rebuild_every` of the
    rollout, or `save_every` when the list is updated dynamically. With more levels segments are gathered
    in groups, these in larger ones and so on, as equal as the divisors of their number allow, and only the
    starts of the largest groups are stored.

    How far atoms went in a segment is known on the way back. With `rebuild_every` its list then holds the
    pairs that came near and no others, which makes the second pass cheaper than the first.

    Args:
        levels: of groups, counting the segments.

    Raises:
        InputError: fewer than one level.

    References:
        Griewank & Walther, ACM Trans. Math. Softw. 26, 19 (2000), doi:10.1145/347837.347846.
    """
    if levels < 1:
        raise InputError(f"levels = {levels} must be at least 1")
    return GradientMethod(run=functools.partial(_run, levels))


class _Given(NamedTuple):
    """What is differentiated: the inputs, the start, and what `save` closes over."""

    inputs: Inputs
    carry: Carry
    consts: list[Array]


class _Start(NamedTuple):
    """What is kept of the start of a group of segments.

    Attributes:
        moved: leaves of the state that steps change.
        neighbors: the list where it is updated when needed.
        near: of a single segment that has a list of its own, from where and how far it must reach.
    """

    moved: list[Array]
    neighbors: Neighbors | None
    near: tuple[Array, Array] | None


class _Bars(NamedTuple):
    """Cotangents of the numbers in a state, and of those in params, integrator and `save`."""

    state: list[Array]
    varied: list[Array]


_PlanOf: TypeAlias = Callable[[list[Array]], Plan]
"""The plan, once it is known what `save` closes over."""


def _run(levels: int, plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    begun = inputs.neighbors if carry.neighbors is None else carry.neighbors
    save, consts = jax.closure_convert(plan.save, carry.state, begun)
    lengths = factors(plan.n_segments, levels)

    def plan_of(consts: list[Array]) -> Plan:
        return plan._replace(save=lambda *at: save(*at, *consts))

    @jax.custom_vjp
    def run(given: _Given) -> tuple[Carry, Any]:
        return lax.scan(
            lambda carry, _: segment(plan_of(given.consts), given.inputs, carry),
            given.carry, None, length=plan.n_segments,
        )  # fmt: skip

    def forward(perturbed: _Given) -> tuple[tuple[Carry, Any], Any]:
        given = jax.tree.map(lambda x: x.value, perturbed)
        varies = jax.tree.map(lambda x: x.perturbed, perturbed)
        (end, frames), starts = _forth(lengths, plan_of, given)
        frames = jax.tree.map(lambda x: x.reshape(plan.n_segments, *x.shape[len(lengths) :]), frames)
        # What a step changes varies, whether the start does or not.
        moved = moved_by(given.inputs.integrator, given.carry.state)
        is_state = [a or b for a, b in zip(jax.tree.leaves(varies.carry.state), moved, strict=True)]
        is_varied = (varies.inputs.params, varies.inputs.integrator, varies.consts)
        return (end, frames), (given, starts, marks_of(is_varied), marks_of(is_state))

    def backward(residuals: Any, cotangents: tuple[Carry, Any]) -> tuple[_Given]:
        given, starts, *marks = residuals
        is_varied, is_state = map(is_marked, marks)
        of_end, of_frames = instantiated(cotangents)
        found, whole = floats((given.inputs.params, given.inputs.integrator, given.consts), is_varied)
        bars = _Bars(floats(of_end.state, is_state)[0], [jnp.zeros_like(x) for x in found])
        in_groups = [x.reshape(*lengths, *x.shape[1:]) for x in floats(of_frames)[0]]
        bars = _back(lengths, plan_of, given, starts, bars, in_groups, (is_varied, is_state))
        params, integrator, of_consts = whole(bars.varied, None)
        state = floats(given.carry.state, is_state)[1](bars.state, None)
        # None: no number in it that could be differentiated.
        nothing: Any = None
        return (_Given(Inputs(params, integrator, nothing), Carry(state, nothing, nothing), of_consts),)

    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(_Given(inputs, carry, consts))


def _forth(lengths: list[int], plan_of: _PlanOf, given: _Given) -> tuple[tuple[Carry, Any], _Start]:
    """The end and what was saved, [*lengths, n_frames, ...]; and the starts of the `lengths[0]` groups."""
    inputs, begin, consts = given
    plan = plan_of(consts)
    moved = moved_by(inputs.integrator, begin.state)

    def group(carry: Carry, _: None) -> tuple[Carry, Any]:
        near = None
        if lengths[1:]:
            end, frames = _forth(lengths[1:], plan_of, given._replace(carry=carry))[0]
        elif plan.rebuilds:
            end, frames, extent = segment_with_extent(plan, inputs, carry)
            near = _near(inputs.neighbors, carry.state.system, end.state.system, extent)
        else:
            end, frames = segment(plan, inputs, carry)
        kept = [x for x, moves in zip(jax.tree.leaves(carry.state), moved, strict=True) if moves]
        return end, (frames, _Start(kept, carry.neighbors, near))

    end, (frames, starts) = lax.scan(group, begin, None, length=lengths[0])
    return (end, frames), starts


def _back(
    lengths: list[int],
    plan_of: _PlanOf,
    given: _Given,
    starts: _Start,
    bars: _Bars,
    of_frames: list[Array],
    varies: tuple[list[bool], list[bool]],
) -> _Bars:
    """Cotangents at the start of what `_forth` went through, from those at its end and of what it saved."""
    inputs, begin, consts = given
    is_varied, is_state = varies
    varied, whole = floats((inputs.params, inputs.integrator, consts), is_varied)
    moved = moved_by(inputs.integrator, begin.state)

    def carry_of(start: _Start) -> Carry:
        kept = iter(start.moved)
        leaves, tree = jax.tree.flatten(begin.state)
        leaves = [next(kept) if moves else x for x, moves in zip(leaves, moved, strict=True)]
        return begin._replace(state=jax.tree.unflatten(tree, leaves), neighbors=start.neighbors)

    def through_segment(bars: _Bars, start: _Start, of_frames: list[Array]) -> _Bars:
        carry = carry_of(start)
        fixed = None
        if start.near is not None:
            middle, reach = start.near
            fixed = rebuild(carry.state.system.replace(positions=middle), inputs.neighbors, reach)
        numbers, state_of = floats(carry.state, is_state)

        def again(numbers: list[Array], varied: list[Array]) -> tuple[list[Array], list[Array]]:
            params, integrator, consts = whole(varied)
            current = inputs._replace(params=params, integrator=integrator)
            start = carry._replace(state=state_of(numbers))
            end, frames = segment(plan_of(consts), current, start, fixed)
            return floats(end.state, is_state)[0], floats(frames)[0]

        _, pull = jax.vjp(again, numbers, varied)
        of_state, of_varied = pull((bars.state, of_frames))
        return _Bars(of_state, [a + b for a, b in zip(bars.varied, of_varied, strict=True)])

    def through_group(bars: _Bars, group: tuple[_Start, list[Array]]) -> tuple[_Bars, None]:
        start, of_frames = group
        if not lengths[1:]:
            return through_segment(bars, start, of_frames), None
        inner = _forth(lengths[1:], plan_of, given._replace(carry=carry_of(start)))[1]
        return _back(lengths[1:], plan_of, given, inner, bars, of_frames, varies), None

    return lax.scan(through_group, bars, (starts, of_frames), reverse=True)[0]


def _near(neighbors: Neighbors, start: System, end: System, extent: Extent) -> tuple[Array, Array]:
    """From where, and how far, a list must reach to hold all pairs of a segment.

    Known afterwards, that is less than cutoff + skin around the start: atoms move about the middle of the box
    that they stayed in by half of its diagonal at most.
    """
    middle = 0.5 * (extent.lowest + extent.highest)
    squares = jnp.sum((0.5 * (extent.highest - extent.lowest)) ** 2, axis=-1)
    moved = jnp.sqrt(largest(jnp.where(start.atomic_numbers > 0, squares, 0)))
    # Rounding of coordinates stays far below this.
    reach = neighbors.cutoff + 2 * moved + 1e-3
    whole = neighbors.cutoff + neighbors.skin
    # Also where something is NaN, or the cell took the images along.
    is_less = (reach < whole) & jnp.all(start.cell == end.cell)
    return jnp.where(is_less, middle, start.positions), jnp.where(is_less, reach, whole)


def factors(number: int, n_factors: int) -> list[int]:
    """Factors of a number, as equal as its divisors allow, the largest first; fewer where there are none.

    >>> factors(1000, 3), factors(7, 2)
    ([10, 10, 10], [7])
    """
    found = []
    for left in range(n_factors, 1, -1):
        root = number ** (1 / left)
        divisor = min(
            (d for d in range(2, number + 1) if number % d == 0), key=lambda d: abs(d - root), default=1
        )
        if divisor in (1, number):
            break
        found.append(divisor)
        number //= divisor
    return sorted([*found, number], reverse=True)
