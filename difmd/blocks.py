"""Sizes of arrays that suit the cache of a CPU.

Sums over the slots of a list read and write a dozen arrays of one length at once. Where that length is a
multiple of the 4 KiB after which addresses share a place in the cache, they push each other out.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Int

SUMMED = 32_080
"""Atoms whose neighbours a CPU sums at a time in large systems; with smaller blocks the cores wait for each
other more often."""

SEARCHED = 16_040
"""Atoms whose neighbours a CPU searches at a time, so that what it finds stays in the cache."""

# Numbers of 8 bytes in 4 KiB, and how near to a multiple of them lengths may come.
_PERIOD, _MARGIN = 512, 64

# Shorter arrays fit beside each other, and would grow much by comparison.
_SHORT = 4096


def split(n: int, size: int) -> tuple[Int[np.ndarray, "blocks"], int] | None:
    """First atoms of equal blocks of about `size`, and their length; None where there is one, and on a GPU.

    The last block begins early enough to be whole; it alone may overlap the one before it.
    """
    length = columns(-(-n // -(-n // size)), 1)
    n_blocks = -(-n // length)
    if n_blocks < 2 or jax.default_backend() != "cpu":
        return None
    return np.minimum(length * np.arange(n_blocks, dtype=np.int32), n - length), length


def columns(n_atoms: int, n_replicas: int) -> int:
    """The least number of columns for lists of `n_atoms`, of which replicas lie end to end."""
    most = n_atoms if n_atoms * n_replicas < _SHORT else n_atoms + 2 * _MARGIN
    # Whole vectors where that will do.
    candidates = [*range(n_atoms, most + 1, 4), *range(n_atoms, most + 1)]
    suited = (n for n in candidates if _MARGIN <= n * n_replicas % _PERIOD <= _PERIOD - _MARGIN)
    return next(suited, n_atoms)
