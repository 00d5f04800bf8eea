"""Radial distribution functions of configurations, on the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd.errors import InputError, check_positive
from difmd.neighbors import find_pairs
from difmd.observables.statistics import over_blocks
from difmd.system import System


class RadialDistribution(NamedTuple):
    """g(r) of one pair of species.

    Attributes:
        r: middles of the bins [Å]; [bins].
        g: mean over the configurations; [bins].
        stderr: standard error of a correlated series, of `over_blocks`; NaN for fewer than 8 configurations;
            [bins].
        coordination: atoms of the second species around one of the first, up to the outer end of each bin;
            [bins].
        n_frames: configurations.
    """

    r: Float[np.ndarray, "bins"]
    g: Float[np.ndarray, "bins"]
    stderr: Float[np.ndarray, "bins"]
    coordination: Float[np.ndarray, "bins"]
    n_frames: int

    def peak(self, low: float, high: float) -> float:
        """Where g is largest between two distances, from a parabola through the upper part of the peak [Å].

        Counts scatter from bin to bin, so that the largest of a broad peak alone would be a matter of chance.

        Raises:
            InputError: no bins in between, or no pairs.
        """
        from scipy.ndimage import convolve1d

        inside = np.flatnonzero((self.r >= low) & (self.r <= high))
        if not len(inside) or not self.g[inside].max() > 0:
            raise InputError(f"g(r) has no peak between {low} and {high} Å")
        smooth = convolve1d(self.g, np.array([1, 4, 6, 4, 1]) / 16, mode="nearest")
        top = int(inside[np.argmax(smooth[inside])])
        level = 0.6 * smooth[top] + 0.4 * smooth[inside].min()
        first = last = top
        while first > inside[0] and (smooth[first - 1] > level or first == top):
            first -= 1
        while last < inside[-1] and (smooth[last + 1] > level or last == top):
            last += 1
        r, g = self.r[first : last + 1] - self.r[top], self.g[first : last + 1]
        if len(r) < 3:
            return float(self.r[top])
        curve, slope, _ = np.polyfit(r, g, 2)
        return float(self.r[top] + (np.clip(-slope / (2 * curve), r[0], r[-1]) if curve < 0 else 0.0))


def radial_distribution(
    systems: Iterable[System],
    *,
    first: int,
    second: int,
    r_max: float = 6.0,
    n_bins: int = 150,
) -> RadialDistribution:
    """Density of atoms of one species about those of another, over their mean density (host).

    Images are counted one by one, so that `r_max` may exceed half of the cell.

    Args:
        systems: configurations, periodic in all directions; those of a run are
            `(run.system.replace(positions=x) for x in run.positions)`.
        first: atomic number of the atoms in the middle.
        second: of those around them.
        r_max: [Å].
        n_bins: of equal width.

    Returns:
        `RadialDistribution`. An atom is no neighbour of itself, and the mean density is N/V with all atoms
        of the second species.

    Raises:
        InputError: no configurations, one that is not periodic or lacks the species, or r_max or n_bins not
            positive.
    """
    check_positive("r_max", r_max, "Å")
    if n_bins < 1:
        raise InputError(f"n_bins = {n_bins} must be at least 1")
    edges = np.linspace(0, r_max, n_bins + 1)
    shells = 4 * np.pi / 3 * np.diff(edges**3)
    each, around = [], np.zeros(n_bins)
    for number, system in enumerate(systems):
        numbers = np.asarray(system.atomic_numbers)
        cell, pbc = np.asarray(system.cell, np.float64), np.asarray(system.pbc)
        n_first, n_second = int(np.sum(numbers == first)), int(np.sum(numbers == second))
        if not pbc.all():
            raise InputError(f"configuration {number} is not periodic in all directions: it has no density")
        if not (n_first and n_second):
            missing = second if n_first else first
            raise InputError(f"configuration {number} has no atoms of atomic number {missing}")
        real = numbers > 0
        i, j, _, distances = find_pairs(np.asarray(system.positions, np.float64)[real], cell, pbc, r_max)
        chosen = (numbers[real][i] == first) & (numbers[real][j] == second)
        counts = np.histogram(distances[chosen], edges)[0] / n_first
        each.append(counts / shells * abs(np.linalg.det(cell)) / n_second)
        around += np.cumsum(counts)
    if not each:
        raise InputError("there are no configurations")
    g = np.array(each)
    stderr = np.full(n_bins, np.nan) if len(g) < 8 else np.array([over_blocks(row).stderr for row in g.T])
    return RadialDistribution(
        0.5 * (edges[1:] + edges[:-1]), g.mean(axis=0), stderr, around / len(each), len(each)
    )
