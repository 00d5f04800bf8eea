"""A conditional that stays a conditional under `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool


def cond_any(
    predicate: Bool[Array, ""],
    if_true: Callable[..., Any],
    if_false: Callable[..., Any],
    *operands: Any,
) -> Any:
    """`lax.cond`, but under `vmap` one branch for all replicas: `if_true` if any of them asks for it.

    Plain `lax.cond` becomes a `select` under `vmap`, which computes both branches each time.

    Args:
        predicate: bool [].
        if_true: a function of the operands that is also right, if unneeded, where the predicate is False.
        if_false: a function of the operands.
        *operands: pytrees of arrays.

    Returns:
        What the chosen branch returns.
    """

    @jax.custom_batching.custom_vmap
    def choose(predicate: Any, operands: Any) -> Any:
        return lax.cond(predicate, if_true, if_false, *operands)

    @choose.def_vmap
    def _(axis_size: int, in_batched: Any, predicate: Any, operands: Any) -> tuple[Any, Any]:
        def full(x: Array, batched: bool) -> Array:
            return x if batched else jnp.broadcast_to(x, (axis_size, *jnp.shape(x)))

        # Both branches must return the same batched structure, so every operand is batched.
        operands = jax.tree.map(full, operands, in_batched[1])
        out = cond_any(jnp.any(predicate), jax.vmap(if_true), jax.vmap(if_false), *operands)
        return out, jax.tree.map(lambda _: True, out)

    return choose(predicate, operands)
