"""Energies and forces far outside of what the other frames have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.survey import Survey
from difmd.data.frames import is_isolated_atom
from difmd.data.references import least_absolute

# An outlier lies so many widths of the 5 % to 95 % interval outside of it.
_WIDTHS = 3.0

_FEWEST = 10


def check_outliers(s: Survey) -> Iterator[Finding]:
    """Energies and forces far outside of what the other frames have."""
    residual, unit = energy_residuals(s)
    known = np.flatnonzero(np.isfinite(residual))
    if len(known) < _FEWEST:
        yield Finding("energy outliers", Verdict.UNKNOWN, f"{len(known)} energies are too few to tell")
    else:
        # A model may explain so much that the rest has long tails, which is nothing to worry about.
        wide = 0.5 * _width(_by_composition(s)[known])
        beyond = np.where(np.abs(residual[known]) > wide, _beyond(residual[known]), 0.0)
        bad = known[beyond > 1]
        bad = bad[np.argsort(-np.abs(residual[bad]))]
        spread = f"90 % of {len(known)} frames lie within {1e3 * _width(residual[known]):.3g} meV/atom"
        if len(bad):
            yield Finding(
                "energy outliers",
                Verdict.WRONG if np.any(beyond > 3) else Verdict.DOUBTFUL,
                f"{spread} of {unit}, but {name_frames(s.frames, bad)} by up to "
                f"{1e3 * np.abs(residual[bad[0]]):.3g} meV/atom",
                "look whether these calculations converged, or whether their energies have another unit",
                tuple(bad),
            )
        else:
            yield Finding("energy outliers", Verdict.OK, f"{spread} of {unit}, none is far outside")
    largest = np.array(
        [
            np.abs(f.forces).max() if ok and f.forces is not None and f.n_atoms > 1 else np.nan
            for f, ok in zip(s.frames, s.usable, strict=True)
        ]
    )
    known = np.flatnonzero(np.isfinite(largest))
    if len(known) < _FEWEST:
        yield Finding(
            "force outliers", Verdict.UNKNOWN, f"{len(known)} frames with forces are too few to tell"
        )
        return
    usual = np.quantile(largest[known], 0.95)
    bad = known[largest[known] > 5 * usual]
    worst = int(known[np.argmax(largest[known])])
    summary = (
        f"largest component {largest[worst]:.3g} eV/Å in {name_frames(s.frames, [worst])}; in 95 % of frames "
        f"below {usual:.3g}"
    )
    if len(bad):
        yield Finding(
            "force outliers",
            Verdict.DOUBTFUL,
            f"{summary}; {len(bad)} frames above 5 times that",
            "look whether these calculations converged, or leave such frames out",
            tuple(bad[np.argsort(-largest[bad])]),
        )
    else:
        yield Finding("force outliers", Verdict.OK, summary)


def energy_residuals(s: Survey) -> tuple[np.ndarray, str]:
    """Energy per atom less what composition and the pair model explain [eV]; isolated atoms are left out.

    Returns:
        Residuals, NaN without; [frames]. And what they are taken from, in words.
    """
    residual = _by_composition(s)
    known = np.flatnonzero(np.isfinite(residual))
    model = s.model_energies[known] / s.sizes[known]
    if len(known) <= 20 or not np.isfinite(model).all():
        return residual, "what their composition explains"
    rows, values = composition(s, known)
    more = np.column_stack([rows, model])
    volumes = [s.frames[int(k)].volume for k in known]
    per_atom = np.array([np.nan if v is None else v for v in volumes]) / s.sizes[known]
    if np.isfinite(per_atom).all() and np.ptp(per_atom) > 1e-3 * per_atom.mean():
        # What depends on the density alone shows in no force.
        x = per_atom / np.median(per_atom)
        more = np.column_stack([more, x, 1 / x])
    finer = values - more @ least_absolute(more, values)[0]
    if _width(finer) > 0.8 * _width(residual[known]):
        return residual, "what their composition explains"
    residual[known] = finer
    return residual, "what composition, density and a pair potential explain"


def composition(s: Survey, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the elements in some frames, and their energies per atom [eV]."""
    elements = np.unique(np.concatenate([s.frames[int(k)].numbers for k in known]))
    rows = np.array([[np.mean(s.frames[int(k)].numbers == z) for z in elements] for k in known])
    return rows, s.energies[known] / s.sizes[known]


def _by_composition(s: Survey) -> np.ndarray:
    residual = np.full(len(s.frames), np.nan)
    alone = np.array([is_isolated_atom(frame) for frame in s.frames], bool)
    known = np.flatnonzero(np.isfinite(s.energies) & ~alone)
    if len(known):
        rows, values = composition(s, known)
        residual[known] = values - rows @ least_absolute(rows, values)[0]
    return residual


def _width(values: np.ndarray) -> float:
    low, high = np.quantile(values, [0.05, 0.95])
    return float(high - low)


def _beyond(values: np.ndarray) -> np.ndarray:
    """How far outside of the 5 % to 95 % interval, 1 at the bound of outliers."""
    low, high = np.quantile(values, [0.05, 0.95])
    # Repeats of one frame have no width of their own.
    width = max(high - low, 1e-6)
    return np.maximum(values - high, low - values) / (_WIDTHS * width)
