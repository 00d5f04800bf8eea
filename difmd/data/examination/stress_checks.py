"""Check of sign, unit and order of the stress against the virial of a pair potential fitted to the forces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np

from difmd import units
from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.survey import Survey
from difmd.data.label_units import HARTREE
from difmd.units import BOHR

ITEM = "stress"
ORDER = "order of the shear stress"

_FACTORS = {"GPa": 1 / units.GPA, "kbar": 1 / (1e3 * units.BAR), "bar": 1 / units.BAR}
_FACTORS |= {"hartree/bohr³": BOHR**3 / HARTREE, "kcal/mol/Å³": 1 / units.KCAL_PER_MOL}

# Slopes of correct data are between 0.4 and 1.8.
_OFF = 4.0
_WEAK = 0.5
_FEWEST = 5


class _Stress(NamedTuple):
    """Labels and model of the frames with both; off-diagonal components yz, xz, xy."""

    frames: np.ndarray
    label_diagonal: np.ndarray
    model_diagonal: np.ndarray
    label_shear: np.ndarray
    model_shear: np.ndarray
    volumes: np.ndarray

    def select(self, mask: np.ndarray) -> _Stress:
        return _Stress(*(field[mask] for field in self))


def check_stress(s: Survey) -> Iterator[Finding]:
    """Report sign and unit, and the order of the off-diagonal components for each kind."""
    labelled = [
        k for k, f in enumerate(s.frames) if s.usable[k] and f.stress is not None and f.volume is not None
    ]
    if not labelled:
        yield Finding(ITEM, Verdict.UNKNOWN, "no periodic frame has a stress")
        return
    stresses = np.array([s.frames[k].stress for k in labelled])
    asymmetry = np.abs(stresses - np.swapaxes(stresses, 1, 2)).max(axis=(1, 2))
    skew = np.array(labelled)[asymmetry > 0.01 * np.abs(stresses).max(axis=(1, 2))].tolist()
    if skew:
        text = f"{len(skew)} of {len(labelled)} stresses are not symmetric: {name_frames(s.frames, skew)}"
        remedy = "check the order of the nine numbers, or use the symmetric part"
        yield Finding("symmetry of the stress", Verdict.DOUBTFUL, text, remedy, tuple(skew))
    compared = np.array([k for k in labelled if np.isfinite(s.model_stress[k]).all()], int)
    if len(compared) < _FEWEST or s.model is None or s.model.correlation < 0.6:
        yield Finding(ITEM, Verdict.UNKNOWN, "no pair potential describes the forces well enough")
        return
    parts = _parts(s, compared)
    yield _check_scale(s, parts)
    kinds = [s.frames[k].kind for k in compared]
    overall = _check_order(s, parts, "")
    findings = []
    for kind in sorted(set(kinds)):
        is_kind = np.array([other == kind for other in kinds])
        if is_kind.sum() >= _FEWEST and len(set(kinds)) > 1:
            findings.append(_check_order(s, parts.select(is_kind), f"in kind {kind!r} "))
    suspect = [finding for finding in findings if finding.verdict in (Verdict.WRONG, Verdict.DOUBTFUL)]
    # If the order is wrong in all kinds, it is reported once.
    is_common = overall.verdict is Verdict.WRONG and not any(f.verdict is Verdict.OK for f in findings)
    yield from [overall] if is_common or not suspect else suspect


def _check_scale(s: Survey, parts: _Stress) -> Finding:
    """Check sign and unit with the diagonal minus its mean, which the forces do not determine."""
    label, model = parts.label_diagonal.ravel(), parts.model_diagonal.ravel()
    correlation = float(label @ model / (np.sqrt((label @ label) * (model @ model)) + 1e-300))
    if abs(correlation) < _WEAK:
        text = f"the correlation with the virial of a pair potential is only {correlation:.2f}"
        return Finding(ITEM, Verdict.UNKNOWN, text)
    slope = float(label @ model / (model @ model))
    summary = (
        f"{slope:.3g} times the virial of a pair potential, without its mean (correlation {correlation:.2f}, "
        f"{len(parts.frames)} frames)"
    )
    causes, remedies = [], []
    if slope < 0:
        causes.append("of opposite sign: compression is positive")
        remedies.append("change the sign with a negative number in Units(stress=...)")
    if not 1 / _OFF < abs(slope) < _OFF:
        # For virials the ratio is the volume.
        candidates = _FACTORS | {"eV, a virial without the volume": float(np.median(parts.volumes))}
        gaps = {name: abs(np.log(abs(slope) / f)) for name, f in candidates.items()}
        least = min(gaps.values())
        near = [name for name, gap in gaps.items() if gap < least + 0.5 and gap < np.log(3)]
        causes.append(f"as if in {' or '.join(near)}" if near else "of an unknown unit")
        remedies.append("read with the right Units(stress=...) or Keys(virial=...)")
    if not causes:
        return Finding(ITEM, Verdict.OK, summary)
    summary += f": {', '.join(causes)}"
    return Finding(ITEM, Verdict.WRONG, summary, "; ".join(remedies), tuple(parts.frames))


def _check_order(s: Survey, parts: _Stress, where: str) -> Finding:
    """Determine the order of the off-diagonal components with the highest correlation with the model."""
    names = np.array(["yz", "xz", "xy"])
    label, model = parts.label_shear, parts.model_shear
    # The sign is checked separately.
    sign = np.sign(np.sum(parts.label_diagonal * parts.model_diagonal)) or 1.0
    scores = {order: sign * np.sum(label[:, order] * model, axis=1) for order in permutations(range(3))}
    as_is = scores[0, 1, 2]
    # For the significance, frames with large and small stress have similar weights.
    size = np.linalg.norm(label, axis=1) * np.linalg.norm(model, axis=1)
    size = size + np.median(size) + 1e-300
    norm = np.sqrt(np.sum(label**2) * np.sum(model**2)) + 1e-300
    correlation = as_is.sum() / norm
    best = max(scores, key=lambda order: scores[order].sum())
    summary = (
        f"{where}correlation with the virial of a pair potential {correlation:.2f} ({len(label)} frames)"
    )
    if best != (0, 1, 2) and _significance((scores[best] - as_is) / size) > 5:
        if scores[best].sum() / norm > 0.7:
            # label[:, best] follows the model, so the stored order is the inverse permutation.
            actual = names[np.argsort(best)]
            summary += f", but {scores[best].sum() / norm:.2f} if the components yz xz xy are read as "
            summary += " ".join(actual)
            remedy = "reorder the components: ASE has xx yy zz yz xz xy, VASP xx yy zz xy yz zx"
            return Finding(ORDER, Verdict.WRONG, summary, remedy, tuple(parts.frames))
    # Labels uncorrelated with a shear of typical size are suspect.
    strong = np.sum(model**2) > 0.1 * len(model) * np.median(np.sum(parts.model_diagonal**2, axis=1))
    if abs(correlation) < 0.3 and strong and where and len(label) >= 2 * _FEWEST:
        summary += ": the labels are uncorrelated in any order"
        remedy = "check convergence and order of the components of these frames, or ignore their stress"
        return Finding(ORDER, Verdict.DOUBTFUL, summary, remedy, tuple(parts.frames))
    others = [_significance((as_is - score) / size) for order, score in scores.items() if order != (0, 1, 2)]
    if correlation > _WEAK and min(others) > 3:
        return Finding(ORDER, Verdict.OK, summary)
    return Finding(ORDER, Verdict.UNKNOWN, f"{summary}: the orders cannot be distinguished")


def _parts(s: Survey, compared: np.ndarray) -> _Stress:
    label = np.array([s.frames[k].stress for k in compared])
    label = 0.5 * (label + np.swapaxes(label, 1, 2))
    model = s.model_stress[compared]
    diagonal, rows, columns = [0, 1, 2], [1, 0, 0], [2, 2, 1]

    def deviator(tensor: np.ndarray) -> np.ndarray:
        values = tensor[:, diagonal, diagonal]
        return values - values.mean(axis=1, keepdims=True)

    volumes = np.array([s.frames[k].volume for k in compared])
    return _Stress(
        compared, deviator(label), deviator(model), label[:, rows, columns], model[:, rows, columns], volumes
    )


def _significance(values: np.ndarray) -> float:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.inf
    return float(values.mean() / error) if error > 0 else 0.0
