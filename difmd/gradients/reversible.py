"""Reverse mode that steps back in time instead of storing states."""

from __future__ import annotations

import functools
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
from difmd.integrators import MDState
from difmd.integrators.base import Reversible, on_mobile
from difmd.neighbors import Neighbors, rebuild, update
from difmd.neighbors.types import check
from difmd.system import System

# States that the backward pass holds at a time.
_BLOCK = 32


def reversible() -> GradientMethod:
    """Store only the last state and recover the others by running backward: memory of a few states.

    Positions, momenta, cell and pair forces are rounded to grids, on which each step can be undone bit for
    bit. A gradient costs as much as with `checkpointed`. Forces must not depend on the order of neighbours:
    except for pair potentials, the list is rebuilt in every step.

    The gradient is NaN where the backward run does not end exactly in the initial state: coordinates outside
    the range of the grid (flag `OFF_GRID`), forces that are not reproducible, or traced friction that removes
    more than 2 % of the momenta in a step.

    Returns:
        `GradientMethod`, for `velocity_verlet` and `langevin`.

    References:
        Levesque & Verlet, J. Stat. Phys. 72, 519 (1993), doi:10.1007/BF01048022 (exact reversal on a grid).
        Maclaurin, Duvenaud & Adams, ICML 2015, arXiv:1502.03492 (gradients by exact reversal).
    """
    return GradientMethod(run=_run, name="reversible()")


class _Point(NamedTuple):
    """A state on the grid, the memory of its integrator, and the list of its forces."""

    state: MDState
    memory: Any
    neighbors: Neighbors


class _Cotangents(NamedTuple):
    """Cotangents of the state, of params and integrator, and of what `save` closes over."""

    state: list[Array]
    varied: list[Array]
    consts: list[Array]


class _Pass(NamedTuple):
    """Constants of a backward pass: `save` of the plan with its arguments `consts`, and the inputs.

    `is_varied` and `is_state` mark the differentiated leaves of params and integrator, and of a state.
    """

    plan: Plan
    inputs: Inputs
    save: Callable[..., Any]
    consts: list[Array]
    is_varied: list[bool]
    is_state: list[bool]

    def varied(self) -> tuple[list[Array], Callable[..., Any]]:
        """Differentiated numbers of params and integrator, and a function that inserts others."""
        return floats((self.inputs.params, self.inputs.integrator), self.is_varied)

    def numbers(self, state: MDState) -> list[Array]:
        return floats(state, self.is_state)[0]

    def with_numbers(self, state: MDState, numbers: list[Array]) -> MDState:
        return floats(state, self.is_state)[1](numbers)


