"""L-BFGS: Newton's direction with a Hessian from the last few steps."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from difmd._internal.argument_checks import check_integer
from difmd.errors import check_positive
from difmd.relaxation.optimizer import Optimizer
from difmd.relaxation.point import Point, longest

# Share of what a slope promises that a step must bring, and rounding of an enthalpy over its last digit.
_DESCENT, _ROUNDING = 1e-4, 100.0

# Shortened as often, a step is taken whatever it brings, and what was learned is forgotten.
_MOST_SHORTENED = 8


# Accelerators otherwise round the factors.
_dot = functools.partial(jnp.vdot, precision=lax.Precision.HIGHEST)


class _Search(NamedTuple):
    """A line from `origin` along `direction`, which has been followed as far as `stride`; 0: not yet begun.

    `steps` and `changes` of gradients come with `weights` 1/(step·change), 0 where there are none yet, the
    newest last.
    """

    origin: Float[Array, "n"]
    enthalpy: Float[Array, ""]
    gradient: Float[Array, "n"]
    direction: Float[Array, "n"]
    stride: Float[Array, ""]
    n_shortened: Int[Array, ""]
    steps: Float[Array, "memory n"]
    changes: Float[Array, "memory n"]
    weights: Float[Array, "memory"]
    softness: Float[Array, ""]


def lbfgs(*, memory: int = 20, stiffness: float = 70.0, max_step: float = 0.2) -> Optimizer:
    """L-BFGS with bounded steps, which are shortened where the enthalpy does not fall; quick near a minimum.

    The direction is −H⁻¹ g with H⁻¹ from the last steps s and changes y of the gradient, two-loop recursion,
    and (s·y)/(y·y) for what they say nothing of. A step is accepted that lowers the enthalpy as its slope
    promises (Armijo), or where that is lost in rounding, as slopes say (the approximate condition of Hager
    and Zhang); else it is tried shorter from the same origin. Each evaluation is one step, so that structures
    of a batch do not wait for the line searches of each other. Pairs with s·y ≤ 0 are left out; after one,
    |s|/|y| takes the place of (s·y)/(y·y).

    Args:
        memory: steps to remember.
        stiffness: H to begin with [eV/Å²].
        max_step: how far an atom, or a strain's coordinate, goes in one step at most [Å].

    Returns:
        `Optimizer`.

    Raises:
        InputError: `memory` below 1, or another number that is not positive.

    References:
        Nocedal & Wright, Numerical Optimization, 2nd ed. (2006), algorithms 7.4 and 7.5.
        Hager & Zhang, SIAM J. Optim. 16, 170 (2005), doi:10.1137/030601880 (eq. 1.7).
    """
    check_integer("memory", memory)
    check_positive("stiffness", stiffness, "eV/Å²")
    check_positive("max_step", max_step, "Å")
    return _lbfgs(int(memory), float(stiffness), float(max_step))


# Not optax.lbfgs: it keeps pairs with s·y < 0, relying on a line search of several evaluations for which all
# structures of a batch would wait, and holds weights in JAX's default precision whatever that of the inputs.
@functools.cache
def _lbfgs(memory: int, stiffness: float, max_step: float) -> Optimizer:
    def init(point: Point) -> _Search:
        x, _ = ravel_pytree(point)
        none, zero = jnp.zeros_like(x), jnp.zeros((), x.dtype)
        history = jnp.zeros((memory, x.size), x.dtype)
        return _Search(
            origin=x,
            enthalpy=zero,
            gradient=none,
            direction=none,
            stride=zero,
            n_shortened=jnp.int32(0),
            steps=history,
            changes=history,
            weights=jnp.zeros(memory, x.dtype),
            softness=jnp.asarray(1 / stiffness, x.dtype),
        )

    def step(now: _Search, point: Point, enthalpy: Array, gradient: Point) -> tuple[Point, _Search]:
        (x, restore), (g, _) = ravel_pytree(point), ravel_pytree(gradient)
        eps, tiny = jnp.finfo(x.dtype).eps, jnp.finfo(x.dtype).tiny
        slope = _dot(now.direction, now.gradient)
        rise = enthalpy - now.enthalpy
        begins = now.stride == 0
        is_lower = rise <= _DESCENT * now.stride * slope
        is_level = rise <= _ROUNDING * eps * jnp.abs(now.enthalpy)
        is_past = _dot(now.direction, g) > (2 * _DESCENT - 1) * slope
        gives_up = now.n_shortened >= _MOST_SHORTENED
        is_accepted = begins | is_lower | (is_level & ~is_past) | gives_up

        s, y = x - now.origin, g - now.gradient
        is_pair = is_accepted & ~begins
        curvature, length, change = _dot(s, y), jnp.linalg.norm(s), jnp.linalg.norm(y)
        is_kept = is_pair & (curvature > jnp.sqrt(eps) * length * change)
        pair = (s, y, 1 / jnp.where(is_kept, curvature, 1))
        steps, changes, weights = (
            jnp.where(gives_up, 0, jnp.where(is_kept, jnp.concatenate([old[1:], new[None]]), old))
            for old, new in zip((now.steps, now.changes, now.weights), pair, strict=True)
        )
        # Where the enthalpy curves down, as far as if it curved up as much, else it would take ages.
        reach = length / jnp.maximum(jnp.maximum(change, eps * stiffness * length), tiny)
        softness = jnp.where(is_pair, reach, now.softness)
        softness = jnp.where(is_kept, curvature / jnp.maximum(change**2, tiny), softness)
        newton = -_inverse(steps, changes, weights, softness, g)
        # Rounding may spoil a direction.
        newton = jnp.where(_dot(newton, g) < 0, newton, -softness * g)
        bound = max_step / jnp.maximum(longest(restore(newton)), max_step)

        # Where a parabola through what is known has its minimum.
        promised = -now.stride * slope
        shorter = 0.5 * promised / jnp.maximum(rise + promised, tiny)
        shortened = now.stride * jnp.clip(shorter, 0.1, 0.5)
        search = _Search(
            origin=jnp.where(is_accepted, x, now.origin),
            enthalpy=jnp.where(is_accepted, enthalpy, now.enthalpy),
            gradient=jnp.where(is_accepted, g, now.gradient),
            direction=jnp.where(is_accepted, newton, now.direction),
            stride=jnp.where(is_accepted, bound, shortened),
            n_shortened=jnp.where(is_accepted, 0, now.n_shortened + 1),
            steps=steps,
            changes=changes,
            weights=weights,
            softness=softness,
        )
        return restore(search.origin + search.stride * search.direction), search

    return Optimizer(init, step)


def _inverse(
    steps: Float[Array, "memory n"],
    changes: Float[Array, "memory n"],
    weights: Float[Array, "memory"],
    softness: Float[Array, ""],
    g: Float[Array, "n"],
) -> Float[Array, "n"]:
    """H⁻¹ g by two-loop recursion; pairs of weight 0 do nothing."""

    def newest_first(q: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        s, y, weight = pair
        share = weight * _dot(s, q)
        return q - share * y, share

    def oldest_first(r: Array, pair: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        s, y, weight, share = pair
        return r + (share - weight * _dot(y, r)) * s, None

    pairs = (steps, changes, weights)
    q, shares = lax.scan(newest_first, g, pairs, reverse=True)
    return lax.scan(oldest_first, softness * q, (*pairs, shares))[0]
