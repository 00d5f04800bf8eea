"""Maxima and cumulative sums that XLA distributes over the cores of a CPU and compiles quickly."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from difmd._internal.lattice import product

# Number of parts that are compared elementwise, and the length below which XLA reduces.
_PARTS, _SHORT = 16, 4096

# Numbers in a row of a cumulative sum, and rows that are summed directly.
_ROW, _DIRECT = 128, 256


def largest(x: Float[Array, "n"]) -> Float[Array, ""]:
    """The maximum, in parts, as XLA reduces a long array on one core; NaN if any of the numbers is NaN."""
    while len(x) > _SHORT:
        length = -(-len(x) // _PARTS)
        # The last part begins early enough to fit; overlaps do not change a maximum.
        starts = [min(part * length, len(x) - length) for part in range(_PARTS)]
        x = functools.reduce(jnp.maximum, [x[start : start + length] for start in starts])
    # Explicit, as `jnp.max` of JAX 0.12 on CPU ignores NaN among 4096 numbers or more of all replicas.
    return lax.reduce(
        x, np.asarray(-np.inf, x.dtype), lambda a, b: lax.select((a > b) | (a != a), a, b), (0,)
    )


def full_rows(n: int) -> int:
    """The least length ≥ `n` that `cumulative` accepts: a multiple of the length of a row."""
    return -(-n // _ROW) * _ROW


def cumulative(x: Shaped[Array, "n"]) -> Shaped[Array, "n"]:
    """The cumulative sum for a length of `full_rows`; of floats, by rows and a triangular matrix.

    XLA on CPU compiles it faster than `jnp.cumsum`. In float32 it is exact for integers with sums up to 2²⁴.
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
