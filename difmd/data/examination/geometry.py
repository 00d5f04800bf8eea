"""Distances within a frame, and displacements from one frame to another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from difmd._internal.pairs import find_pairs
from difmd.data.frames import Frame

# For fewer atoms all distances are computed, which is faster than a search.
_FEW_ATOMS = 64


class Pairs(NamedTuple):
    """Pairs of a frame, each once."""

    i: np.ndarray  # int [pairs]
    j: np.ndarray  # int [pairs]
    vectors: np.ndarray  # r_ij = r_j − r_i, including the image [Å]; [pairs, 3]
    distances: np.ndarray  # [Å]; [pairs]

    def select(self, mask: np.ndarray) -> Pairs:
        """The pairs for which `mask` is true."""
        return Pairs(*(field[mask] for field in self))

    def within(self, cutoff: float) -> Pairs:
        """The pairs closer than `cutoff` [Å]."""
        return self.select(self.distances < cutoff)


def find_pairs_once(frame: Frame, cutoff: float) -> Pairs:
    """All pairs closer than `cutoff` [Å], each once, with every image."""
    positions = frame.positions
    if not frame.pbc.any() and frame.n_atoms <= _FEW_ATOMS:
        i, j = np.triu_indices(frame.n_atoms, 1)
        vectors = positions[j] - positions[i]
        distances = np.sqrt(np.einsum("pk,pk->p", vectors, vectors))
        return Pairs(i, j, vectors, distances).within(cutoff)
    i, j, shifts, distances = find_pairs(positions, frame.cell, frame.pbc, cutoff)
    first = np.where(shifts[:, 0] != 0, shifts[:, 0], np.where(shifts[:, 1] != 0, shifts[:, 1], shifts[:, 2]))
    once = (i < j) | ((i == j) & (first > 0))
    vectors = positions[j] - positions[i] + shifts @ frame.cell
    return Pairs(i, j, vectors, distances).select(once)


def pair_codes(frame: Frame, pairs: Pairs) -> np.ndarray:
    """Codes of the elements a ≤ b of pairs, which are `divmod(code, 119)`; int [pairs]."""
    low, high = np.sort([frame.numbers[pairs.i], frame.numbers[pairs.j]], axis=0)
    return 119 * low + high


def covalent_radii(numbers: np.ndarray) -> np.ndarray:
    """Covalent radii [Å] (Cordero et al., Dalton Trans. 2008, 2832, doi:10.1039/b801115j) of `numbers`."""
    from ase.data import covalent_radii as radii

    return np.asarray(radii)[numbers]


def nearest_ratios(frame: Frame) -> tuple[np.ndarray, tuple[int, int, float]]:
    """Nearest distance of each atom over the sum of covalent radii; the closest pair, its distance [Å].

    The ratios are infinite above 2.5, the distance is infinite if there is no pair.
    """
    # Most atoms have a close neighbour, and a search twice as far costs eight times as much.
    near = _nearest_within(frame, 1.3)
    return near if np.isfinite(near[0]).all() else _nearest_within(frame, 2.5)


def _nearest_within(frame: Frame, reach: float) -> tuple[np.ndarray, tuple[int, int, float]]:
    radii = covalent_radii(frame.numbers)
    nearest = np.full(frame.n_atoms, np.inf)
    pairs = find_pairs_once(frame, reach * 2 * float(radii.max()))
    if not len(pairs.i):
        return nearest, (0, 0, np.inf)
    ratio = pairs.distances / (radii[pairs.i] + radii[pairs.j])
    np.minimum.at(nearest, pairs.i, ratio)
    np.minimum.at(nearest, pairs.j, ratio)
    closest = int(np.argmin(ratio))
    return nearest, (int(pairs.i[closest]), int(pairs.j[closest]), float(pairs.distances[closest]))


def displacement(first: Frame, second: Frame) -> tuple[np.ndarray, np.ndarray] | None:
    """Displacements from one frame to another [Å], [atoms, 3], and the rotation of the forces of the second.

    Periodic frames of one cell are compared by nearest images, molecules after a rotation of the second onto
    the first (Kabsch, Acta Cryst. A 32, 922 (1976), doi:10.1107/S0567739476001873), applied to its forces as
    `forces @ rotation`. None if atoms or cells differ.
    """
    if not np.array_equal(first.numbers, second.numbers) or not np.array_equal(first.pbc, second.pbc):
        return None
    if first.pbc.any():
        if not np.allclose(first.cell, second.cell, rtol=0, atol=1e-6):
            return None
        vectors = first.cell[first.pbc]
        moved = second.positions - first.positions
        moved = moved - np.round(moved @ np.linalg.pinv(vectors)) @ vectors
        return moved, np.eye(3)
    target = first.positions - first.positions.mean(axis=0)
    source = second.positions - second.positions.mean(axis=0)
    u, _, vt = np.linalg.svd(source.T @ target)
    proper = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = u @ proper @ vt
    return source @ rotation - target, rotation
