"""Check that stresses are the derivative of the energies, from frames that are strained copies of others."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd import units
from difmd._internal.summaries import brief_repr
from difmd.data.examination.findings import Finding, Verdict
from difmd.data.examination.survey import Survey
from difmd.data.frames import Frame

ITEM = "energies along strains"

# Partners of a frame, and limits of the trapezoidal rule: strain, and mean displacement of atoms relative to
# the strained lattice [Å].
_PARTNERS = 6
_STRAIN = (1e-3, 0.06)
_MOVED = 0.1

# Uncertainty of a pair: noise of energies [eV/atom], and the terms of third order that the trapezoidal rule
# neglects, relative to those of second order.
_NOISE = 1e-4
_THIRD = 0.05

_FEWEST = 10
# Smaller offsets occur in converged data because of k-points and cut-offs [eV/Å³].
_SMALL = 0.3 * units.GPA
_SIGNIFICANT = 5.0

# Largest deviation of the slope from 1 for energies and stresses of the same unit and sign.
_ALIKE = 0.3


@brief_repr
class StressOffset(NamedTuple):
    """Offset of the stresses relative to the energies; made by `stress_offset`.

    Attributes:
        value: to be added to the diagonal of every stress [eV/Å³]; NaN if it is undetermined.
        stderr: its standard error from the scatter, as if pairs were independent [eV/Å³].
        slope: change of the energy over the work of forces and corrected stresses.
        n_pairs: pairs of frames used.
    """

    value: float
    stderr: float
    slope: float
    n_pairs: int

    @property
    def is_significant(self) -> bool:
        """Whether a correction is advisable: at least 10 pairs, and above 5 standard errors and 0.3 GPa."""
        return self.n_pairs >= _FEWEST and abs(self.value) > max(_SIGNIFICANT * self.stderr, _SMALL)


def stress_offset(frames: Sequence[Frame]) -> StressOffset:
    """The error of the pressure in all stresses, such as the Pulay stress of incomplete basis sets.

    Between two frames a, b with the same atoms, which differ by a small strain ε and additional small
    displacements u, the trapezoidal rule gives the change of the energy as

        E_b − E_a = ½ (V_a σ_a + V_b σ_b):ε − ½ (F_a + F_b)·u + p V tr ε,

    up to terms of third order; p follows by least squares, with the weight of a pair from its terms of second
    order. The neglected terms have the same sign for all pairs and grow with the square of the strains: for
    strains of a few percent they amount to 0.2 GPa, which `stderr` does not include.

    Args:
        frames: with energies, forces and stresses; others are ignored. The time is quadratic in the number of
            frames with the same atoms; of more than 2 000, evenly spaced frames are used.

    Returns:
        `StressOffset`. Without strained crystals or dynamics with a variable cell there are no pairs.

    References:
        Francis & Payne, J. Phys.: Condens. Matter 2, 4395 (1990), doi:10.1088/0953-8984/2/19/007.
    """
    groups: dict[bytes, list[Frame]] = {}
    for frame in frames:
        if frame.energy is not None and frame.forces is not None and frame.stress is not None:
            if frame.volume is not None:
                groups.setdefault(frame.numbers.tobytes(), []).append(frame)
    of_groups = [_pairs(group[:: -(-len(group) // 2000)]) for group in groups.values()]
    pairs = np.concatenate([np.zeros((0, 4)), *of_groups])
    change, work, expansion, uncertainty = pairs.T
    x, y = expansion / uncertainty, (change - work) / uncertainty
    norm = float(x @ x)
    if len(pairs) < 2 or norm == 0:
        return StressOffset(np.nan, np.nan, np.nan, len(pairs))
    value = float(x @ y) / norm
    stderr = float(np.sqrt(np.mean((y - value * x) ** 2) / norm))
    corrected = (work + value * expansion) / uncertainty
    square = float(corrected @ corrected)
    slope = float(corrected @ (change / uncertainty) / square) if square else np.nan
    return StressOffset(value, stderr, slope, len(pairs))


def correct_stress(frames: Sequence[Frame], offset: StressOffset) -> list[Frame]:
    """Add the offset to the stresses, so that they agree with the energies.

    Args:
        frames: those without a stress are not changed.
        offset: of `stress_offset`.

    Returns:
        New frames; the given frames if the offset is not significant.
    """
    if not offset.is_significant:
        return list(frames)
    added = offset.value * np.eye(3)
    return [f if f.stress is None else f.replace(stress=f.stress + added) for f in frames]


def check_energy_stress(s: Survey, exclude: Set[int]) -> Finding:
    """Report the `stress_offset` of usable frames that are not excluded."""
    offset = stress_offset([f for k, f in enumerate(s.frames) if s.usable[k] and k not in exclude])
    if offset.n_pairs < _FEWEST or not np.isfinite(offset.value):
        return Finding(ITEM, Verdict.UNKNOWN, "too few frames are strained copies of others")
    if not abs(offset.slope - 1) < _ALIKE:
        text = f"energies change by {offset.slope:.2f} times the work of forces and stresses ("
        text += f"{offset.n_pairs} pairs of frames): check units and signs first"
        return Finding(ITEM, Verdict.UNKNOWN, text)
    gpa = offset.value / units.GPA
    summary = (
        f"energies agree with stresses plus {gpa:.2f} ± {offset.stderr / units.GPA:.2f} GPa "
        f"({offset.n_pairs} pairs of frames)"
    )
    if not offset.is_significant:
        return Finding(ITEM, Verdict.OK, summary)
    remedy = (
        "frames = data.correct_stress(frames, data.stress_offset(frames)), or ignore the stress: a fit to "
        "inconsistent labels deteriorates both"
    )
    stressed = tuple(k for k, f in enumerate(s.frames) if s.usable[k] and f.stress is not None)
    return Finding(ITEM, Verdict.DOUBTFUL, summary, remedy, stressed)


def _pairs(frames: Sequence[Frame]) -> Float[np.ndarray, "pairs 4"]:
    """For pairs of frames: change of energy, work, V tr ε and uncertainty [eV, eV, Å³, eV], per atom."""
    if len(frames) < 2:
        return np.zeros((0, 4))
    cells = np.array([frame.cell for frame in frames], float)
    fractional = np.array([frame.positions for frame in frames], float) @ np.linalg.inv(cells)
    forces = np.array([frame.forces for frame in frames])
    energies = np.array([frame.energy for frame in frames])
    volumes = np.abs(np.linalg.det(cells))
    virials = np.array([frame.stress for frame in frames]) * volumes[:, None, None]
    n_atoms = fractional.shape[1]
    rows: dict[tuple[int, int], tuple[float, ...]] = {}
    for a in range(len(frames)):
        middle = 0.5 * (cells[a] + cells)
        gradient = np.linalg.solve(middle, cells - cells[a])
        strains = 0.5 * (gradient + np.swapaxes(gradient, 1, 2))
        sizes = np.linalg.norm(strains, axis=(1, 2))
        possible = np.flatnonzero((sizes > _STRAIN[0]) & (sizes < _STRAIN[1]))
        moved = fractional[possible] - fractional[a]
        # Lattice vectors are subtracted, and so is a translation of all atoms.
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
            rows[min(a, b), max(a, b)] = tuple(x / n_atoms for x in row)
    pairs = np.array(list(rows.values())).reshape(-1, 4)
    pairs[:, 3] += _NOISE
    return pairs
