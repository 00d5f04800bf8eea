"""Coordinates in which a fit takes its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from difmd.errors import InputError


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

    `to_free` raises `InputError` for parameters that are not positive.
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
    """The parameters themselves."""
    return Transform(to_free=lambda params: params, from_free=lambda free: free)
