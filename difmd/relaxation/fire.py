"""FIRE: the fast inertial relaxation engine."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from difmd.errors import InputError, check_positive
from difmd.relaxation.optimizer import Optimizer, named
from difmd.relaxation.point import Point, dot, largest_norm

# N_min, f_inc, f_dec, α_start and f_α of the paper, as in ASE.
_N_MIN, _F_INC, _F_DEC, _ALPHA, _F_ALPHA = 5, 1.1, 0.5, 0.1, 0.99


class _Inertia(NamedTuple):
    velocity: Point
    dt: Float[Array, ""]
    mixing: Float[Array, ""]
    n_downhill: Int[Array, ""]


def fire(*, dt: float = 0.1, dt_max: float = 1.0, max_step: float = 0.2) -> Optimizer:
    """FIRE, the fast inertial relaxation engine; robust far from the minimum.

    Atoms of 1 amu move with v ← (1 − α) v + α |v| F/|F| + Δt F while they go downhill, F·v > 0. Otherwise v
    is reset to zero and Δt halved; after five downhill steps Δt grows and α shrinks.

    Args:
        dt: initial Δt [Å√(amu/eV)].
        dt_max: largest Δt [Å√(amu/eV)].
        max_step: largest displacement of an atom, or of a strain coordinate, in one step [Å].

    Returns:
        `Optimizer`.

    Raises:
        InputError: a number that is not positive, or `dt` above `dt_max`.

    References:
        Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), doi:10.1103/PhysRevLett.97.170201.
    """
    check_positive("dt", dt, "Å√(amu/eV)")
    check_positive("dt_max", dt_max, "Å√(amu/eV)")
    check_positive("max_step", max_step, "Å")
    if dt > dt_max:
        raise InputError(f"dt = {dt} exceeds dt_max = {dt_max}")
    return _fire(float(dt), float(dt_max), float(max_step))


@functools.cache
def _fire(dt_first: float, dt_max: float, max_step: float) -> Optimizer:
    def init(point: Point) -> _Inertia:
        dtype = point.positions.dtype
        velocity = jax.tree.map(jnp.zeros_like, point)
        return _Inertia(velocity, jnp.asarray(dt_first, dtype), jnp.asarray(_ALPHA, dtype), jnp.int32(0))

    def step(now: _Inertia, point: Point, enthalpy: Array, gradient: Point) -> tuple[Point, _Inertia]:
        del enthalpy
        power = -dot(now.velocity, gradient)
        is_downhill = power > 0
        squares = dot(now.velocity, now.velocity)
        # Safe operands where a velocity or a force is zero.
        speeds = jnp.sqrt(squares / jnp.maximum(dot(gradient, gradient), jnp.finfo(squares.dtype).tiny))
        is_settled = is_downhill & (now.n_downhill > _N_MIN)
        dt = jnp.where(is_settled, jnp.minimum(now.dt * _F_INC, dt_max), now.dt)
        # With zero velocity, as in the first step, the system did not go uphill.
        dt = jnp.where(is_downhill | (squares == 0), dt, now.dt * _F_DEC)

        def accelerated(v: Array, g: Array) -> Array:
            mixed = (1 - now.mixing) * v - now.mixing * speeds * g
            return jnp.where(is_downhill, mixed, 0) - dt * g

        velocity = jax.tree.map(accelerated, now.velocity, gradient)
        stride = dt * max_step / jnp.maximum(dt * largest_norm(velocity), max_step)
        mixing = jnp.where(is_settled, now.mixing * _F_ALPHA, now.mixing)
        moved = jax.tree.map(lambda x, v: x + stride * v, point, velocity)
        mixing = jnp.where(is_downhill, mixing, _ALPHA)
        n_downhill = jnp.where(is_downhill, now.n_downhill + 1, 0)
        return moved, _Inertia(velocity, dt, mixing, n_downhill)

    return Optimizer(init, step, named("fire", dt=dt_first, dt_max=dt_max, max_step=max_step))
