"""Where a minimiser ends, differentiated without going through its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

# Residual of a linear system relative to its right-hand side, and how many times as much is no solution.
_ACCURACY = {"float64": 1e-12, "float32": 1e-6}
_UNSOLVED = 1e3


def stationary_point(gradient: Callable[[Any], Any], found: Any) -> Any:
    """The point near `found` where `gradient` vanishes, differentiable in all that `gradient` closes over.

    One Newton step from `found`, whose error is squared by it. With g(x, θ) = ∂U/∂x and the Hessian
    H = ∂g/∂x the derivative is that of the implicit function theorem,

        dx/dθ = −H⁻¹ ∂g/∂θ,

    forward and in reverse, at the cost of a linear system by conjugate gradients, whatever number of steps
    led to `found`. H may be singular in directions in which the energy never changes, such as translations.

    Args:
        gradient: `gradient(x)`, of an energy: its Jacobian is symmetric.
        found: pytree of arrays, a minimum up to the tolerance of what found it.

    Returns:
        x, like `found`. Where H is not positive, NaN or a saddle point; where conjugate gradients do not
        converge, NaN.

    References:
        Blondel et al., NeurIPS 2022, arXiv:2105.15183 (implicit differentiation of an optimum).
    """

    def newton(gradient: Callable[[Any], Any], x: Any) -> Any:
        slope, hessian = jax.linearize(gradient, x)
        return jax.tree.map(jnp.subtract, x, solve_symmetric(hessian, slope))

    return lax.custom_root(gradient, lax.stop_gradient(found), newton, solve_symmetric)


def solve_symmetric(matrix: Callable[[Any], Any], target: Any) -> Any:
    """The x with `matrix(x)` = target by conjugate gradients, for a matrix that is positive where it acts.

    Args:
        matrix: linear and symmetric; `target` lies in its range.
        target: pytree of arrays.

    Returns:
        x, like `target`, differentiable as the solution is; NaN where the iteration does not converge.
    """
    flat, restore = ravel_pytree(target)

    def multiply(x: Array) -> Array:
        return ravel_pytree(matrix(restore(x)))[0]

    return restore(lax.custom_linear_solve(multiply, flat, _conjugate_gradients, symmetric=True))


def _conjugate_gradients(multiply: Callable[[Array], Array], target: Float[Array, "n"]) -> Float[Array, "n"]:
    # Written out, as that of JAX compiles the product three times: long, for the Hessian of a potential.
    tolerance = _ACCURACY[str(target.dtype)]
    n_steps = 10 * target.size + 100
    whole = jnp.vdot(target, target)

    def goes_on(now: _Krylov) -> Array:
        return (now.square > tolerance**2 * whole) & (now.n_steps < n_steps)

    def step(now: _Krylov) -> _Krylov:
        product = multiply(now.direction)
        stride = now.square / jnp.vdot(now.direction, product)
        residual = now.residual - stride * product
        square = jnp.vdot(residual, residual)
        return _Krylov(
            now.x + stride * now.direction,
            residual,
            residual + square / now.square * now.direction,
            square,
            now.n_steps + 1,
        )

    end = lax.while_loop(goes_on, step, _Krylov(jnp.zeros_like(target), target, target, whole, jnp.int32(0)))
    return jnp.where(end.square <= (_UNSOLVED * tolerance) ** 2 * whole, end.x, jnp.nan)


class _Krylov(NamedTuple):
    """Between two steps of conjugate gradients; `square` is that of the residual."""

    x: Array
    residual: Array
    direction: Array
    square: Array
    n_steps: Array
