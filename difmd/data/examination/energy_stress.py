"""Is the stress the derivative of the energy? Told by frames that are strained copies of each other."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd import units
from difmd.data.examination.findings import Finding, Verdict
from difmd.data.examination.survey import Survey
from difmd.data.frames import Frame

ITEM = "energies along strains"

# Partners of a frame, and how much farther apart two may be for the trapezoid to hold: strain, and mean
# displacement of atoms against the strained lattice [Å].
_PARTNERS = 6
_STRAIN = (1e-3, 0.06)
_MOVED = 0.1

# What a pair is doubted by: noise of energies [eV/atom], and what the trapezoid leaves out of third order, as
# a fraction of what it takes in of second order.
_NOISE = 1e-4
_THIRD = 0.05

_FEWEST = 10
# Below it an offset is what k-points and cut-offs leave in sound sets [eV/Å³].
_SMALL = 0.3 * units.GPA
_SURE = 5.0

# Energies and stresses that are off by less have the same unit and sign.
_ALIKE = 0.3


class StressOffset(NamedTuple):
    """What energies say of stresses; made by `stress_offset`.

    Attributes:
        value: what has to be added to the diagonal of every stress [eV/Å³]; NaN where nothing can be told.
        stderr: its standard error by the scatter, as if pairs were independent [eV/Å³].
        slope: change of the energy over the work of forces and stresses, the offset mended.
        n_pairs: pairs of frames that tell.
    """

    value: float
    stderr: float
    slope: float
    n_pairs: int

    @property
    def is_significant(self) -> bool:
        """Whether it should be mended: from ten pairs, over five standard errors and 0.3 GPa."""
        return self.n_pairs >= _FEWEST and abs(self.value) > max(_SURE * self.stderr, _SMALL)


def stress_offset(frames: Sequence[Frame]) -> StressOffset:
    """A pressure that all stresses are off by, as incomplete basis sets leave it (Pulay stress).

    Between two frames a, b with the same atoms, which differ by a small strain ε and small displacements u
    beside it, the energy changes by the trapezoid

        E_b − E_a = ½ (V_a σ_a + V_b σ_b):ε − ½ (F_a + F_b)·u + p V tr ε,

    up to the third order; p follows by least squares, every pair weighed by what its terms of second order
    let expect of those of the third. These have the same sign for all pairs and grow as the square of the
    strains: with crystals strained by a few percent they come to 0.2 GPa, of which `stderr` knows nothing.

    Args:
        frames: with energies, forces and stresses; others are left out. Time grows as the square of the
            number of frames with the same atoms; of more than 2 000 evenly spaced ones are taken.

    Returns:
        `StressOffset`. It takes strained crystals, or dynamics with a cell that varies: without them there
        are no pairs.

    References:
        Francis & Payne, J. Phys.: Condens. Matter 2, 4395 (1990), doi:10.1088/0953-8984/2/19/007.
    """
    groups: dict[bytes, list[Frame]] = {}
    for frame in frames:
        if frame.energy is not None and frame.forces is not None and frame.stress is not None:
            if frame.volume is not None:
                groups.setdefault(np.asarray(frame.numbers).tobytes(), []).append(frame)
    found = [_pairs(group[:: -(-len(group) // 2000)]) for group in groups.values()]
    pairs = np.concatenate([np.zeros((0, 4)), *found])
    if len(pairs) < 2:
        return StressOffset(np.nan, np.nan, np.nan, len(pairs))
    change, work, expansion, doubt = pairs.T
    x, y = expansion / doubt, (change - work) / doubt
    norm = float(x @ x)
    if norm == 0:
        return StressOffset(np.nan, np.nan, np.nan, len(pairs))
    value = float(x @ y) / norm
    stderr = float(np.sqrt(np.mean((y - value * x) ** 2) / norm))
    mended = (work + value * expansion) / doubt
    slope = float(mended @ (change / doubt) / (mended @ mended)) if np.any(mended) else np.nan
    return StressOffset(value, stderr, slope, len(pairs))


def correct_stress(frames: Sequence[Frame], offset: StressOffset) -> list[Frame]:
    """Frames whose stresses agree with their energies.

    Args:
        frames: any; those without a stress stay as they are.
        offset: of `stress_offset`.

    Returns:
        New frames; the same where the offset is not significant.
    """
    if not offset.is_significant:
        return list(frames)
    added = offset.value * np.eye(3)
    return [f if f.stress is None else f.replace(stress=f.stress + added) for f in frames]


def check_energy_stress(s: Survey, exclude: Set[int]) -> Finding:
    """The finding on `stress_offset`, of usable frames that are not excluded."""
    found = stress_offset([f for k, f in enumerate(s.frames) if s.usable[k] and k not in exclude])
    if found.n_pairs < _FEWEST or not np.isfinite(found.value):
        return Finding(ITEM, Verdict.UNKNOWN, "too few frames are strained copies of others")
    if not abs(found.slope - 1) < _ALIKE:
        return Finding(
            ITEM,
            Verdict.UNKNOWN,
            f"energies change by {found.slope:.2f} times the work of forces and stresses ({found.n_pairs} "
            "pairs of frames): units and signs come first",
        )
    gpa = found.value / units.GPA
    summary = (
        f"energies follow from stresses to which {gpa:.2f} ± {found.stderr / units.GPA:.2f} GPa is added "
        f"({found.n_pairs} pairs of frames)"
    )
    if found.is_significant:
        return Finding(
            ITEM,
            Verdict.DOUBTFUL,
            summary,
            "frames = data.correct_stress(frames, data.stress_offset(frames)), or leave the stress out: a "
            "fit to both spoils both",
            tuple(k for k, f in enumerate(s.frames) if s.usable[k] and f.stress is not None),
        )
    return Finding(ITEM, Verdict.OK, summary)


def _pairs(frames: Sequence[Frame]) -> Float[np.ndarray, "pairs 4"]:
    """For pairs of frames: change of energy, work, V tr ε, how far it is doubted [eV, Å³, eV]; per atom."""
    if len(frames) < 2:
        return np.zeros((0, 4))
    cells = np.array([np.asarray(frame.system.cell, float) for frame in frames])
    places = np.array([np.asarray(frame.system.positions, float) for frame in frames]) @ np.linalg.inv(cells)
    forces = np.array([frame.forces for frame in frames])
    energies = np.array([frame.energy for frame in frames])
    volumes = np.abs(np.linalg.det(cells))
    virials = np.array([frame.stress for frame in frames]) * volumes[:, None, None]
    n_atoms = places.shape[1]
    found: dict[tuple[int, int], tuple[float, ...]] = {}
    for a in range(len(frames)):
        middle = 0.5 * (cells[a] + cells)
        gradient = np.linalg.solve(middle, cells - cells[a])
        strains = 0.5 * (gradient + np.swapaxes(gradient, 1, 2))
        sizes = np.linalg.norm(strains, axis=(1, 2))
        possible = np.flatnonzero((sizes > _STRAIN[0]) & (sizes < _STRAIN[1]))
        moved = places[possible] - places[a]
        # Whole lattice vectors do not count, nor does a shift of the whole frame.
        moved -= moved[:, :1]
        moved = (moved - np.round(moved)) @ middle[possible]
        moved -= moved.mean(axis=1, keepdims=True)
        far = np.sqrt(np.mean(np.sum(moved**2, axis=2), axis=1))
        order = np.argsort(sizes[possible] + far / _MOVED * _STRAIN[1])[:_PARTNERS]
        for k in order[far[order] < _MOVED]:
            b = int(possible[k])
            work = 0.5 * np.sum((virials[a] + virials[b]) * strains[b])
            work -= 0.5 * np.sum((forces[a] + forces[b]) * moved[k])
            expansion = 0.5 * (volumes[a] + volumes[b]) * np.trace(strains[b])
            second = 0.5 * np.sum(np.abs((virials[b] - virials[a]) * strains[b]))
            second += 0.5 * np.sum(np.abs((forces[b] - forces[a]) * moved[k]))
            sign = 1 if a < b else -1
            row = (sign * (energies[b] - energies[a]), sign * work, sign * expansion, _THIRD * second)
            found[min(a, b), max(a, b)] = tuple(x / n_atoms for x in row)
    pairs = np.array(list(found.values())).reshape(-1, 4)
    pairs[:, 3] += _NOISE
    return pairs
