"""Lists for data sets: pairs found on the host, packed into arrays of given sizes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from difmd._internal.pairs import find_pairs
from difmd.neighbors.types import Grid, Neighbors, ReverseEdges
from difmd.system import System


class Pairs(NamedTuple):
    """The pairs of a configuration (host), by ascending sender, with receivers among the extended positions.

    `parents` and `images` are the atoms and translations of extended positions, the atoms themselves first;
    `n_neighbors` is the largest number of an atom, and `pair` the undirected pair of each, −1 for none.
    """

    senders: Int[np.ndarray, "pairs"]
    receivers: Int[np.ndarray, "pairs"]
    parents: Int[np.ndarray, "extended"]
    images: Int[np.ndarray, "extended 3"]
    n_neighbors: int
    pair: Int[np.ndarray, "pairs"]


def pairs_of(system: System, cutoff: float) -> Pairs:
    """Pairs closer than `cutoff` [Å], and the images in them (host)."""
    i, j, shifts, _ = find_pairs(system.positions, system.cell, system.pbc, cutoff)
    n_atoms = system.n_atoms
    inside = np.column_stack([np.arange(n_atoms), np.zeros((n_atoms, 3), np.int64)])
    outside = np.any(shifts != 0, axis=1)
    images, place = np.unique(np.column_stack([j, shifts])[outside], axis=0, return_inverse=True)
    receivers = j.copy()
    receivers[outside] = n_atoms + place.reshape(-1)
    extended = np.concatenate([inside, images])
    most = int(np.bincount(i, minlength=1).max()) if len(i) else 0
    order = np.argsort(i, kind="stable")
    i, j, shifts, receivers = i[order], j[order], shifts[order], receivers[order]
    # Seen from the lower atom, or from the entry with the larger translation.
    first = shifts[:, 0] if len(i) else np.zeros(0, np.int64)
    for axis in (1, 2):
        first = np.where(first == 0, shifts[:, axis], first)
    sign = np.where((i > j) | ((i == j) & (first < 0)), -1, 1)[:, None]
    keys = np.column_stack([np.minimum(i, j), np.maximum(i, j), sign * shifts])
    _, group, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    # A pair that rounding at the cut-off has listed from one side only does not count.
    number = np.where(counts == 2, np.cumsum(counts == 2) - 1, -1)
    return Pairs(i, receivers, extended[:, 0], extended[:, 1:], most, number[group.reshape(-1)])


def packed(
    pairs: Pairs,
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    *,
    pbc: tuple[bool, bool, bool],
    cutoff: float,
    slots: int,
    n_extended: int,
    n_pairs: int,
) -> Neighbors:
    """`Neighbors` of given sizes, in NumPy; stale as soon as an atom moves.

    Padding follows the real atoms. `n_pairs` is the number of undirected pairs, at least half of the entries.
    """
    n_atoms = len(positions)
    n_real = int(np.sum(~np.any(pairs.images != 0, axis=1)))
    indices = np.full((slots, n_atoms), n_extended, np.int32)
    first = np.searchsorted(pairs.senders, np.arange(n_atoms))
    slot = np.arange(len(pairs.senders)) - first[pairs.senders]
    indices[slot, pairs.senders] = pairs.receivers
    pair = np.full((n_atoms, slots), n_pairs, np.int32)
    is_pair = pairs.pair >= 0
    pair[pairs.senders[is_pair], slot[is_pair]] = pairs.pair[is_pair]
    entries = np.zeros((2, n_pairs + 1), np.int32)
    by_pair = np.argsort(pairs.pair, kind="stable")[np.sum(~is_pair) :]
    entries[:, : len(by_pair) // 2] = (pairs.senders * slots + slot)[by_pair].reshape(-1, 2).T
    centers = np.full(n_atoms, n_extended + 1, np.int32)
    centers[:n_real] = np.arange(n_real)
    parents = np.zeros(n_extended, np.int32)
    parents[: len(pairs.parents)] = pairs.parents
    images = np.zeros((3, n_extended), np.int32)
    images[:, : len(pairs.parents)] = pairs.images.T
    atoms = np.arange(n_atoms, dtype=np.int32)
    edges: Any = (pair, entries)
    arrays: dict[str, Any] = {
        "indices": indices,
        "centers": centers,
        "order": atoms,
        "rank": atoms,
        "parents": parents,
        "images": images,
        "wraps": np.zeros((n_atoms, 3), np.int32),
        "reference_positions": positions,
        "reference_cell": cell,
        "n_neighbors": np.int32(pairs.n_neighbors),
        "n_extended": np.int32(len(pairs.parents)),
        "n_in_run": np.int32(0),
        "too_small": np.bool_(False),
        "reverse_edges": ReverseEdges(*edges),
    }
    grid = Grid((1, 1, 1), (1, 1, 1), 0)
    return Neighbors(**arrays, cutoff=float(cutoff), skin=0.0, periodic=pbc, grid=grid)
