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
from difmd.relaxation.point import Landscape, Point, longest
from difmd.system import System


class Descent(NamedTuple):
    """Between two steps.

    Attributes:
        point: where it is.
        enthalpy: there [eV].
        gradient: there [eV/Å].
        largest: force of an atom or of a strain's coordinate there [eV/Å]; infinite before the first look.
        memory: of the optimizer.
        neighbors: a list that is current.
        status: of the list, and of forces.
        n_steps: moves done; −1 before the first look.
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
    """At the positions of the system, where nothing has been looked at yet."""
    dtype = system.positions.dtype
    point = Point(system.positions, jnp.zeros(n_modes, dtype))
    return Descent(
        point=point,
        enthalpy=jnp.asarray(jnp.nan, dtype),
        gradient=jax.tree.map(jnp.zeros_like, point),
        largest=jnp.asarray(jnp.inf, dtype),
        memory=optimizer.init(point),
        neighbors=neighbors,
        status=Status.ok(),
        n_steps=jnp.int32(-1),
    )


def goes_on(now: Descent, tolerance: Any, until: Any) -> Bool[Array, "*batch"]:
    """Whether there is a step to do: forces above `tolerance`, nothing wrong, steps below `until`."""
    return (now.largest > tolerance) & (now.status.flags == 0) & (now.n_steps < until)


def step(surface: Landscape, optimizer: Optimizer, now: Descent, tolerance: Any, until: Any) -> Descent:
    """Move and evaluate; the first step only evaluates, and what does not go on stays as it is, bit for bit.

    The potential is called at one place, as XLA takes long to compile it.
    """
    is_active = goes_on(now, tolerance, until)
    moves = is_active & (now.n_steps >= 0)
    moved = optimizer.step(now.memory, now.point, now.enthalpy, now.gradient)
    point, memory = jax.tree.map(
        lambda new, old: jnp.where(moves, new, old), moved, (now.point, now.memory)
    )  # fmt: skip
    system = surface.deformed(point)
    neighbors = update(system, now.neighbors)
    enthalpy, gradient = jax.value_and_grad(surface.enthalpy)(point, neighbors)
    largest = longest(gradient)
    n_steps = now.n_steps + 1
    status = check(system, neighbors, now.status, n_steps, stale=False)
    is_finite = jnp.isfinite(largest) & jnp.isfinite(enthalpy)
    status = status.raise_flag(Flag.NON_FINITE, ~is_finite, n_steps)
    done = Descent(point, enthalpy, gradient, largest, memory, neighbors, status, n_steps)
    # The list of the whole batch is one: all of it is rebuilt, or nothing.
    kept = jax.tree.map(
        lambda new, old: jnp.where(is_active, new, old), done, now._replace(neighbors=neighbors)
    )
    return kept._replace(neighbors=neighbors)


def check_goal(strains: Any, pressure: Any, force_tolerance: float, max_steps: int) -> None:
    """Refuse what no relaxation can aim at; a traced pressure passes (host).

    Raises:
        InputError: a tolerance or a number of steps that is not positive, a tolerance that is no single
            number, a pressure that is not finite, or one on a cell that is held.
    """
    check_positive_number("force_tolerance", force_tolerance, "eV/Å")
    check_integer("max_steps", max_steps)
    if isinstance(pressure, jax.core.Tracer):
        return
    pressures = real_numbers("pressure", pressure)
    if not np.isfinite(pressures).all():
        raise InputError(f"pressure = {pressure} eV/Å³ must be finite")
    if strains is None and (pressures != 0).any():
        raise InputError(
            f"pressure = {pressure} eV/Å³ does nothing to a cell that is held: pass strains=any_strain() too"
        )


def check_positive_number(name: str, value: Any, unit: str) -> None:
    """Refuse what is not one number, positive and finite (host).

    Raises:
        InputError: naming the argument and its value.
    """
    check_positive(name, value, unit)
    if np.ndim(value):
        raise InputError(f"{name} = {value} {unit} must be one number, for all structures")
