"""Check of units: of frames relative to the others, and of all frames."""

from __future__ import annotations

import numpy as np

from difmd import units
from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.outliers import composition_residuals
from difmd.data.examination.survey import Survey
from difmd.data.label_units import ENERGY_FACTORS, HARTREE
from difmd.units import BOHR

_FORCE = {f"{name}/Å": factor for name, factor in ENERGY_FACTORS.items()}
_FORCE |= {"hartree/bohr": BOHR / HARTREE, "rydberg/bohr": 2 * BOHR / HARTREE}

# Below this fraction of the typical force the direction of a force is unreliable.
_SMALL = 0.1

_NO_MODEL = "there are too few forces, or no pair potential describes them well enough"

# About halfway to the smallest factor, 13.6, on a logarithmic scale.
_FORCE_OFF = 5.0
_ENERGY_OFF = 3.0

# Prior for the stiffness of bonds relative to `_expected_stiffness` and for the temperature of the data:
# medians and widths of the logarithm, from the data sets in the tests of difmd.
_STIFFNESS = (-0.5, 0.8)
_TEMPERATURE = (700.0, 1.0)

# Last elements of the rows of the periodic table, and sizes d of Badger's rule [Å] by row.
_ROWS = np.array([2, 10, 18, 36, 54, 86])
_BADGER = np.array([0.0, 0.34, 0.62, 0.8, 0.92, 0.96, 1.0])
_BADGER_FORCE = 11.6  # 1.86 mdyn/Å · Å³, in eV Å


def check_mixed_energies(s: Survey) -> Finding:
    """Report frames whose energies differ from the others by the factor of a unit."""
    item = "consistent unit of energy"
    residual = composition_residuals(s)
    known = np.flatnonzero(np.isfinite(residual))
    if len(known) < 10:
        return Finding(item, Verdict.UNKNOWN, f"{len(known)} energies are too few")
    values = s.energies[known] / s.sizes[known]
    expected = values - residual[known]
    spread = 1.4826 * np.median(np.abs(residual[known]))
    if not np.median(np.abs(expected)) > 5 * spread:
        return Finding(item, Verdict.UNKNOWN, "energies vary too much to detect a factor")
    ratio = values / expected
    off = np.flatnonzero((ratio > _ENERGY_OFF) | ((ratio < 1 / _ENERGY_OFF) & (ratio > 0)))
    if not len(off):
        return Finding(item, Verdict.OK, "all energies have similar magnitudes for their composition")
    unit = _nearest(float(np.median(ratio[off])), ENERGY_FACTORS, 1.2)
    bad = known[off]
    text = f"{len(bad)} of {len(known)} energies are about {np.median(ratio[off]):.4g} times the others"
    text += (f", as if in {unit}" if unit else "") + f": {name_frames(s.frames, bad)}"
    verdict = Verdict.WRONG if unit else Verdict.DOUBTFUL
    return Finding(item, verdict, text, "convert these frames, or exclude them", tuple(bad))


def check_mixed_forces(s: Survey) -> Finding:
    """Report frames whose forces differ from the others by the factor of a unit."""
    item = "consistent unit of force"
    typical = np.nanmedian(s.force_rms) if np.isfinite(s.force_rms).any() else np.nan
    with np.errstate(invalid="ignore"):
        known = np.flatnonzero((s.match > 0.6) & (s.force_rms > _SMALL * typical / 30))
    if len(known) < 10 or s.model is None or s.model.correlation < 0.5:
        return Finding(item, Verdict.UNKNOWN, _NO_MODEL)
    scale = s.scale[known] / np.median(s.scale[known])
    big = s.force_rms[known] > _SMALL * typical
    off = np.flatnonzero((scale > _FORCE_OFF) | ((scale < 1 / _FORCE_OFF) & (big | (scale > 1 / 60))))
    factor = float(np.median(scale[off])) if len(off) else 1.0
    unit = _nearest(factor, _FORCE, 1.4)
    # The model is also inaccurate for unusual structures, without a particular factor.
    if not unit:
        low, high = np.quantile(scale, [0.01, 0.99])
        text = f"forces are {low:.2f} to {high:.2f} times a pair potential in 98 % of {len(known)} frames"
        return Finding(item, Verdict.OK, text)
    bad = known[off]
    text = (
        f"forces of {len(bad)} of {len(known)} frames are about {factor:.3g} times as large as in the "
        f"others, as if in {unit}: {name_frames(s.frames, bad)}"
    )
    return Finding(item, Verdict.WRONG, text, "convert these frames, or exclude them", tuple(bad))


