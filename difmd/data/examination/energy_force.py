"""Check that forces are the derivative of the energies, from frames that are close to each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.geometry import displacement
from difmd.data.examination.survey import Survey
from difmd.data.label_units import ENERGY_FACTORS, HARTREE
from difmd.units import BOHR

ITEM = "forces = −dE/dr"

# Limits on the displacement of atoms between two compared frames [Å]; the smallest sufficient one is used.
_FARTHEST = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8)

# The error of the trapezoidal rule is cubic in the displacement and negligible below this [Å].
_NEAR = 0.03

_FEWEST = 10
_SIGMA = 5.0
_TOLERANCE = 0.1


class Slope(NamedTuple):
    """Slope of energy differences against the work of the forces; 1 if they agree."""

    value: float  # ΔE over −½(F₁ + F₂)·Δr, weighted
    error: float  # standard error, that of the trapezoidal rule included
    pairs: int  # number of pairs of frames
    worst: np.ndarray  # first frame of each pair, the worst pair first


def energy_force_slope(s: Survey, exclude: set[int]) -> Slope | None:
    """Slope of ΔE against −½(F₁ + F₂)·Δr over consecutive frames close to each other; None for too few pairs.

    The trapezoidal rule is exact for a harmonic energy. Its error for the pair model is subtracted with a
    fitted factor; a third of this correction enters the error.
    """
    rows = []
    for k in range(len(s.frames) - 1):
        a, b = s.frames[k], s.frames[k + 1]
        if k in exclude or k + 1 in exclude or not (s.usable[k] and s.usable[k + 1]) or a.n_atoms == 1:
            continue
        if a.energy is None or b.energy is None or a.forces is None or b.forces is None:
            continue
        moved = displacement(a, b)
        if moved is None:
            continue
        shift, rotation = moved
        size = np.sqrt(np.mean(shift**2))
        if np.abs(shift).max() > _FARTHEST[-1] or size < 1e-6:
            continue
        work = -0.5 * np.sum((a.forces + b.forces @ rotation) * shift)
        error = 0.0
        first, second = s.model_forces[k], s.model_forces[k + 1]
        if first is not None and second is not None:
            change = s.model_energies[k + 1] - s.model_energies[k]
            error = change + 0.5 * np.sum((first + second @ rotation) * shift)
        rows.append((b.energy - a.energy, work, error, size, np.abs(shift).max(), k))
    slope = None
    for farthest in _FARTHEST:
        near = [row for row in rows if row[4] <= farthest]
        slope = (_fit(np.array(near)) if len(near) >= _FEWEST else None) or slope
        if slope is not None and is_determined(slope):
            break
    return slope


def is_determined(slope: Slope) -> bool:
    """Whether a deviation of 10 % would be detected."""
    return slope.error < _TOLERANCE * max(abs(slope.value), 1e-9)


def _fit(rows: np.ndarray) -> Slope | None:
    """Robust slope from rows [pairs, 6]: ΔE, work, model's trapezoidal error, rms and largest Δr, frame."""
    change, work, error, size = rows.T[:4]
    weight = 1 / (size**3 + _NEAR**3) ** 2
    trust = np.ones(len(rows))
    columns = np.column_stack([work, error])
    # Without a model, or if all frames are harmonic, there is no second column.
    if np.abs(error).max() <= 1e-9 * np.abs(work).max():
        columns = columns[:, :1]
    for _ in range(20):
        w = weight * trust
        square = (columns.T * w) @ columns
        if not np.linalg.cond(square) < 1e12:
            return None
        inverse = np.linalg.inv(square)
        solution = inverse @ (columns.T @ (w * change))
        # In units of their typical size, to reduce the weight of outliers.
        residual = np.sqrt(weight) * (change - columns @ solution)
        usual = 1.4826 * np.median(np.abs(residual)) + 1e-300
        trust = np.minimum(1.0, 3 * usual / (np.abs(residual) + 1e-300))
    w = weight * trust
    influence = (inverse @ (columns.T * w))[0]
    share = np.abs(influence * work)
    effective = share.sum() ** 2 / np.sum(share**2) - columns.shape[1]
    if effective < 2:
        return None
    statistical = np.sqrt(np.sum((influence * (change - columns @ solution)) ** 2) * (1 + 3 / effective))
    # The remaining error of the trapezoidal rule may be a third of the correction.
    correction = (w * work) @ (columns @ solution - solution[0] * work) / ((w * work) @ work)
    total = float(np.hypot(statistical, correction / 3))
    return Slope(float(solution[0]), total, len(rows), rows[np.argsort(-np.abs(residual)), -1].astype(int))


