"""Sizes of a list on the host: bins for the search, and the capacities that given positions need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from difmd._internal.lattice import complete_cell, heights
from difmd._internal.pairs import find_pairs
from difmd.errors import InputError
from difmd.neighbors.device import WORD
from difmd.neighbors.types import Grid, Neighbors, as_ints
from difmd.system import System

# Bins that cutoff + skin may span, across the runs and along them; the cheapest combination is used. Finer
# bins make runs tighter, but more numerous.
_RESOLUTIONS = ((0, 0), (0.5, 1), (1, 2), (1, 3), (1, 4), (2, 4), (2, 6))

# Overhead of a run besides its comparisons, in comparisons.
_RUN = 40

# Columns of a list come in groups that a pair potential sums at a time.
_GROUP = 4

# A cell may shrink by this factor before it needs a list of more images.
_SHRINK = 1.02


def choose_grid(
    replicas: list[System], reach: float, periodic: tuple[bool, bool, bool], like: Neighbors | None
) -> Grid:
    """Bins that suit all replicas; those of `like` if they do.

    They depend on the cell and the number of atoms alone, so that a continued run has the same order of sums.
    """
    cells = (np.asarray(replica.cell, np.float64) for replica in replicas)
    height = np.min([heights(complete_cell(cell, periodic)) for cell in cells], axis=0)
    if like is not None and like.periodic == periodic:
        previous = _with_reach(like.grid.bins, height, reach, periodic, like.grid.reach)
        if previous.reach == like.grid.reach:
            return like.grid
    n_atoms = replicas[0].n_atoms
    best, lowest = None, math.inf
    for across, along in _RESOLUTIONS:
        resolution = np.array([across, across, along])
        # The extent along open directions is unknown: as many bins as a cube of the atoms would fill.
        fixed = np.ceil(resolution * np.cbrt(n_atoms))
        bins = np.where(periodic, np.floor(height * resolution / (_SHRINK * reach)), fixed)
        grid = _with_reach(np.maximum(1, bins), height, reach, periodic, (across, across, along))
        padded = math.prod(n + 2 * g for n, g in zip(grid.bins, grid.reach, strict=True))
        images = math.prod((n + 2 * g) / n for n, g, p in zip(*grid[:2], periodic, strict=True) if p)
        # Sparse systems get wide bins, so that the number of bins stays comparable to that of positions.
        if best is not None and padded > max(4096, 4 * n_atoms * images):
            continue
        mean = n_atoms * images * (2 * grid.reach[2] + 1) / padded
        # The fullest of many runs of a liquid.
        longest = round_to_words(mean + 3 * math.sqrt(mean))
        runs = (2 * grid.reach[0] + 1) * (2 * grid.reach[1] + 1)
        cost = n_atoms * runs * (longest + _RUN) + padded + n_atoms * images
        if cost < lowest:
            best, lowest = grid._replace(capacity=longest), cost
    assert best is not None
    return best


def _with_reach(
    bins: Any, height: np.ndarray, reach: float, periodic: tuple[bool, bool, bool], otherwise: Any
) -> Grid:
    """A grid of these bins with the reach that they require; `otherwise` along open directions."""
    # Less a rounding error, so that an integer stays the same.
    needed = np.ceil(_SHRINK * reach * np.asarray(bins, float) / height - 1e-9)
    spanned = np.where(periodic, needed, otherwise)
    return Grid(as_ints(np.asarray(bins)), as_ints(np.maximum(1, spanned)), 1)


def occupancy(
    system: System, reach: float, periodic: tuple[bool, bool, bool], grid: Grid
) -> tuple[int, int, float]:
    """Numbers of extended positions and of those in the fullest run, and the crowding.

    The crowding is the number of positions in the fullest box of runs around an atom, over the mean.
    """
    positions = np.asarray(system.positions, np.float64)[np.asarray(system.atomic_numbers) > 0]
    if not np.isfinite(positions).all():
        raise InputError("positions are not finite: no neighbour list can be built")
    full = complete_cell(np.asarray(system.cell, np.float64), periodic)
    # Lattice coordinates from the origin of the bins, and their extent.
    fraction = positions @ np.linalg.inv(full)
    fraction = fraction - np.where(periodic, np.floor(fraction), fraction.min(axis=0, initial=np.inf))
    span = np.where(periodic, 1.0, fraction.max(axis=0, initial=0.0))
    bins, spanned = np.array(grid.bins), np.array(grid.reach)
    width = np.where(periodic, 1 / bins, np.maximum(span / bins, reach / heights(full) / spanned))
    index = np.minimum((fraction / width).astype(int), bins - 1)
    count = np.bincount(np.ravel_multi_index(tuple(index.T), tuple(bins)), minlength=int(np.prod(bins)))
    count = count.reshape(bins)
    for axis in range(3):
        pad = [(0, 0)] * 3
        pad[axis] = (spanned[axis], spanned[axis])
        count = np.pad(count, pad, mode="wrap" if periodic[axis] else "constant")
    runs = _moving_sums(count, 2 * spanned[2] + 1, axis=2)
    boxes = _moving_sums(_moving_sums(runs, 2 * spanned[1] + 1, axis=1), 2 * spanned[0] + 1, axis=0)
    return int(count.sum()), int(runs.max()), float(boxes.max() / max(boxes.mean(), 1e-9))


def _moving_sums(x: np.ndarray, width: int, *, axis: int) -> np.ndarray:
    """Sums of `width` consecutive numbers along an axis."""
    x = np.moveaxis(x, axis, 0)
    before = np.concatenate([np.zeros((1, *x.shape[1:]), x.dtype), np.cumsum(x, axis=0)])
    return np.moveaxis(before[width:] - before[:-width], 0, axis)


def most_neighbors(system: System, reach: float, periodic: tuple[bool, bool, bool]) -> int:
    """Largest number of neighbours of an atom at these positions."""
    real = np.asarray(system.atomic_numbers) > 0
    i, _, _, _ = find_pairs(np.asarray(system.positions, np.float64)[real], system.cell, periodic, reach)
    return int(np.bincount(i).max()) if len(i) else 0


def liquid_neighbors(system: System, reach: float) -> int:
    """Largest number of neighbours in a liquid of this density; a crystal that will melt has fewer."""
    volume = abs(np.linalg.det(np.asarray(system.cell, np.float64)))
    n_atoms = int(np.sum(np.asarray(system.atomic_numbers) > 0))
    mean = n_atoms / volume * 4 / 3 * np.pi * reach**3
    return int(np.ceil(mean + np.sqrt(mean)))


def rounded(capacity: float) -> int:
    """Rounded up by an eighth at most, so that runs of similar size mostly share compiled code."""
    unit = max(1, 2 ** (int(np.ceil(capacity)).bit_length() - 4))
    return unit * int(np.ceil(capacity / unit))


def round_to_groups(slots: float) -> int:
    """`rounded`, and up to the columns that a pair potential sums at a time."""
    return _GROUP * max(1, int(np.ceil(rounded(slots) / _GROUP)))


def round_to_words(capacity: float) -> int:
    """Rounded up to the number that a comparison of runs covers anyway."""
    words = max(1, int(np.ceil(capacity / WORD)))
    return 8 * words * max(1, int(np.ceil(capacity / (8 * words))))