def check_absolute_units(s: Survey) -> Finding:
    """Check whether the forces correspond to typical bonds and temperatures.

    The stiffness of bonds is compared with Badger's rule (J. Chem. Phys. 2, 128 (1934),
    doi:10.1063/1.1749433) in the form k = 1.86 mdyn/Å · (r/Å − d)^-3, divided by a quarter of
    the coordination number if that is above four. The temperature is kT = ⟨F²⟩/⟨∇²U⟩ (Butler, Ayton, Jepps &
    Evans, J. Chem. Phys. 109, 6519 (1998), doi:10.1063/1.477301), with the Laplacian of the pair potential.
    """
    item = "size of the forces"
    if s.model is None or s.model.correlation < 0.5:
        return Finding(item, Verdict.UNKNOWN, _NO_MODEL)
    known = np.isfinite(s.laplacians) & np.isfinite(s.force_rms)
    squares = np.sum(3 * s.sizes[known] * s.force_rms[known] ** 2)
    curvature = np.sum(s.laplacians[known])
    logs, counts = [], []
    for (a, b), bonds in s.bonds.items():
        expected = _expected_stiffness(a, b, bonds.distance, bonds.coordination)
        if bonds.stiffness > 0 and expected > 0:
            logs.append(np.log(bonds.stiffness / expected))
            counts.append(bonds.number)
    if not logs or not curvature > 0:
        return Finding(item, Verdict.UNKNOWN, "there are no bonds to compare")
    temperature = squares / curvature / units.KB
    order = np.argsort(logs)
    share = np.cumsum(np.array(counts)[order]) / np.sum(counts)
    stiffness = float(np.array(logs)[order][np.searchsorted(share, 0.5)])
    summary = (
        f"bonds are {np.exp(stiffness):.2g} times as stiff as in Badger's rule, and the forces correspond "
        f"to about {temperature:.3g} K"
    )
    fit = {"eV": _surprise(stiffness, temperature, 1.0)}
    for name in ("kcal/mol/Å", "hartree/Å", "hartree/bohr", "rydberg/bohr"):
        fit[name] = _surprise(stiffness, temperature, _FORCE[name])
    best = min(fit, key=lambda name: fit[name])
    if fit["eV"] - fit[best] > 8:
        summary += f": units such as {best} would be more typical than eV/Å"
        remedy = "compare the units of energies and forces with the calculation: read with Units(energy=...)"
        return Finding(item, Verdict.DOUBTFUL, summary, remedy, tuple(np.flatnonzero(known)))
    return Finding(item, Verdict.OK, summary)


def _surprise(stiffness: float, temperature: float, factor: float) -> float:
    """Squared deviations from typical values if the forces are too large by `factor`."""
    middle, width = _STIFFNESS
    typical, spread = _TEMPERATURE
    stiff = (stiffness - np.log(factor) - middle) / width
    # Low temperatures are typical, too.
    hot = max(0.0, np.log(temperature / factor / typical) / spread)
    return float(stiff**2 + hot**2)


def _expected_stiffness(a: int, b: int, distance: float, coordination: float) -> float:
    sizes = _BADGER[np.searchsorted(_ROWS, [a, b])].sum()
    # H–H has d = 0.025 Å.
    reduced = max(distance - sizes - 0.025, 0.3)
    return _BADGER_FORCE / reduced**3 / max(1.0, coordination / 4)


def _nearest(factor: float, known: dict[str, float], within: float) -> str:
    """Name of the unit with this factor; the wrong unit may also be that of the other frames."""
    gaps = {name: abs(np.log(factor / f)) for name, f in known.items()}
    gaps |= {f"eV, the others in {name}": abs(np.log(factor * f)) for name, f in known.items()}
    best = min(gaps, key=lambda name: gaps[name])
    return best if gaps[best] < np.log(within) else ""
