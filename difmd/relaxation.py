"""Relaxed structures: positions, and the cell where it is free, at the minimum of the enthalpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from difmd.errors import Flag, InputError, Status, check_positive
from difmd.gradients.implicit import stationary_point
from difmd.lattice import product
from difmd.neighbors import Neighbors, update
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.system import System

# FIRE as ASE has it [Å√(amu/eV), Å], with atoms of 1 amu.
_DT, _DT_MOST, _STEP_MOST = 0.1, 1.0, 0.2
_WAIT, _FASTER, _SLOWER, _MIXING, _CALMER = 5, 1.1, 0.5, 0.1, 0.99

# Stiffness of what holds the centre [eV/Å²].
_TETHER = 10.0


class Minimum(NamedTuple):
    """The result of `minimize`.

    Attributes:
        system: relaxed.
        neighbors: a list that is current for it.
        energy: U [eV].
        largest_force: of all atoms, and of the cell where it is free, as `minimize` says [eV/Å].
        n_steps: taken.
        status: sticky flags; look at it before you use the rest.
    """

    system: System
    neighbors: Neighbors
    energy: Float[Array, ""]
    largest_force: Float[Array, ""]
    n_steps: Int[Array, ""]
    status: Status


class _Point(NamedTuple):
    """What is free: positions in the undeformed cell [Å], and strains times a length [Å]."""

    positions: Float[Array, "atoms 3"]
    strains: Float[Array, "modes"]


def any_strain() -> np.ndarray:
    """All six strains, in Voigt's order xx, yy, zz, yz, xz, xy; [6, 3, 3]."""
    modes = np.zeros((6, 3, 3))
    for mode, (a, b) in zip(modes, ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)), strict=True):
        mode[a, b] += 0.5
        mode[b, a] += 0.5
    return modes


def axial_strain() -> np.ndarray:
    """Each axis by itself, no shear; [3, 3, 3]."""
    return any_strain()[:3]


def isotropic_strain() -> np.ndarray:
    """All axes alike; [1, 3, 3]."""
    return np.eye(3)[None]


def minimize(
    potential: Potential,
    params: Params,
    system: System,
    neighbors: Neighbors,
    *,
    strains: Float[Array, "modes 3 3"] | np.ndarray | None = None,
    pressure: float | Float[Array, ""] = 0.0,
    force_tolerance: float = 1e-4,
    max_steps: int = 2000,
) -> Minimum:
    """Relax positions, and the cell by given strains; pure, and differentiable in `params`.

    FIRE with a bound on its steps, then one step of Newton's method. Derivatives of the result in the
    parameters, the pressure and a cell that is held are those of the minimum itself (see
    `gradients.implicit`), not of the way there. The enthalpy is U + P V; a strain ε deforms positions r and
    cell h to r(1 + ε) and h(1 + ε). Of strain ε_k in mode k the coordinate is s = L ε_k with
    L = V^{1/3} N^{1/6}, so that its stiffness is like that of an atom, and its force −∂(U + P V)/∂s.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        system: where to start.
        neighbors: a current list for it, with skin and, if the cell may change, slack.
        strains: modes in which the cell is free: `any_strain()`, `axial_strain()`, `isotropic_strain()`, or
            others; None: the cell is held.
        pressure: P, for a cell that is free [eV/Å³].
        force_tolerance: largest force at which to stop [eV/Å]; the Newton step squares what is left.
        max_steps: to take at most; `NOT_CONVERGED` tells when they were not enough.

    Returns:
        `Minimum`.

    Raises:
        InputError: strains that are not symmetric 3×3 matrices, or of a cell without three periodic
            directions; a pressure on a cell that is held; a tolerance or a number of steps that is not
            positive.

    References:
        Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), doi:10.1103/PhysRevLett.97.170201 (FIRE).
    """
    check_positive("force_tolerance", force_tolerance, "eV/Å")
    if strains is None and not isinstance(pressure, jax.core.Tracer) and np.any(np.asarray(pressure) != 0):
        raise InputError(
            f"pressure = {pressure} eV/Å³ does nothing to a cell that is held: pass strains=any_strain() too"
        )
    if max_steps < 1:
        raise InputError(f"max_steps = {max_steps} must be at least 1")
    modes = jnp.asarray(_checked(strains, neighbors), system.positions.dtype)
    start, held = lax.stop_gradient((system, (params, system, pressure)))
    length = start.volume ** (1 / 3) * system.n_atoms ** (1 / 6) if len(modes) else 1.0

    def deformed(system: System, point: _Point) -> System:
        strain = jnp.tensordot(point.strains / length, modes, 1)
        return deform(system.replace(positions=point.positions), strain)

    def gradient(given: tuple[Params, System, Any], point: _Point, neighbors: Neighbors) -> _Point:
        params, system, pressure = given

        def enthalpy(point: _Point) -> Array:
            found = deformed(system, point)
            energy = potential.apply(params, found, neighbors)
            return energy + pressure * found.volume if len(modes) else energy

        return jax.grad(enthalpy)(point)

    def tethered(point: _Point) -> _Point:
        """The gradient with the mean of positions tied to where it is: else nothing determines it."""
        slope = gradient((params, system, pressure), point, neighbors)
        return slope._replace(positions=slope.positions + tether(point.positions - rough.point.positions))

    begin = _Point(start.positions, jnp.zeros(len(modes), start.positions.dtype))
    rough = _fire(
        lambda point: deformed(start, point),
        lambda point, neighbors: gradient(held, point, neighbors),
        begin,
        neighbors,
        force_tolerance,
        max_steps,
    )
    neighbors, n_steps = rough.neighbors, rough.n_steps
    point = stationary_point(tethered, rough.point)
    found = deformed(system, point)
    neighbors = update(found, neighbors)
    largest = _largest(gradient(held, lax.stop_gradient(point), neighbors))
    status = check(found, neighbors, rough.status, n_steps, stale=False)
    status = status.raise_flag(Flag.NON_FINITE, ~jnp.isfinite(largest), n_steps)
    status = status.raise_flag(Flag.NOT_CONVERGED, largest > force_tolerance, n_steps)
    energy = potential.apply(params, found, neighbors)
    return Minimum(found, neighbors, energy, largest, n_steps, status)


