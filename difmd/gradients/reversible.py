"""Reverse mode that steps back in time instead of storing states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from difmd._internal.fixed_point import is_outside, resolution_of, rounded
from difmd.errors import Flag, InputError, Status
from difmd.gradients.base import GradientMethod
from difmd.gradients.floats import floats, instantiated, is_marked, marks_of
from difmd.gradients.segment import Carry, Inputs, Plan, check_motion
from difmd.integrators import MDState, on_mobile
from difmd.integrators.base import Reversible
from difmd.neighbors import Neighbors, rebuild, update
from difmd.neighbors.types import check
from difmd.system import System

# States that are kept at a time on the way back.
_BLOCK = 32


def reversible() -> GradientMethod:
    """Store the last state only, and find those before it by running backward: memory of a few states.

    Positions, momenta, cell and the forces of pairs are rounded to grids (`resolution_of`), on which a step
    is undone bit for bit. A gradient takes, beside the run, a run backward and the derivative of each step,
    as with `checkpointed`.

    Forces must not depend on the order in which a list holds its neighbours, as the list of the way back is
    another one. Those of pair potentials do not, once rounded. For all others the list is built anew in every
    step.

    Where the way back does not end in the start, bit for bit, the gradient is NaN: coordinates that left the
    range of the grid (then the status says so), forces that are not the same twice, or friction that is an
    argument of a jitted function, so that its memory is laid out before it is known, and takes more than 2 %
    of the momenta in a step.

    References:
        Levesque & Verlet, J. Stat. Phys. 72, 519 (1993), doi:10.1007/BF01048022 (exact reversal on a grid).
        Maclaurin, Duvenaud & Adams, ICML 2015, arXiv:1502.03492 (gradients by exact reversal).
    """
    return GradientMethod(run=_run)


class _Point(NamedTuple):
    """A state on the grid, what its steps would forget, and the list its forces are from."""

    state: MDState
    memory: Any
    neighbors: Neighbors


class _Bars(NamedTuple):
    """Cotangents of the numbers in a state, in params and integrator, and of what `save` closes over."""

    state: list[Array]
    varied: list[Array]
    consts: list[Array]


def _run(plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    state = carry.state
    resolution = resolution_of(state.system.positions.dtype)
    n_steps = plan.save_every * plan.n_frames * plan.n_segments
    memory = _undoable(inputs).memory(state.system, resolution, n_steps)
    begun = inputs.neighbors if carry.neighbors is None else carry.neighbors
    # What `save` closes over is differentiated, too.
    save, consts = jax.closure_convert(plan.save, carry.state, begun)

    def run(inputs: Inputs, carry: Carry, consts: list[Array], memory: Any) -> tuple[Carry, Any]:
        return forth(inputs, carry, consts, memory)[0]

    def forth(
        inputs: Inputs, carry: Carry, consts: list[Array], memory: Any
    ) -> tuple[tuple[Carry, Any], Any]:
        start, end, status, frames = _forth(plan, inputs, carry, memory, lambda *at: save(*at, *consts))
        neighbors = None if carry.neighbors is None else end.neighbors
        return (Carry(end.state, neighbors, status), frames), (inputs, consts, start, end)

    def forward(*given: Any) -> tuple[tuple[Carry, Any], Any]:
        inputs, carry, *_ = jax.tree.map(lambda x: x.perturbed, given)
        found, residuals = forth(*jax.tree.map(lambda x: x.value, given))
        # These change from step to step, whether the start is differentiated or not.
        state = carry.state.replace(
            system=carry.state.system.replace(positions=True), momenta=True, forces=True
        )
        # What is not differentiated costs nothing on the way back.
        return found, (residuals, (marks_of((inputs.params, inputs.integrator)), marks_of(state)))

    def backward(residuals: Any, cotangents: tuple[Carry, Any]) -> tuple[Any, ...]:
        (inputs, consts, start, end), marks = residuals
        of_end, of_frames = instantiated(cotangents)
        (params, integrator), of_state, of_consts = _back(
            plan, inputs, save, consts, start, end, of_end.state, of_frames,
            [is_marked(each) for each in marks],
        )  # fmt: skip
        # None: no number in it that could be differentiated.
        nothing: Any = None
        return Inputs(params, integrator, nothing), Carry(of_state, nothing, nothing), of_consts, nothing

    differentiable = jax.custom_vjp(run)
    differentiable.defvjp(forward, backward, symbolic_zeros=True)
    return differentiable(inputs, carry, consts, memory)


def _forth(
    plan: Plan, inputs: Inputs, carry: Carry, memory: Any, save: Callable[[MDState, Neighbors], Any]
) -> tuple[_Point, _Point, Status, Any]:
    """Start and end on the grid, the status, and what was saved, [n_segments, n_frames, ...]."""
    start = _start(plan, inputs, carry, memory)
    resolution = resolution_of(start.state.system.positions.dtype)

    def frame(carry: tuple[_Point, Status], _: None) -> tuple[Any, Any]:
        def one(_: Array, carry: tuple[_Point, Status]) -> tuple[_Point, Status]:
            point, status = carry
            point = _step(plan, inputs, point, 1)
            state, current = point.state, point.neighbors
            status = check(state.system, current, status, state.step, stale=_lists(plan) == "fixed")
            return point, check_motion(state, current, inputs.integrator.dt, status)

        point, status = lax.fori_loop(0, _opaque(plan.save_every), one, carry)
        outside = is_outside(point.state.system.positions, resolution.positions)
        outside |= is_outside(point.state.momenta, resolution.momenta)
        status = status.raise_flag(Flag.OFF_GRID, outside, point.state.step)
        return (point, status), save(point.state, point.neighbors)

    def segment(carry: tuple[_Point, Status], _: None) -> tuple[Any, Any]:
        point, status = carry
        if _lists(plan) == "fixed":
            point = point._replace(neighbors=rebuild(point.state.system, inputs.neighbors))
        return lax.scan(frame, (point, status), None, length=plan.n_frames)

    (end, status), frames = lax.scan(segment, (start, carry.status), None, length=plan.n_segments)
    return start, end, status, frames


def _back(
    plan: Plan,
    inputs: Inputs,
    save: Callable[..., Any],
    consts: list[Array],
    start: _Point,
    end: _Point,
    of_end: MDState,
    of_frames: Any,
    varies: list[list[bool]],
) -> tuple[Any, MDState, list[Array]]:
    """Cotangents of params and integrator, of the start, and of what `save` closes over."""
    is_varied, is_state = varies
    varied, inputs_of = floats((inputs.params, inputs.integrator), is_varied)
    of_frames, _ = floats(of_frames)
    _, state_of = floats(start.state, is_state)

    def numbers(state: MDState) -> list[Array]:
        return floats(state, is_state)[0]

    block = min(_BLOCK, plan.save_every)
    n_blocks = -(-plan.save_every // block)
    sizes = jnp.full(n_blocks, block).at[-1].set(plan.save_every - block * (n_blocks - 1))

    def undo(number: Array, carry: tuple[_Point, list[Array]]) -> tuple[_Point, list[Array]]:
        point, kept = carry
        point = _step(plan, inputs, point, -1)
        moved = (point.state.system.positions, point.state.momenta, point.state.forces)
        kept = [
            lax.dynamic_update_index_in_dim(each, x, number, 0) for each, x in zip(kept, moved, strict=True)
        ]
        return point, kept

    def through_step(state: MDState, neighbors: Neighbors, bars: _Bars) -> _Bars:
        def after(varied: list[Array], before: list[Array]) -> list[Array]:
            params, integrator = inputs_of(varied)

            def force(system: System) -> Array:
                current = _relist(plan, inputs, lax.stop_gradient(system), neighbors)
                return on_mobile(system, plan.force(plan.potential, params, system, current))

            return numbers(integrator.step(state_of(before, state), force))

        _, pull = jax.vjp(after, varied, numbers(state))
        of_varied, of_state = pull(bars.state)
        return bars._replace(state=of_state, varied=_sum(bars.varied, of_varied))

    def through_block(carry: tuple[_Point, _Bars], size: Array) -> tuple[tuple[_Point, _Bars], None]:
        later, bars = carry
        size = _opaque(size)
        shape = (block, *later.state.momenta.shape)
        kept = [jnp.zeros(shape, later.state.momenta.dtype)] * 3
        point, kept = lax.fori_loop(0, size, undo, (later, kept))

        def one(number: Array, bars: _Bars) -> _Bars:
            positions, momenta, forces = (x[number] for x in kept)
            state = later.state.replace(
                system=later.state.system.replace(positions=positions), momenta=momenta, forces=forces,
                step=later.state.step - number.astype(jnp.int32) - 1,
            )  # fmt: skip
            return through_step(state, point.neighbors, bars)

        return (point, lax.fori_loop(0, size, one, bars)), None

    def through_frame(carry: tuple[_Point, _Bars], of_frame: list[Array]) -> tuple[Any, None]:
        point, bars = carry

        def saved(state: list[Array], consts: list[Array]) -> list[Array]:
            return floats(save(state_of(state, point.state), point.neighbors, *consts))[0]

        _, pull = jax.vjp(saved, numbers(point.state), consts)
        of_state, of_consts = pull(of_frame)
        bars = bars._replace(state=_sum(bars.state, of_state), consts=_sum(bars.consts, of_consts))
        return lax.scan(through_block, (point, bars), sizes)[0], None

    def through_segment(carry: tuple[_Point, _Bars], of_segment: list[Array]) -> tuple[Any, None]:
        point, bars = carry
        if _lists(plan) == "fixed":
            point = point._replace(neighbors=rebuild(point.state.system, inputs.neighbors))
        carry = (point, bars)
        return lax.scan(through_frame, carry, of_segment, reverse=True, length=plan.n_frames)[0], None

    nothing = _Bars(
        state=numbers(of_end),
        varied=[jnp.zeros_like(x) for x in varied],
        consts=[jnp.zeros_like(x) for x in consts],
    )
    carry = (end, nothing)
    (found, bars), _ = lax.scan(through_segment, carry, of_frames, reverse=True, length=plan.n_segments)
    same = jnp.array_equal(found.state.system.positions, start.state.system.positions)
    same &= jnp.array_equal(found.state.momenta, start.state.momenta)
    bars = jax.tree.map(lambda x: jnp.where(same, x, jnp.nan), bars)
    return inputs_of(bars.varied, None), state_of(bars.state, None), bars.consts


def _undoable(inputs: Inputs) -> Reversible:
    if inputs.integrator.reversible is None:
        raise InputError(
            "reversible() cannot undo a step of this integrator: use velocity_verlet or langevin, or another "
            "gradient method, such as checkpointed()"
        )
    return inputs.integrator.reversible


def _start(plan: Plan, inputs: Inputs, carry: Carry, memory: Any) -> _Point:
    """The start on the grid, with the forces there."""
    state = carry.state
    resolution = resolution_of(state.system.positions.dtype)
    system = state.system.replace(
        positions=rounded(state.system.positions, resolution.positions),
        # Images of atoms are then on the grid, too, whatever cell they are moved to.
        cell=rounded(state.system.cell, resolution.positions),
    )
    current = rebuild(system, inputs.neighbors if carry.neighbors is None else carry.neighbors)
    forces, current = _force(plan, inputs, system, current)
    state = state.replace(system=system, momenta=rounded(state.momenta, resolution.momenta), forces=forces)
    return _Point(state, memory, current)


def _step(plan: Plan, inputs: Inputs, point: _Point, sign: int) -> _Point:
    """A step forth or back: the same operations, whose sign is not known when they are compiled."""
    current = point.neighbors

    def force(system: System) -> Array:
        nonlocal current
        found, current = _force(plan, inputs, system, current)
        return found

    dtype = point.state.momenta.dtype
    state, memory = _undoable(inputs).step(
        point.state, point.memory, force, _opaque(jnp.asarray(sign, dtype)), resolution_of(dtype)
    )
    return _Point(state, memory, current)


def _force(plan: Plan, inputs: Inputs, system: System, current: Neighbors) -> tuple[Array, Neighbors]:
    """Forces that are the same whatever the list, and the list they are from."""
    current = _relist(plan, inputs, system, current)
    potential = plan.potential
    if potential.on_grid is not None:
        potential = potential.on_grid(resolution_of(system.positions.dtype).forces)
    # Behind barriers, so that what is around does not change how they are computed.
    system = system.replace(positions=_opaque(system.positions))
    found = plan.force(potential, inputs.params, system, current)
    return _opaque(on_mobile(system, found)), current


def _lists(plan: Plan) -> str:
    """Where lists come from: one for a segment, one that is updated when needed, or one for each step."""
    if plan.potential.on_grid is None:
        return "each"
    return "fixed" if plan.rebuilds else "updated"


def _relist(plan: Plan, inputs: Inputs, system: System, current: Neighbors) -> Neighbors:
    kind = _lists(plan)
    if kind == "each":
        return rebuild(system, inputs.neighbors)
    return current if kind == "fixed" else update(system, current)


def _sum(one: list[Array], other: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _opaque(x: Any) -> Any:
    """The same value, of which the compiler knows nothing."""
    return lax.optimization_barrier(jnp.asarray(x))
