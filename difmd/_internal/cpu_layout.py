"""Sizes of arrays that suit the cache and the cores of a CPU.

Sums over the slots of a list access a dozen arrays of equal length. If it is a multiple of 4 KiB, the arrays
evict each other from the cache. If the cores cannot share it equally, XLA uses no vector instructions.
"""

from __future__ import annotations

import math
import os

import jax
import numpy as np
from jaxtyping import Int

SUMMED = 64_160
"""Atoms per block when a CPU sums over neighbours in large systems; with smaller blocks the cores wait for
each other more often."""

SEARCHED = 16_040
"""Atoms per block when a CPU searches for neighbours, so that the results stay in the cache."""

# Numbers of 8 bytes in 4 KiB, and the least distance of a length from a multiple of them.
_PERIOD, _MARGIN = 512, 64

# Numbers of 4 bytes in the longest vectors.
_VECTOR = 16

# Shorter arrays fit into the cache together, are not shared by cores, and would grow relatively much.
_SHORT = 2048


def n_cores() -> int:
    """Cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split(n: int, size: int) -> tuple[Int[np.ndarray, "blocks"], int] | None:
    """First atoms of equal blocks of about `size`, perhaps overlapping, and their length; None for one."""
    length = columns(-(-n // -(-n // size)), 1)
    n_blocks = -(-n // length)
    if n_blocks < 2 or jax.default_backend() != "cpu":
        return None
    return np.minimum(length * np.arange(n_blocks, dtype=np.int32), n - length), length


def columns(n_atoms: int, n_replicas: int) -> int:
    """Number of columns for lists of `n_atoms`, with replicas joined end to end: a few per cent more at most.

    If possible a multiple of 16 and of the number of cores that is not close to a multiple of 4 KiB.
    """
    if n_atoms * n_replicas < _SHORT:
        return n_atoms
    # Cores share the replicas rather than their columns.
    units = (math.lcm(_VECTOR, n_cores()), _VECTOR) if n_replicas == 1 else (4, 1)
    most = n_atoms + max(2 * _MARGIN + _VECTOR, n_atoms // 64)
    candidates = (n for unit in units for n in range(unit * -(-n_atoms // unit), most + 1, unit))
    suited = (n for n in candidates if _MARGIN <= n * n_replicas % _PERIOD <= _PERIOD - _MARGIN)
    return next(suited, n_atoms)
