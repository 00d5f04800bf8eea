"""Radial distribution functions of configurations, on the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from difmd._internal.argument_checks import check_integer
from difmd._internal.summaries import summary
from difmd.errors import InputError, check_positive
from difmd.neighbors import find_pairs
from difmd.observables.statistics import over_blocks
from difmd.system import System, as_system, atomic_number
from difmd.trajectory.trajectory import Trajectory

if TYPE_CHECKING:
    import ase


class RadialDistribution(NamedTuple):
    """g(r) of one pair of species.

    Attributes:
        r: centres of the bins [Å]; [bins].
        g: mean over the configurations; [bins].
        stderr: standard error of a correlated series, see `over_blocks`; NaN for fewer than 8
            configurations; [bins].
        coordination: mean number of atoms of the second species around an atom of the first, up to the outer
            edge of each bin; [bins].
        n_frames: number of configurations.
    """

    r: Float[np.ndarray, "bins"]
    g: Float[np.ndarray, "bins"]
    stderr: Float[np.ndarray, "bins"]
    coordination: Float[np.ndarray, "bins"]
    n_frames: int

    def __repr__(self) -> str:
        """Range, number of configurations and the highest bin."""
        top = int(np.argmax(self.g))
        width = self.r[1] - self.r[0] if len(self.r) > 1 else 2 * self.r[0]
        rows = {
            "configurations": self.n_frames,
            "bins": f"{len(self.r)} of {width:.3g} Å",
            "maximum": f"g({self.r[top]:.3f} Å) = {self.g[top]:.3f}",
        }
        return summary("RadialDistribution", rows)

    def peak(self, low: float, high: float) -> float:
        """Position of the maximum of g between two distances, from a parabola through the top of the peak.

        Args:
            low: [Å].
            high: [Å].

        Returns:
            [Å].

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
    systems: Trajectory | System | ase.Atoms | Iterable[System | ase.Atoms],
    *,
    first: int | str,
    second: int | str,
    r_max: float = 6.0,
    n_bins: int = 150,
) -> RadialDistribution:
    """Density of atoms of one species around those of another, relative to its mean (host).

    Images are counted individually, so that `r_max` may exceed half of the cell.

    Args:
        systems: a trajectory or configurations, periodic in all directions; averaged over replicas.
        first: symbol or atomic number of the central atoms.
        second: symbol or atomic number of the atoms around them.
        r_max: largest distance [Å].
        n_bins: number of bins of equal width.

    Returns:
        `RadialDistribution`. The mean density is N/V with all atoms of the second species.

    Raises:
        InputError: no configurations, one that is not periodic or lacks the species, or r_max or n_bins not
            positive.
    """
    check_positive("r_max", r_max, "Å")
    check_integer("n_bins", n_bins)
    pair = (atomic_number(first), atomic_number(second))
    edges = np.linspace(0, r_max, n_bins + 1)
    shells = 4 * np.pi / 3 * np.diff(edges**3)
    each, around = [], np.zeros(n_bins)
    for number, replicas in enumerate(_frames(systems)):
        counted = [_counts(replica, *pair, edges, f"configuration {number}") for replica in replicas]
        counts, density = np.array([c for c, _ in counted]), np.array([d for _, d in counted])
        each.append(np.mean(counts / shells / density[:, None], axis=0))
        around += np.cumsum(counts.mean(axis=0))
    if not each:
        raise InputError("there are no configurations")
    g = np.array(each)
    stderr = np.full(n_bins, np.nan) if len(g) < 8 else np.array([over_blocks(row).stderr for row in g.T])
    r = 0.5 * (edges[1:] + edges[:-1])
    return RadialDistribution(r, g.mean(axis=0), stderr, around / len(each), len(each))


def _frames(source: Any) -> Iterator[list[System]]:
    """The replicas of each frame."""
    if isinstance(source, Trajectory):
        host = jax.tree.map(np.asarray, source.system)
        for n, positions in enumerate(source.positions):
            cell = host.cell if source.cells is None else source.cells[n]
            yield _unstacked(host.replace(positions=positions, cell=cell))
    else:
        is_single = isinstance(source, System) or hasattr(source, "get_atomic_numbers")
        for item in [source] if is_single else source:
            yield _unstacked(as_system(item))


def _unstacked(system: System) -> list[System]:
    if system.positions.ndim == 2:
        return [system]
    return [jax.tree.map(lambda x, n=n: x[n], system) for n in range(len(system.positions))]


def _counts(
    system: System, first: int, second: int, edges: np.ndarray, name: str
) -> tuple[np.ndarray, float]:
    """Mean number of second atoms in each shell around a first one, and their density [1/Å³]."""
    numbers = np.asarray(system.atomic_numbers)
    cell, pbc = np.asarray(system.cell, np.float64), np.asarray(system.pbc)
    n_first, n_second = int(np.sum(numbers == first)), int(np.sum(numbers == second))
    if not pbc.all():
        raise InputError(f"{name} is not periodic in all directions: it has no density")
    if not (n_first and n_second):
        raise InputError(f"{name} has no atoms of atomic number {second if n_first else first}")
    real = numbers > 0
    i, j, _, distances = find_pairs(np.asarray(system.positions, np.float64)[real], cell, pbc, edges[-1])
    chosen = (numbers[real][i] == first) & (numbers[real][j] == second)
    counts = np.histogram(distances[chosen], edges)[0] / n_first
    return counts, n_second / abs(np.linalg.det(cell))
