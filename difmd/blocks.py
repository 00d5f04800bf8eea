"""Sizes of arrays that suit the cache of a CPU.

Sums over the slots of a list read and write a dozen arrays of one length at once. Where that length is a
multiple of the 4 KiB after which addresses share a place in the cache, they push each other out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

SIZE = 32_080
"""Atoms that a CPU works on at a time; with smaller blocks the cores wait for each other more often."""

# Numbers of 8 bytes in 4 KiB, and how near to a multiple of them lengths may come.
_PERIOD, _MARGIN = 512, 64

# Shorter arrays fit beside each other, and would grow much by comparison.
_SHORT = 4096


def starts(n: int) -> Int[Array, "blocks"] | None:
    """First atom of each block of `SIZE`; None where all `n` at once are better.

    The last block begins early enough to be whole, and overlaps the one before it.
    """
    if n <= 2 * SIZE or jax.default_backend() != "cpu":
        return None
    n_blocks = -(-n // SIZE)
    return jnp.minimum(SIZE * jnp.arange(n_blocks, dtype=jnp.int32), n - SIZE)


def columns(n_atoms: int, n_replicas: int) -> int:
    """The least number of columns for lists of `n_atoms`, of which replicas lie end to end."""
    most = n_atoms if n_atoms * n_replicas < _SHORT else n_atoms + 2 * _MARGIN
    # Whole vectors where that will do.
    candidates = [*range(n_atoms, most + 1, 4), *range(n_atoms, most + 1)]
    suited = (n for n in candidates if _MARGIN <= n * n_replicas % _PERIOD <= _PERIOD - _MARGIN)
    return next(suited, n_atoms)
