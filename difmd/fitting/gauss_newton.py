"""Damped Gauss–Newton steps as an optax transformation, for a handful of parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from difmd.errors import InputError, check_positive


class GaussNewtonState(NamedTuple):
    """Number of steps taken; int32 []."""

    steps: Int[Array, ""]


def gauss_newton(*, max_step: float = 0.1, full_steps: int = 3) -> optax.GradientTransformationExtraArgs:
    """Steps δ = −(JᵀJ + Λ)⁻¹ Jᵀ r for residuals r with a noisy Jacobian J.

    The damping Λ is the variance of JᵀJ due to the noise of J, so that parameters do not move along
    directions that the data do not determine. After `full_steps` steps the k-th further one is scaled by
    1/(k + 1), which averages the noise of r over all of them (Robbins–Monro).

    Its `update` requires the extra arguments `residuals` [targets], `jacobian` (pytree of [targets, ...]) and
    `jacobian_stderr` (same shape); the gradient itself is not used.

    Args:
        max_step: largest change of a coordinate in one step.
        full_steps: steps before averaging begins.

    Returns:
        An optax transformation; its `update` raises `InputError` without residuals.

    Raises:
        InputError: a largest step that is not positive, or fewer than 0 full steps.

    References:
        Marquardt, SIAM J. Appl. Math. 11, 431 (1963), doi:10.1137/0111030;
        Robbins & Monro, Ann. Math. Stat. 22, 400 (1951), doi:10.1214/aoms/1177729586.
    """
    check_positive("max_step", max_step, "")
    if full_steps < 0:
        raise InputError(f"full_steps = {full_steps} must not be negative")

    def init(params: Any) -> GaussNewtonState:
        del params
        return GaussNewtonState(jnp.int32(0))

    def update(
        updates: Any, state: GaussNewtonState, params: Any = None, *,
        residuals: Float[Array, "targets"] | None, jacobian: Any, jacobian_stderr: Any, **extra: Any,
    ) -> tuple[Any, GaussNewtonState]:  # fmt: skip
        del params, extra
        if residuals is None:
            raise InputError(
                "gauss_newton() needs residuals, and a term has only a loss: pass another optimizer, such as "
                "optax.adam(1e-2)"
            )
        _, restore = ravel_pytree(updates)
        slopes = rows(jacobian)
        damping = jnp.max(jnp.sum(rows(jacobian_stderr) ** 2, axis=0))
        normal = slopes.T @ slopes + damping * jnp.eye(slopes.shape[1], dtype=slopes.dtype)
        step = -jnp.linalg.solve(normal, slopes.T @ residuals)
        step = step * jnp.minimum(1.0, max_step / jnp.maximum(jnp.max(jnp.abs(step)), 1e-30))
        gain = 1.0 / jnp.maximum(1.0, state.steps.astype(step.dtype) + 2.0 - full_steps)
        return restore(gain * step), GaussNewtonState(state.steps + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def rows(jacobian: Any) -> Float[Array, "targets parameters"]:
    """A Jacobian as a matrix, from a pytree of [targets, ...]."""
    return jax.vmap(lambda row: ravel_pytree(row)[0])(jacobian)


def averages(opt_state: Any) -> bool:
    """Whether the state of an optimiser, possibly of a chain, belongs to one that averages over its steps."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, GaussNewtonState))
    return any(isinstance(leaf, GaussNewtonState) for leaf in leaves)
