"""Pairs of positions within a distance, on the host, with the library vesin."""

from __future__ import annotations

from typing import Any

import numpy as np

from difmd._internal.lattice import complete_cell


def find_pairs(
    positions: Any, cell: Any, pbc: Any, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All pairs closer than `cutoff`, each from both sides, with images counted individually (host).

    Args:
        positions: [Å]; [atoms, 3].
        cell: rows are lattice vectors [Å]; [3, 3].
        pbc: periodic directions; [3].
        cutoff: [Å].

    Returns:
        senders i [pairs], receivers j [pairs], shifts S [pairs, 3] and distances [Å] [pairs], with
        r_ij = r_j − r_i + S·cell. Pairs of an atom with its images are included.
    """
    from vesin import NeighborList

    periodic = as_triple(pbc)
    full = complete_cell(np.asarray(cell, np.float64), periodic)
    points = np.asarray(positions, np.float64)
    n_points = len(points)
    if not all(periodic):
        points = np.concatenate([points, _corners(points @ np.linalg.inv(full), periodic, cutoff) @ full])
    search = NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
    flags = np.asarray(periodic)
    i, j, shifts, distances = search.compute(points=points, box=full, periodic=flags, quantities="ijSd")
    if n_points < len(points):
        real = (i < n_points) & (j < n_points)
        i, j, shifts, distances = i[real], j[real], shifts[real], distances[real]
    return i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int64), distances


def _corners(fractions: np.ndarray, periodic: tuple[bool, bool, bool], cutoff: float) -> np.ndarray:
    """Two points beyond the reach of all atoms that make the bounding box equally wide along open directions.

    Otherwise vesin divides by zero where atoms are far apart along one and coplanar across another.
    """
    is_open = ~np.asarray(periodic)
    low = fractions.min(axis=0) - 2 * cutoff
    wide = np.max((fractions.max(axis=0) - low)[is_open]) + 2 * cutoff
    return np.where(is_open, np.stack([low, low + wide]), 0.0)


def as_triple(pbc: Any) -> tuple[bool, bool, bool]:
    """Periodic directions as three Python booleans."""
    a, b, c = (bool(flag) for flag in np.broadcast_to(np.asarray(pbc), 3))
    return a, b, c
