"""Coordinates in which the optimiser of a fit works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError


@brief_repr
class Transform(NamedTuple):
    """A change of variables between parameters and the coordinates of the optimiser.

    Attributes:
        to_free: `to_free(params) -> free`.
        from_free: its inverse.
    """

    to_free: Callable[[Any], Any]
    from_free: Callable[[Any], Any]


def logarithmic() -> Transform:
    """Logarithms: steps are relative, parameters stay positive.

    Returns:
        `Transform`; its `to_free` raises `InputError` for parameters that are not positive.
    """

    def to_free(params: Any) -> Any:
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not (np.asarray(leaf) > 0).all():
                raise InputError(
                    f"params{jax.tree_util.keystr(path)} = {np.asarray(leaf)} is not positive: pass "
                    "transform=identity() to fit parameters of any sign"
                )
        return jax.tree.map(jnp.log, params)

    return Transform(to_free=to_free, from_free=lambda free: jax.tree.map(jnp.exp, free))


def identity() -> Transform:
    """The parameters themselves.

    Returns:
        `Transform`.
    """
    return Transform(to_free=lambda params: params, from_free=lambda free: free)


def bounded(low: Any, high: Any) -> Transform:
    """Logits between bounds, which the parameters approach but, apart from rounding, never reach.

    θ = low + (high − low)/(1 + e^{−x}).

    Args:
        low: lower bound of every parameter; like the params.
        high: upper bounds, as above.

    Returns:
        `Transform`; its `to_free` raises `InputError` for parameters that are not between the bounds.

    Raises:
        InputError: a lower bound that is not below the upper one.
    """

    def check(path: Any, a: Any, b: Any) -> None:
        if not (np.asarray(a) < np.asarray(b)).all():
            raise InputError(f"bounds of params{jax.tree_util.keystr(path)}: {a} is not below {b}")

    jax.tree_util.tree_map_with_path(check, low, high)

    def to_free(params: Any) -> Any:
        def logit(path: Any, theta: Any, a: Any, b: Any) -> Array:
            if not ((np.asarray(theta) > np.asarray(a)) & (np.asarray(theta) < np.asarray(b))).all():
                raise InputError(
                    f"params{jax.tree_util.keystr(path)} = {np.asarray(theta)} is not between its bounds "
                    f"{np.asarray(a)} and {np.asarray(b)}"
                )
            a, b = (jnp.asarray(x, theta.dtype) for x in (a, b))
            return jnp.log(theta - a) - jnp.log(b - theta)

        return jax.tree_util.tree_map_with_path(logit, params, low, high)

    def from_free(free: Any) -> Any:
        def between(x: Array, a: Any, b: Any) -> Array:
            a, b = (jnp.asarray(y, x.dtype) for y in (a, b))
            return a + (b - a) * jax.nn.sigmoid(x)

        return jax.tree.map(between, free, low, high)

    return Transform(to_free=to_free, from_free=from_free)