def _run(plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    state = carry.state
    resolution = resolution_of(state.system.positions.dtype)
    n_steps = plan.save_every * plan.n_frames * plan.n_segments
    memory = _reversible(inputs).memory(state.system, resolution, n_steps)
    neighbors = inputs.neighbors if carry.neighbors is None else carry.neighbors
    # With these, what `save` closes over is differentiated.
    save, consts = jax.closure_convert(plan.save, carry.state, neighbors)

    def run(inputs: Inputs, carry: Carry, consts: list[Array], memory: Any) -> tuple[Carry, Any]:
        return with_residuals(inputs, carry, consts, memory)[0]

    def with_residuals(
        inputs: Inputs, carry: Carry, consts: list[Array], memory: Any
    ) -> tuple[tuple[Carry, Any], Any]:
        start, end, status, frames = _forward(plan, inputs, carry, memory, lambda *at: save(*at, *consts))
        neighbors = None if carry.neighbors is None else end.neighbors
        return (Carry(end.state, neighbors, status), frames), (inputs, consts, start, end)

    def forward(*given: Any) -> tuple[tuple[Carry, Any], Any]:
        inputs, carry, *_ = jax.tree.map(lambda x: x.perturbed, given)
        results, residuals = with_residuals(*jax.tree.map(lambda x: x.value, given))
        # These change from step to step, whether the initial state is differentiated or not.
        system = carry.state.system.replace(positions=True)
        state = carry.state.replace(system=system, momenta=True, forces=True)
        # What is not differentiated costs nothing in the backward pass.
        return results, (residuals, (marks_of((inputs.params, inputs.integrator)), marks_of(state)))

    def backward(residuals: Any, cotangents: tuple[Carry, Any]) -> tuple[Any, ...]:
        (inputs, consts, start, end), marks = residuals
        of_end, of_frames = instantiated(cotangents)
        constant = _Pass(plan, inputs, save, consts, *(is_marked(each) for each in marks))
        (params, integrator), of_state, of_consts = _backward(constant, start, end, of_end.state, of_frames)
        # None: no differentiable number in it.
        nothing: Any = None
        return Inputs(params, integrator, nothing), Carry(of_state, nothing, nothing), of_consts, nothing

    differentiable = jax.custom_vjp(run)
    differentiable.defvjp(forward, backward, symbolic_zeros=True)
    return differentiable(inputs, carry, consts, memory)


def _forward(
    plan: Plan, inputs: Inputs, carry: Carry, memory: Any, save: Callable[[MDState, Neighbors], Any]
) -> tuple[_Point, _Point, Status, Any]:
    """Start and end on the grid, the status, and the saved frames, [n_segments, n_frames, ...]."""
    start = _start(plan, inputs, carry, memory)
    resolution = resolution_of(start.state.system.positions.dtype)

    def advance(_: Array, carry: tuple[_Point, Status]) -> tuple[_Point, Status]:
        point, status = carry
        point = _step(plan, inputs, point, 1)
        state, current = point.state, point.neighbors
        status = check(state.system, current, status, state.step, stale=_lists(plan) == "fixed")
        return point, check_motion(state, current, inputs.integrator.dt, status)

    def frame(carry: tuple[_Point, Status], _: None) -> tuple[Any, Any]:
        point, status = lax.fori_loop(0, _opaque(plan.save_every), advance, carry)
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


def _backward(
    constant: _Pass, start: _Point, end: _Point, of_end: MDState, of_frames: Any
) -> tuple[Any, MDState, list[Array]]:
    """Cotangents of params and integrator, of the initial state, and of what `save` closes over."""
    plan, inputs = constant.plan, constant.inputs
    varied, inputs_of = constant.varied()

    def through_segment(carry: tuple[_Point, _Cotangents], of_segment: list[Array]) -> tuple[Any, None]:
        point, cotangents = carry
        if _lists(plan) == "fixed":
            point = point._replace(neighbors=rebuild(point.state.system, inputs.neighbors))
        back, carry = functools.partial(_through_frame, constant), (point, cotangents)
        return lax.scan(back, carry, of_segment, reverse=True, length=plan.n_frames)[0], None

    zeros = [[jnp.zeros_like(x) for x in numbers] for numbers in (varied, constant.consts)]
    cotangents = _Cotangents(constant.numbers(of_end), *zeros)
    each = floats(of_frames)[0]
    back = lax.scan(through_segment, (end, cotangents), each, reverse=True, length=plan.n_segments)
    recovered, cotangents = back[0]
    same = jnp.array_equal(recovered.state.system.positions, start.state.system.positions)
    same &= jnp.array_equal(recovered.state.momenta, start.state.momenta)
    cotangents = jax.tree.map(lambda x: jnp.where(same, x, jnp.nan), cotangents)
    _, state_of = floats(start.state, constant.is_state)
    return inputs_of(cotangents.varied, None), state_of(cotangents.state, None), cotangents.consts


def _through_frame(
    constant: _Pass, carry: tuple[_Point, _Cotangents], of_frame: list[Array]
) -> tuple[Any, None]:
    """Back through `save`, and through the steps before it in blocks."""
    point, cotangents = carry
    plan = constant.plan

    def saved(numbers: list[Array], consts: list[Array]) -> list[Array]:
        state = constant.with_numbers(point.state, numbers)
        return floats(constant.save(state, point.neighbors, *consts))[0]

    _, pull = jax.vjp(saved, constant.numbers(point.state), constant.consts)
    of_state, of_consts = pull(of_frame)
    of_state, of_consts = _sum(cotangents.state, of_state), _sum(cotangents.consts, of_consts)
    cotangents = cotangents._replace(state=of_state, consts=of_consts)
    block = min(_BLOCK, plan.save_every)
    n_blocks = -(-plan.save_every // block)
    sizes = jnp.full(n_blocks, block).at[-1].set(plan.save_every - block * (n_blocks - 1))
    through_block = functools.partial(_through_block, constant, block)
    return lax.scan(through_block, (point, cotangents), sizes)[0], None


def _through_block(
    constant: _Pass, block: int, carry: tuple[_Point, _Cotangents], size: Array
) -> tuple[tuple[_Point, _Cotangents], None]:
    """Undo `size` steps, at most `block`, storing their states; then back through their derivatives."""
    later, cotangents = carry
    size = _opaque(size)

    def undo(number: Array, carry: tuple[_Point, list[Array]]) -> tuple[_Point, list[Array]]:
        point, stored = carry
        point = _step(constant.plan, constant.inputs, point, -1)
        moved = (point.state.system.positions, point.state.momenta, point.state.forces)
        pairs = zip(stored, moved, strict=True)
        return point, [lax.dynamic_update_index_in_dim(each, x, number, 0) for each, x in pairs]

    momenta = later.state.momenta
    stored = [jnp.zeros((block, *momenta.shape), momenta.dtype)] * 3
    point, stored = lax.fori_loop(0, size, undo, (later, stored))

    def through_step(number: Array, cotangents: _Cotangents) -> _Cotangents:
        positions, momenta, forces = (x[number] for x in stored)
        system = later.state.system.replace(positions=positions)
        step = later.state.step - number.astype(jnp.int32) - 1
        state = later.state.replace(system=system, momenta=momenta, forces=forces, step=step)
        return _through_step(constant, state, point.neighbors, cotangents)

    return (point, lax.fori_loop(0, size, through_step, cotangents)), None


def _through_step(
    constant: _Pass, state: MDState, neighbors: Neighbors, cotangents: _Cotangents
) -> _Cotangents:
    """Back through the derivative of one step from this state."""
    plan = constant.plan
    varied, inputs_of = constant.varied()

    def after(varied: list[Array], before: list[Array]) -> list[Array]:
        params, integrator = inputs_of(varied)

        def force(system: System) -> Array:
            current = _relist(plan, constant.inputs, lax.stop_gradient(system), neighbors)
            return on_mobile(system, plan.force(plan.potential, params, system, current))

        return constant.numbers(integrator.step(constant.with_numbers(state, before), force))

    _, pull = jax.vjp(after, varied, constant.numbers(state))
    of_varied, of_state = pull(cotangents.state)
    return cotangents._replace(state=of_state, varied=_sum(cotangents.varied, of_varied))


def _reversible(inputs: Inputs) -> Reversible:
    if inputs.integrator.reversible is None:
        raise InputError(
            "reversible() cannot undo a step of this integrator: use velocity_verlet or langevin, or another "
            "gradient method, such as checkpointed()"
        )
    return inputs.integrator.reversible


def _start(plan: Plan, inputs: Inputs, carry: Carry, memory: Any) -> _Point:
    """The initial state on the grid, with its forces."""
    state = carry.state
    resolution = resolution_of(state.system.positions.dtype)
    system = state.system.replace(
        positions=rounded(state.system.positions, resolution.positions),
        # Periodic images are then on the grid, too, in whatever cell.
        cell=rounded(state.system.cell, resolution.positions),
    )
    current = rebuild(system, inputs.neighbors if carry.neighbors is None else carry.neighbors)
    forces, current = _force(plan, inputs, system, current)
    state = state.replace(system=system, momenta=rounded(state.momenta, resolution.momenta), forces=forces)
    return _Point(state, memory, current)


def _step(plan: Plan, inputs: Inputs, point: _Point, sign: int) -> _Point:
    """A step forward or backward: the same operations, with a sign that the compiler cannot see."""
    current = point.neighbors

    def force(system: System) -> Array:
        nonlocal current
        forces, current = _force(plan, inputs, system, current)
        return forces

    dtype = point.state.momenta.dtype
    direction, resolution = _opaque(jnp.asarray(sign, dtype)), resolution_of(dtype)
    state, memory = _reversible(inputs).step(point.state, point.memory, force, direction, resolution)
    return _Point(state, memory, current)


def _force(plan: Plan, inputs: Inputs, system: System, current: Neighbors) -> tuple[Array, Neighbors]:
    """Forces that do not depend on the order of the list, and the list used."""
    current = _relist(plan, inputs, system, current)
    potential = plan.potential
    if potential.on_grid is not None:
        potential = potential.on_grid(resolution_of(system.positions.dtype).forces)
    # Behind barriers, so that the surrounding program does not change how they are compiled.
    system = system.replace(positions=_opaque(system.positions))
    forces = plan.force(potential, inputs.params, system, current)
    return _opaque(on_mobile(system, forces)), current


def _lists(plan: Plan) -> str:
    """The source of lists: one for each segment, one that is updated when needed, or one for each step."""
    if plan.potential.on_grid is None:
        return "each"
    return "fixed" if plan.rebuilds else "updated"


def _relist(plan: Plan, inputs: Inputs, system: System, current: Neighbors) -> Neighbors:
    kind = _lists(plan)
    if kind == "each":
        return rebuild(system, inputs.neighbors)
    return current if kind == "fixed" else update(system, current)


def _sum(first: list[Array], second: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(first, second, strict=True)]


def _opaque(x: Any) -> Any:
    """The same value, hidden from the optimisations of the compiler."""
    return lax.optimization_barrier(jnp.asarray(x))
