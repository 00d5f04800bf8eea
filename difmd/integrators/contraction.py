"""Multiplication of numbers on a grid by a factor below one, which can be undone bit for bit.

h → h − round(ε h) takes some neighbouring whole numbers to the same one, two at most for ε ≤ ¼. Which of the
two it was is a bit that has to be kept: 2γt bits for each number with friction γ over a time t, 200 for
100 ps at 1/ps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from difmd.errors import InputError

# Where the friction is not known when memory is laid out: what a step may lose.
_MOST = 0.02

_LARGEST = 0.25


class Bits(NamedTuple):
    """Stacks of bits, one for each number.

    Attributes:
        now: the latest bits below a leading one; [atoms, 3].
        full: words that were full, all at the same time; [words, atoms, 3].
        steps: step after which each of them was put away; int32 [words].
        n_full: how many there are; int32 [].
    """

    now: Int[Array, "atoms 3"]
    full: Int[Array, "words atoms 3"]
    steps: Int[Array, "words"]
    n_full: Int[Array, ""]


def bits_for(shape: tuple[int, ...], dtype: np.dtype, epsilon: float | None, n_steps: int) -> Bits:
    """Room for what `n_steps` of `contract` by ε would forget, by 2 % each where ε is None, not known yet.

    Raises:
        InputError: ε of more than ¼.
    """
    whole = np.dtype(np.int64 if dtype == np.float64 else np.int32)
    most = _MOST if epsilon is None else epsilon
    if not most <= _LARGEST:
        raise InputError(
            f"1 − exp(−friction · dt) = {most:.3g}: reversible() undoes steps of at most {_LARGEST}; use a "
            "shorter time step, less friction, or another gradient method"
        )
    # The fullest of many stacks makes all go: m + 4.5 √m bits fill it when the mean is m.
    mean = (math.sqrt(4.5**2 / 4 + _room(whole)) - 4.5 / 2) ** 2
    n_words = 2 + math.ceil(2 * most * n_steps / mean)
    return Bits(
        now=jnp.ones(shape, whole),
        full=jnp.ones((n_words, *shape), whole),
        steps=jnp.full(n_words, -1, jnp.int32),
        n_full=jnp.int32(0),
    )


def contract(
    h: Float[Array, "atoms 3"], epsilon: Float[Array, ""], bits: Bits, step: Int[Array, ""]
) -> tuple[Float[Array, "atoms 3"], Bits]:
    """(1 − ε) h for whole numbers h, rounded, and the bits that tell h from it.

    Args:
        h: whole numbers below 2^53 (2^24 in float32).
        epsilon: 0 ≤ ε ≤ ¼; for larger ones, rounding of ε h may make it three numbers that share a place.
        bits: what was kept before.
        step: number of this step, the next one to be undone.
    """
    found = _shrunk(h, epsilon)
    is_upper, is_lower = _shrunk(h - 1, epsilon) == found, _shrunk(h + 1, epsilon) == found
    now = jnp.where(is_upper | is_lower, 2 * bits.now + is_upper.astype(bits.now.dtype), bits.now)

    def put_away(bits: Bits) -> Bits:
        return Bits(
            now=jnp.ones_like(bits.now),
            full=lax.dynamic_update_index_in_dim(bits.full, bits.now, bits.n_full, 0),
            steps=bits.steps.at[bits.n_full].set(step.astype(jnp.int32)),
            n_full=bits.n_full + 1,
        )

    is_full = jnp.max(now) >= 1 << _room(now.dtype)
    return found, lax.cond(is_full, put_away, lambda bits: bits, bits._replace(now=now))


def expand(
    found: Float[Array, "atoms 3"], epsilon: Float[Array, ""], bits: Bits, step: Int[Array, ""]
) -> tuple[Float[Array, "atoms 3"], Bits]:
    """The h and the bits that `contract` was given in this step."""
    last = bits.n_full - 1

    def take_back(bits: Bits) -> Bits:
        now = lax.dynamic_index_in_dim(bits.full, last, 0, keepdims=False)
        return bits._replace(now=now, n_full=last)

    was_full = (last >= 0) & (bits.steps[last] == step)
    bits = lax.cond(was_full, take_back, lambda bits: bits, bits)
    guess = jnp.round(found / (1 - epsilon))
    # The lowest that leads here; rounding of the guess may miss it by two.
    lowest = guess + 3
    for offset in (2, 1, 0, -1, -2, -3):
        lowest = jnp.where(_shrunk(guess + offset, epsilon) == found, guess + offset, lowest)
    is_one_of_two = _shrunk(lowest + 1, epsilon) == found
    bit = jnp.where(is_one_of_two, bits.now & 1, 0)
    now = jnp.where(is_one_of_two, bits.now >> 1, bits.now)
    return lowest + bit.astype(found.dtype), bits._replace(now=now)


def _shrunk(h: Array, epsilon: Array) -> Array:
    return h - jnp.round(epsilon * h)


def _room(dtype: np.dtype) -> int:
    """Bits below the leading one, with the sign and one more left."""
    return 8 * np.dtype(dtype).itemsize - 3
