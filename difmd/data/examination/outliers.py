"""Check for outliers of energies and forces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.survey import Survey
from difmd.data.frames import is_isolated_atom
from difmd.data.references import least_absolute

# Distance of an outlier from the 5 % to 95 % interval, in widths of the interval.
_WIDTHS = 3.0

_FEWEST = 10


def check_outliers(s: Survey) -> Iterator[Finding]:
    """Report energies and forces far outside of the range of the other frames."""
    residual, unit = energy_residuals(s)
    known = np.flatnonzero(np.isfinite(residual))
    if len(known) < _FEWEST:
        yield Finding("energy outliers", Verdict.UNKNOWN, f"{len(known)} energies are too few")
    else:
        # If a model explains most of the energy, long tails of the residuals are harmless.
        wide = 0.5 * _width(composition_residuals(s)[known])
        beyond = np.where(np.abs(residual[known]) > wide, _beyond(residual[known]), 0.0)
        bad = known[beyond > 1]
        bad = bad[np.argsort(-np.abs(residual[bad]))]
        spread = f"90 % of {len(known)} frames lie within {1e3 * _width(residual[known]):.3g} meV/atom"
        if len(bad):
            verdict = Verdict.WRONG if np.any(beyond > 3) else Verdict.DOUBTFUL
            text = f"{spread} of {unit}, but {name_frames(s.frames, bad)} by up to "
            text += f"{1e3 * np.abs(residual[bad[0]]):.3g} meV/atom"
            remedy = "check whether these calculations converged, and the unit of their energies"
            yield Finding("energy outliers", verdict, text, remedy, tuple(bad))
        else:
            yield Finding("energy outliers", Verdict.OK, f"{spread} of {unit}, without outliers")
    largest = np.full(len(s.frames), np.nan)
    for k, frame in enumerate(s.frames):
        if s.usable[k] and frame.forces is not None and frame.n_atoms > 1:
            largest[k] = np.abs(frame.forces).max()
    known = np.flatnonzero(np.isfinite(largest))
    if len(known) < _FEWEST:
        yield Finding("force outliers", Verdict.UNKNOWN, f"{len(known)} frames with forces are too few")
        return
    usual = np.quantile(largest[known], 0.95)
    bad = known[largest[known] > 5 * usual]
    worst = int(known[np.argmax(largest[known])])
    summary = (
        f"largest component {largest[worst]:.3g} eV/Å in {name_frames(s.frames, [worst])}; in 95 % of frames "
        f"below {usual:.3g}"
    )
    if len(bad):
        summary += f"; {len(bad)} frames above 5 times that"
        remedy = "check whether these calculations converged, or exclude such frames"
        frames = tuple(bad[np.argsort(-largest[bad])])
        yield Finding("force outliers", Verdict.DOUBTFUL, summary, remedy, frames)
    else:
        yield Finding("force outliers", Verdict.OK, summary)


def energy_residuals(s: Survey) -> tuple[np.ndarray, str]:
    """Energy per atom relative to a fit [eV], NaN for isolated atoms or without energy; name of the fit."""
    residual = composition_residuals(s)
    known = np.flatnonzero(np.isfinite(residual))
    model = s.model_energies[known] / s.sizes[known]
    if len(known) <= 20 or not np.isfinite(model).all():
        return residual, "a fit to the composition"
    rows, values = _composition(s, known)
    columns = np.column_stack([rows, model])
    per_atom = np.array([s.frames[int(k)].volume for k in known], float) / s.sizes[known]
    if np.isfinite(per_atom).all() and np.ptp(per_atom) > 1e-3 * per_atom.mean():
        # Terms that depend on the density alone exert no forces.
        x = per_atom / np.median(per_atom)
        columns = np.column_stack([columns, x, 1 / x])
    finer = values - columns @ least_absolute(columns, values)[0]
    if _width(finer) > 0.8 * _width(residual[known]):
        return residual, "a fit to the composition"
    residual[known] = finer
    return residual, "a fit to composition, density and a pair potential"


def _composition(s: Survey, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Atomic fractions of the elements in frames, and their energies per atom [eV]."""
    elements = np.unique(np.concatenate([s.frames[int(k)].numbers for k in known]))
    rows = np.array([[np.mean(s.frames[int(k)].numbers == z) for z in elements] for k in known])
    return rows, s.energies[known] / s.sizes[known]


def composition_residuals(s: Survey) -> np.ndarray:
    """Energy per atom relative to a fit to the composition [eV]; NaN for isolated atoms or without energy."""
    residual = np.full(len(s.frames), np.nan)
    is_single = np.array([is_isolated_atom(frame) for frame in s.frames], bool)
    known = np.flatnonzero(np.isfinite(s.energies) & ~is_single)
    if len(known):
        rows, values = _composition(s, known)
        residual[known] = values - rows @ least_absolute(rows, values)[0]
    return residual


def _width(values: np.ndarray) -> float:
    low, high = np.quantile(values, [0.05, 0.95])
    return float(high - low)


def _beyond(values: np.ndarray) -> np.ndarray:
    """Distance from the 5 % to 95 % interval, 1 at the limit of outliers."""
    low, high = np.quantile(values, [0.05, 0.95])
    # Duplicates of one frame have no width.
    width = max(high - low, 1e-6)
    return np.maximum(values - high, low - values) / (_WIDTHS * width)
