"""Sizes of arrays that suit the cache and the cores of a CPU.

Sums over the slots of a list read and write a dozen arrays of one length at once. Where that length is a
multiple of the 4 KiB after which addresses share a place in the cache, they push each other out. Where the
cores cannot share it equally, XLA asks for every number whether it is there at all, and does without vector
instructions.
"""

from __future__ import annotations

import math
import os

import jax
import numpy as np
from jaxtyping import Int

SUMMED = 64_160
"""Atoms whose neighbours a CPU sums at a time in large systems; with smaller blocks the cores wait for each
other more often."""

SEARCHED = 16_040
"""Atoms whose neighbours a CPU searches at a time, so that what it finds stays in the cache."""

# Numbers of 8 bytes in 4 KiB, and how near to a multiple of them lengths may come.
_PERIOD, _MARGIN = 512, 64

# Numbers of 4 bytes in the longest vectors.
_VECTOR = 16

# Shorter arrays fit beside each other, are not shared by cores, and would grow much by comparison.
_SHORT = 2048


def n_cores() -> int:
    """Cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    """Columns for lists of `n_atoms`, of which replicas lie end to end: at most a few in a hundred more.

    A multiple of 16 and of the number of cores where there is one, and as far from a multiple of 4 KiB as it
    takes.
    """
    if n_atoms * n_replicas < _SHORT:
        return n_atoms
    # Of replicas, cores would share the number of them and not the columns.
    units = (math.lcm(_VECTOR, n_cores()), _VECTOR) if n_replicas == 1 else (4, 1)
    most = n_atoms + max(2 * _MARGIN + _VECTOR, n_atoms // 64)
    candidates = (n for unit in units for n in range(unit * -(-n_atoms // unit), most + 1, unit))
    suited = (n for n in candidates if _MARGIN <= n * n_replicas % _PERIOD <= _PERIOD - _MARGIN)
    return next(suited, n_atoms)
