"""Derivatives of a minimum by the implicit function theorem, without the steps of the minimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

# Residual of a linear system relative to its right-hand side; the solution is NaN above `_UNSOLVED` times it.
_ACCURACY = {"float64": 1e-12, "float32": 1e-6}
_UNSOLVED = 1e3


def stationary_point(gradient: Callable[[Any], Any], guess: Any) -> Any:
    """The root of `gradient` near `guess`, differentiable in everything `gradient` closes over.

    One Newton step squares the error of `guess`. With g(x, θ) = ∂U/∂x and the Hessian H = ∂g/∂x, the
    derivative is dx/dθ = −H⁻¹ ∂g/∂θ in forward and reverse mode: one linear system, solved by conjugate
    gradients. H may be singular in directions in which the energy is constant, such as translations. The
    result is NaN without convergence, and NaN or a saddle point where H is not positive definite (Blondel et
    al., NeurIPS 2022, arXiv:2105.15183).
    """

    def newton(gradient: Callable[[Any], Any], x: Any) -> Any:
        slope, hessian = jax.linearize(gradient, x)
        return jax.tree.map(jnp.subtract, x, solve_symmetric(hessian, slope))

    return lax.custom_root(gradient, lax.stop_gradient(guess), newton, solve_symmetric)


def solve_symmetric(matrix: Callable[[Any], Any], target: Any) -> Any:
    """Solve `matrix(x)` = target, with a symmetric matrix ≥ 0, by conjugate gradients; NaN if they fail."""
    flat, restore = ravel_pytree(target)

    def multiply(x: Array) -> Array:
        return ravel_pytree(matrix(restore(x)))[0]

    return restore(lax.custom_linear_solve(multiply, flat, _conjugate_gradients, symmetric=True))


def _conjugate_gradients(multiply: Callable[[Array], Array], target: Float[Array, "n"]) -> Float[Array, "n"]:
    # Not jax.scipy's, which compiles the product three times: slow for the Hessian of a potential.
    tolerance = _ACCURACY[str(target.dtype)]
    n_steps = 10 * target.size + 100
    square_of_target = jnp.vdot(target, target)

    def is_running(now: _Krylov) -> Array:
        return (now.square > tolerance**2 * square_of_target) & (now.n_steps < n_steps)

    def step(now: _Krylov) -> _Krylov:
        product = multiply(now.direction)
        stride = now.square / jnp.vdot(now.direction, product)
        residual = now.residual - stride * product
        square = jnp.vdot(residual, residual)
        direction = residual + square / now.square * now.direction
        return _Krylov(now.x + stride * now.direction, residual, direction, square, now.n_steps + 1)

    start = _Krylov(jnp.zeros_like(target), target, target, square_of_target, jnp.int32(0))
    end = lax.while_loop(is_running, step, start)
    return jnp.where(end.square <= (_UNSOLVED * tolerance) ** 2 * square_of_target, end.x, jnp.nan)


class _Krylov(NamedTuple):
    """State of conjugate gradients; `square` is the squared norm of the residual."""

    x: Array
    residual: Array
    direction: Array
    square: Array
    n_steps: Array