def check_energy_forces(s: Survey, exclude: set[int]) -> Finding:
    """Compare energy differences with forces, or with the pair model if no frames are close to each other."""
    slope = energy_force_slope(s, exclude)
    labelled = tuple(np.flatnonzero(np.isfinite(s.energies) & np.isfinite(s.force_rms)).tolist())
    if slope is not None and is_determined(slope):
        value, error, n_pairs, worst = slope
        summary = f"ΔE / (−½(F₁+F₂)·Δr) = {value:.3f} ± {error:.3f} from {n_pairs} pairs of frames"
        off = abs(value - 1)
        if off <= _TOLERANCE or off < _SIGMA * error:
            return Finding(ITEM, Verdict.OK, summary)
        unit = name_factor(value, 1.15)
        verdict = Verdict.WRONG if unit or off > 0.5 else Verdict.DOUBTFUL
        summary += (f": {unit}" if unit else "") + f"; such as {name_frames(s.frames, worst, 1)}"
        remedy = "check units, and whether the forces are the derivative of this energy (the free energy is)"
        if unit:
            remedy = "read with the right Units(energy=..., forces=...)"
        return Finding(ITEM, verdict, summary, remedy, labelled)
    why = "no frames are close to each other"
    if slope is not None:
        why = f"{slope.pairs} pairs of frames are too far apart (slope {slope.value:.2f} ± {slope.error:.2f})"
    coarse = _model_slope(s, exclude)
    if coarse is None:
        return Finding(ITEM, Verdict.UNKNOWN, why)
    ratio, correlation, n = coarse
    summary = (
        f"{why}; energies vary {ratio:.2g} times as much as those of a pair potential fitted to the forces "
        f"(correlation {correlation:.2f}, {n} frames)"
    )
    # The error of the pair potential in covalent crystals is up to a factor of 5. At a low correlation the
    # spread is less reliable than the slope, correlation × ratio.
    if ratio > 1 / 8 and correlation * ratio < 8:
        return Finding(ITEM, Verdict.OK, f"{summary}, so the units agree; 10 % would not be detected")
    unit = name_factor(ratio, 2.5)
    summary += f": {unit}?" if unit else ""
    remedy = "check the units of energies and forces: read with Units(energy=..., forces=...)"
    return Finding(ITEM, Verdict.DOUBTFUL, summary, remedy, labelled)


def name_factor(ratio: float, within: float) -> str:
    """The wrong unit of energies or forces that explains a ratio, "" if none does."""
    candidates = {f"energies in {name} instead of eV": f for name, f in ENERGY_FACTORS.items()}
    candidates |= {f"forces in {name}/Å instead of eV/Å": 1 / f for name, f in ENERGY_FACTORS.items()}
    candidates |= {"forces in hartree/bohr instead of eV/Å": HARTREE / BOHR, "positions in bohr": BOHR}
    candidates |= {"forces in eV/bohr instead of eV/Å": 1 / BOHR, "forces of opposite sign": -1.0}
    candidates["energies in hartree and forces in hartree/bohr"] = 1 / BOHR
    apart = {name: abs(np.log(ratio / f)) if ratio * f > 0 else np.inf for name, f in candidates.items()}
    least = min(apart.values())
    if least > np.log(within):
        return ""
    # All causes that the data cannot distinguish.
    return " or ".join(name for name, gap in apart.items() if gap < least + np.log(1 + (within - 1) / 4))


def _model_slope(s: Survey, exclude: set[int]) -> tuple[float, float, int] | None:
    """Spread of energies over that of the model, for equal composition and cell; correlation, number."""
    groups: dict[bytes, list[int]] = {}
    for k in np.flatnonzero(np.isfinite(s.energies) & np.isfinite(s.model_energies)):
        if int(k) not in exclude:
            frame = s.frames[int(k)]
            key = frame.numbers.tobytes() + np.round(frame.cell, 3).tobytes()
            groups.setdefault(key, []).append(int(k))
    label: list[float] = []
    model: list[float] = []
    for members in groups.values():
        if len(members) >= 5:
            label.extend(s.energies[members] - np.median(s.energies[members]))
            model.extend(s.model_energies[members] - np.median(s.model_energies[members]))
    if len(label) < 20 or not np.any(model) or not np.any(label):
        return None
    e, m = np.array(label), np.array(model)
    correlation = float(np.corrcoef(e, m)[0, 1])
    if abs(correlation) < 0.5 or s.model is None or s.model.correlation < 0.7:
        return None
    spread = [float(np.subtract(*np.quantile(values, [0.9, 0.1]))) for values in (e, m)]
    return float(np.sign(correlation) * spread[0] / spread[1]), abs(correlation), len(e)