def deform(system: System, strain: Float[Array, "3 3"]) -> System:
    """Positions r(1 + ε) and cell h(1 + ε) for a strain ε."""
    return system.replace(
        positions=system.positions + product(system.positions, strain),
        cell=system.cell + product(system.cell, strain),
    )


def tether(moves: Float[Array, "atoms 3"]) -> Float[Array, "1 3"]:
    """Gradient of a spring at the mean of moves [eV/Å]: it makes a Hessian regular against translations."""
    return _TETHER * jnp.mean(moves, axis=0, keepdims=True)


class _Descent(NamedTuple):
    """Between two steps of FIRE; `largest` is the largest force at `point` once that has been looked at."""

    point: _Point
    velocity: _Point
    largest: Array
    neighbors: Neighbors
    status: Status
    dt: Array
    mixing: Array
    n_downhill: Array
    n_steps: Array


def _fire(
    deformed: Callable[[_Point], System],
    gradient: Callable[[_Point, Neighbors], _Point],
    begin: _Point,
    neighbors: Neighbors,
    tolerance: float,
    max_steps: int,
) -> _Descent:
    """Descend until the largest force is below `tolerance`, something is wrong, or steps are used up."""
    dtype = begin.positions.dtype

    def goes_on(now: _Descent) -> Array:
        return (now.largest > tolerance) & (now.n_steps < max_steps) & (now.status.flags == 0)

    def step(now: _Descent) -> _Descent:
        system = deformed(now.point)
        neighbors = update(system, now.neighbors)
        slope = gradient(now.point, neighbors)
        largest = _largest(slope)
        status = check(system, neighbors, now.status, now.n_steps, stale=False)
        status = status.raise_flag(Flag.NON_FINITE, ~jnp.isfinite(largest), now.n_steps)
        ends = (largest <= tolerance) | (status.flags != 0)
        power = -_dot(now.velocity, slope)
        is_downhill = power > 0
        # Safe where a velocity or a force is zero.
        square = jnp.maximum(_dot(slope, slope), jnp.finfo(dtype).tiny)
        speeds = jnp.sqrt(_dot(now.velocity, now.velocity) / square)
        is_settled = is_downhill & (now.n_downhill > _WAIT)
        dt = jnp.where(is_settled, jnp.minimum(now.dt * _FASTER, _DT_MOST), now.dt)
        dt = jnp.where(is_downhill | (now.n_steps == 0), dt, now.dt * _SLOWER)

        def accelerated(v: Array, g: Array) -> Array:
            mixed = (1 - now.mixing) * v - now.mixing * speeds * g
            return jnp.where(is_downhill, mixed, 0) - dt * g

        velocity = jax.tree.map(accelerated, now.velocity, slope)
        stride = dt * _STEP_MOST / jnp.maximum(dt * _largest(velocity), _STEP_MOST)
        calmer = jnp.where(is_settled, now.mixing * _CALMER, now.mixing)
        return _Descent(
            point=jax.tree.map(lambda x, v: jnp.where(ends, x, x + stride * v), now.point, velocity),
            velocity=velocity,
            largest=largest,
            neighbors=neighbors,
            status=status,
            dt=dt,
            mixing=jnp.where(is_downhill, calmer, _MIXING),
            n_downhill=jnp.where(is_downhill, now.n_downhill + 1, 0),
            n_steps=jnp.where(ends, now.n_steps, now.n_steps + 1),
        )

    start = _Descent(
        point=begin,
        velocity=jax.tree.map(jnp.zeros_like, begin),
        largest=jnp.asarray(jnp.inf, dtype),
        neighbors=neighbors,
        status=Status.ok(),
        dt=jnp.asarray(_DT, dtype),
        mixing=jnp.asarray(_MIXING, dtype),
        n_downhill=jnp.int32(0),
        n_steps=jnp.int32(0),
    )
    return lax.while_loop(goes_on, step, start)


def _dot(one: _Point, other: _Point) -> Array:
    return jnp.vdot(one.positions, other.positions) + jnp.vdot(one.strains, other.strains)


def _largest(point: _Point) -> Array:
    """Largest norm of an atom's vector, or magnitude of a strain's number."""
    atoms = jnp.sqrt(jnp.max(jnp.sum(point.positions**2, axis=-1)))
    return jnp.maximum(atoms, jnp.max(jnp.abs(point.strains), initial=0))


def _checked(strains: Any, neighbors: Neighbors) -> Any:
    if strains is None:
        return np.zeros((0, 3, 3))
    if np.shape(strains)[1:] != (3, 3) or not len(strains):
        raise InputError(f"strains must have shape [modes, 3, 3], got {list(np.shape(strains))}")
    if not all(neighbors.periodic):
        raise InputError("only a cell with three periodic directions can be relaxed: leave strains away")
    if not isinstance(strains, jax.core.Tracer) and not np.allclose(strains, np.swapaxes(strains, 1, 2)):
        raise InputError("strains must be symmetric matrices: another one is a rotation besides")
    return strains
