"""Multiplication of integers by a factor below one, which can be undone bit for bit.

h → h − round(ε h) maps at most two neighbouring integers to the same one for ε ≤ ¼. A bit records which of
the two it was: 2γt bits for each number with friction γ over a time t, 200 for 100 ps at 1/ps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from difmd.errors import InputError

# Largest ε where a traced friction is unknown when memory is allocated.
_UNKNOWN = 0.02

_LARGEST = 0.25


class Bits(NamedTuple):
    """Stacks of bits, one for each number.

    `now` holds the latest bits below a leading 1, `full` the `n_full` stored words, and `steps` the step
    after which each was stored.
    """

    now: Int[Array, "atoms 3"]
    full: Int[Array, "words atoms 3"]
    steps: Int[Array, "words"]
    n_full: Int[Array, ""]


def bits_for(shape: tuple[int, ...], dtype: np.dtype, epsilon: float | None, n_steps: int) -> Bits:
    """Memory for the bits of `n_steps` of `contract` by ε ≤ ¼; ε is 2 % where it is None, not known yet."""
    word = np.dtype(np.int64 if dtype == np.float64 else np.int32)
    most = _UNKNOWN if epsilon is None else epsilon
    if not most <= _LARGEST:
        raise InputError(
            f"1 − exp(−friction · dt) = {most:.3g}: reversible() undoes steps of at most {_LARGEST}; use a "
            "shorter time step, less friction, or another gradient method"
        )
    # All words are stored when the fullest is full: it holds m + 4.5 √m bits when the mean is m.
    mean = (math.sqrt(4.5**2 / 4 + _capacity(word)) - 4.5 / 2) ** 2
    n_words = 2 + math.ceil(2 * most * n_steps / mean)
    return Bits(
        now=jnp.ones(shape, word),
        full=jnp.ones((n_words, *shape), word),
        steps=jnp.full(n_words, -1, jnp.int32),
        n_full=jnp.int32(0),
    )


def contract(
    h: Float[Array, "atoms 3"], epsilon: Float[Array, ""], bits: Bits, step: Int[Array, ""]
) -> tuple[Float[Array, "atoms 3"], Bits]:
    """Map integers h below 2^53 (2^24 in float32) to h − round(ε h), and store the bits that recover h."""
    image = _shrunk(h, epsilon)
    is_upper, is_lower = _shrunk(h - 1, epsilon) == image, _shrunk(h + 1, epsilon) == image
    now = jnp.where(is_upper | is_lower, 2 * bits.now + is_upper.astype(bits.now.dtype), bits.now)

    def store(bits: Bits) -> Bits:
        return Bits(
            now=jnp.ones_like(bits.now),
            full=lax.dynamic_update_index_in_dim(bits.full, bits.now, bits.n_full, 0),
            steps=bits.steps.at[bits.n_full].set(step.astype(jnp.int32)),
            n_full=bits.n_full + 1,
        )

    is_full = jnp.max(now) >= 1 << _capacity(now.dtype)
    return image, lax.cond(is_full, store, lambda bits: bits, bits._replace(now=now))


def expand(
    image: Float[Array, "atoms 3"], epsilon: Float[Array, ""], bits: Bits, step: Int[Array, ""]
) -> tuple[Float[Array, "atoms 3"], Bits]:
    """The inverse of `contract`: h and the bits before this step."""
    last = bits.n_full - 1

    def restore(bits: Bits) -> Bits:
        now = lax.dynamic_index_in_dim(bits.full, last, 0, keepdims=False)
        return bits._replace(now=now, n_full=last)

    was_full = (last >= 0) & (bits.steps[last] == step)
    bits = lax.cond(was_full, restore, lambda bits: bits, bits)
    guess = jnp.round(image / (1 - epsilon))
    # The lowest integer with this image; the guess may be wrong by two.
    lowest = guess + 3
    for offset in (2, 1, 0, -1, -2, -3):
        lowest = jnp.where(_shrunk(guess + offset, epsilon) == image, guess + offset, lowest)
    is_one_of_two = _shrunk(lowest + 1, epsilon) == image
    bit = jnp.where(is_one_of_two, bits.now & 1, 0)
    now = jnp.where(is_one_of_two, bits.now >> 1, bits.now)
    return lowest + bit.astype(image.dtype), bits._replace(now=now)


def _shrunk(h: Array, epsilon: Array) -> Array:
    return h - jnp.round(epsilon * h)


def _capacity(dtype: np.dtype) -> int:
    """Number of bits in a word below the leading one, without the sign and a spare bit."""
    return 8 * np.dtype(dtype).itemsize - 3
