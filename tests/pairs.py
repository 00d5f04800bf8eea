"""Pairs by brute force in NumPy, to compare neighbour lists with."""

import itertools

import numpy as np


def brute_force(positions, cell, pbc, cutoff):
    """All (i, j, shift) with |r_j − r_i + shift·cell| < cutoff, and the smallest |distance − cutoff|.

    Every image that can matter is visited: with both atoms brought into the cell their lattice
    coordinates differ by less than one, so an image farther than 1 + cutoff/height is out of reach.
    """
    positions, pbc = np.asarray(positions, float), np.asarray(pbc, bool)
    vectors = np.asarray(cell, float)[pbc]
    inverse = np.linalg.pinv(vectors) if len(vectors) else np.zeros((3, 0))
    wraps = np.floor(positions @ inverse)
    inside = positions - wraps @ vectors
    most = np.floor(1 + cutoff * np.linalg.norm(inverse, axis=0)).astype(int)
    images = np.array(list(itertools.product(*[range(-n, n + 1) for n in most])), float)
    rows, nearest = [], np.inf
    for i, center in enumerate(inside):
        apart = inside[:, None] + images @ vectors - center
        distance = np.sqrt(np.sum(apart**2, axis=-1))
        nearest = min(nearest, np.min(np.abs(distance - cutoff)))
        j, image = np.nonzero(distance < cutoff)
        shift = np.zeros((len(j), 3), int)
        shift[:, pbc] = images[image] - wraps[j] + wraps[i]
        itself = (j == i) & (shift == 0).all(axis=1)
        rows.append(np.column_stack([np.full(len(j), i), j, shift])[~itself])
    return sort(np.concatenate(rows)), nearest


def pairs_of(neighbors):
    """The (i, j, shift) of a list, duplicates kept, with shifts for the positions as they are."""
    indices, parents, images = map(np.asarray, (neighbors.indices, neighbors.parents, neighbors.images.T))
    slot, center = np.nonzero(indices < len(parents))
    extended = indices[slot, center]
    here = np.asarray(neighbors.centers)[center]
    atoms = np.asarray(neighbors.order)[center]
    return sort(np.column_stack([atoms, parents[extended], images[extended] - images[here]]))


def sort(rows):
    return rows[np.lexsort(rows.T[::-1])].astype(np.int64)


def is_subset(rows, of):
    """Whether every row occurs in `of`; numbers lie between −1000 and 1000."""
    weights = 2001 ** np.arange(5)
    return np.isin(rows @ weights, of @ weights).all()
