"""Truncated backpropagation: reverse mode through windows of limited length."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from difmd.errors import InputError
from difmd.gradients.base import GradientMethod
from difmd.gradients.checkpointed import checkpointed
from difmd.gradients.segment import Carry, Inputs, Plan


def truncated_backpropagation(*, n_steps: int) -> GradientMethod:
    """Stop gradients at the start of each window of `n_steps` steps.

    The effect of parameters on the first state of a window is neglected. This limits the growth of gradients,
    exp(λt) with the Lyapunov exponent λ, at the price of a bias. Only frames of the first window depend on
    the initial state.

    Args:
        n_steps: length of a window, a multiple of the segment (`rebuild_every`, or else `save_every`).

    Returns:
        `GradientMethod`, for every integrator.

    Raises:
        InputError: fewer than one step; when run, a window that does not fit the segment or the rollout.

    References:
        Greener, PNAS 122, e2426058122 (2025), doi:10.1073/pnas.2426058122.
    """
    if n_steps < 1:
        raise InputError(f"n_steps = {n_steps} of truncated_backpropagation() must be at least 1")
    return GradientMethod(run=functools.partial(_run, n_steps), name=f"truncated_backpropagation({n_steps=})")


def _run(n_steps: int, plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    length = plan.save_every * plan.n_frames
    total = length * plan.n_segments
    if n_steps % length or total % n_steps:
        raise InputError(
            f"truncated_backpropagation(n_steps={n_steps}) must be a multiple of the segment of {length} "
            f"steps and divide the rollout of {total} steps"
        )

    def window(carry: Carry, is_first: Array) -> tuple[Carry, Any]:
        def cut(x: Array) -> Array:
            varies = jnp.issubdtype(x.dtype, jnp.inexact)
            return jnp.where(is_first, x, lax.stop_gradient(x)) if varies else x

        start = carry._replace(state=jax.tree.map(cut, carry.state))
        return checkpointed().run(plan._replace(n_segments=n_steps // length), inputs, start)

    n_windows = total // n_steps
    carry, frames = lax.scan(window, carry, jnp.arange(n_windows) == 0)
    return carry, jax.tree.map(lambda x: x.reshape(plan.n_segments, *x.shape[2:]), frames)
