"""The steps of a relaxation, one evaluation each."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.argument_checks import check_integer, real_numbers
from difmd.errors import Flag, InputError, Status, check_positive
from difmd.neighbors import Neighbors, update
from difmd.neighbors.types import check
from difmd.relaxation.optimizer import Optimizer
from difmd.relaxation.point import Landscape, Point, largest_norm
from difmd.system import System


class Descent(NamedTuple):
    """The state of a relaxation: a point, its enthalpy [eV] and gradient, and the largest force [eV/Å].

    Before the first evaluation the largest force is infinite, and the number of moves `n_steps` is −1.
    """

    point: Point
    enthalpy: Float[Array, "*batch"]
    gradient: Point
    largest: Float[Array, "*batch"]
    memory: Any
    neighbors: Neighbors
    status: Status
    n_steps: Int[Array, "*batch"]


def begin(optimizer: Optimizer, system: System, n_modes: int, neighbors: Neighbors) -> Descent:
    """A descent from the positions of the system, before the first evaluation."""
    dtype = system.positions.dtype
    point = Point(system.positions, jnp.zeros(n_modes, dtype))
    enthalpy, largest = jnp.asarray(jnp.nan, dtype), jnp.asarray(jnp.inf, dtype)
    zero, memory = jax.tree.map(jnp.zeros_like, point), optimizer.init(point)
    return Descent(point, enthalpy, zero, largest, memory, neighbors, Status.ok(), jnp.int32(-1))


def is_running(descent: Descent, tolerance: Any, until: Any) -> Bool[Array, "*batch"]:
    """Whether another step is due: forces above `tolerance`, no flag set, fewer than `until` steps."""
    return (descent.largest > tolerance) & (descent.status.flags == 0) & (descent.n_steps < until)


def step(surface: Landscape, optimizer: Optimizer, before: Descent, tolerance: Any, until: Any) -> Descent:
    """Move and evaluate; the first step only evaluates. A descent that has ended does not change."""
    is_active = is_running(before, tolerance, until)
    moves = is_active & (before.n_steps >= 0)
    moved = optimizer.step(before.memory, before.point, before.enthalpy, before.gradient)
    start = (before.point, before.memory)
    point, memory = jax.tree.map(lambda new, old: jnp.where(moves, new, old), moved, start)
    system = surface.deformed(point)
    neighbors = update(system, before.neighbors)
    enthalpy, gradient = jax.value_and_grad(surface.enthalpy)(point, neighbors)
    largest = largest_norm(gradient)
    n_steps = before.n_steps + 1
    status = check(system, neighbors, before.status, n_steps, stale=False)
    is_finite = jnp.isfinite(largest) & jnp.isfinite(enthalpy)
    status = status.raise_flag(Flag.NON_FINITE, ~is_finite, n_steps)
    after = Descent(point, enthalpy, gradient, largest, memory, neighbors, status, n_steps)
    # A batch has a single list, which is rebuilt for all of its structures or for none.
    before = before._replace(neighbors=neighbors)
    selected = jax.tree.map(lambda new, old: jnp.where(is_active, new, old), after, before)
    return selected._replace(neighbors=neighbors)


def check_goal(strains: Any, pressure: Any, force_tolerance: float, max_steps: int) -> None:
    """Validate the goal of a relaxation (host); a traced pressure passes."""
    check_positive_number("force_tolerance", force_tolerance, "eV/Å")
    check_integer("max_steps", max_steps)
    if isinstance(pressure, jax.core.Tracer):
        return
    pressures = real_numbers("pressure", pressure)
    if not np.isfinite(pressures).all():
        raise InputError(f"pressure = {pressure} eV/Å³ must be finite")
    if strains is None and (pressures != 0).any():
        raise InputError(
            f"pressure = {pressure} eV/Å³ has no effect on a fixed cell: pass strains=any_strain() as well"
        )


def check_positive_number(name: str, value: Any, unit: str) -> None:
    """Require one positive, finite number (host), or raise `InputError`."""
    check_positive(name, value, unit)
    if np.ndim(value):
        raise InputError(f"{name} = {value} {unit} must be one number, for all structures")
