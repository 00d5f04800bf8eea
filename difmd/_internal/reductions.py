"""Maxima and cumulative sums that XLA runs on all cores of a CPU, and compiles quickly."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from difmd._internal.lattice import product

# Parts that are compared number by number, and the length that is left to XLA.
_PARTS, _SHORT = 16, 4096

# Numbers in a row of a cumulative sum, and rows that are summed directly.
_ROW, _DIRECT = 128, 256


def largest(x: Float[Array, "n"]) -> Float[Array, ""]:
    """The maximum; NaN if one of the numbers is.

    XLA takes the maximum of a long array on one core.
    """
    while len(x) > _SHORT:
        length = -(-len(x) // _PARTS)
        # A part that would end too late begins earlier: seeing a number twice does no harm.
        starts = [min(part * length, len(x) - length) for part in range(_PARTS)]
        x = functools.reduce(jnp.maximum, [x[start : start + length] for start in starts])
    # Written out, as `jnp.max` of JAX 0.12 on CPU passes over NaN where there are 4096 numbers or more in all
    # replicas together.
    return lax.reduce(
        x, np.asarray(-np.inf, x.dtype), lambda a, b: lax.select((a > b) | (a != a), a, b), (0,)
    )


def full_rows(n: int) -> int:
    """The least length from `n` on that `cumulative` takes: rows that are full."""
    return -(-n // _ROW) * _ROW


def cumulative(x: Shaped[Array, "n"]) -> Shaped[Array, "n"]:
    """The cumulative sum of a length of `full_rows`; of floats, by rows, each times a triangle of ones.

    XLA on CPU compiles it sooner than `jnp.cumsum`. In float32 exact for whole numbers with sums up to 2²⁴; a
    number that is not finite spoils all sums of its row.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.cumsum(x, dtype=x.dtype)
    rows = x.reshape(-1, _ROW)
    within = product(rows, jnp.asarray(np.triu(np.ones((_ROW, _ROW), x.dtype))))
    ends = within[:, -1]
    n_rows = len(ends)
    if n_rows > _DIRECT:
        before = cumulative(jnp.pad(ends, (0, full_rows(n_rows) - n_rows)))[:n_rows] - ends
    else:
        place = jnp.arange(n_rows)
        before = jnp.sum(jnp.where(place[None] < place[:, None], ends[None], 0), axis=1)
    return (within + before[:, None]).reshape(-1)
