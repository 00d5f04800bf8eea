"""Units: frames that differ from the others by a known factor, and whether all are off together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from difmd import units
from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.outliers import composition
from difmd.data.examination.survey import Survey
from difmd.data.frames import is_isolated_atom
from difmd.data.label_units import ENERGY_FACTORS, HARTREE
from difmd.data.references import least_absolute
from difmd.units import BOHR

_FORCE = {f"{name}/Å": factor for name, factor in ENERGY_FACTORS.items()} | {
    "hartree/bohr": BOHR / HARTREE,
    "rydberg/bohr": 2 * BOHR / HARTREE,
}

# Below this share of the usual force the direction of a force says little.
_SMALL = 0.1

_NO_MODEL = "there are too few forces, or no pair potential describes them well enough to tell"

# Half of the way to the smallest factor, 13.6, on a logarithmic scale.
_FORCE_OFF = 5.0
_ENERGY_OFF = 3.0

# What is known beforehand of the stiffness of bonds against `_expected_stiffness`, and of the temperature at
# which data are made: medians and widths of the logarithm, from the sets of difmd's own tests.
_STIFFNESS = (-0.5, 0.8)
_TEMPERATURE = (700.0, 1.0)

# Rows of the periodic table end with these; sizes d of Badger's rule [Å] by row.
_ROWS = np.array([2, 10, 18, 36, 54, 86])
_BADGER = np.array([0.0, 0.34, 0.62, 0.8, 0.92, 0.96, 1.0])
_BADGER_FORCE = 11.6  # 1.86 mdyn/Å · Å³, in eV Å


def check_mixed_units(s: Survey) -> Iterator[Finding]:
    """Frames whose energies or forces are off by a factor from those of the others."""
    yield _mixed_energies(s)
    yield _mixed_forces(s)


def _mixed_energies(s: Survey) -> Finding:
    item = "one unit of energy"
    alone = np.array([is_isolated_atom(frame) for frame in s.frames], bool)
    known = np.flatnonzero(np.isfinite(s.energies) & ~alone)
    if len(known) < 10:
        return Finding(item, Verdict.UNKNOWN, f"{len(known)} energies are too few to tell")
    rows, values = composition(s, known)
    expected = rows @ least_absolute(rows, values)[0]
    spread = 1.4826 * np.median(np.abs(values - expected))
    if not np.median(np.abs(expected)) > 5 * spread:
        return Finding(item, Verdict.UNKNOWN, "energies vary as much as they are large: a factor is not seen")
    ratio = values / expected
    off = np.flatnonzero((ratio > _ENERGY_OFF) | ((ratio < 1 / _ENERGY_OFF) & (ratio > 0)))
    if not len(off):
        return Finding(item, Verdict.OK, "energies of all frames are of one size, given their composition")
    unit = _nearest(float(np.median(ratio[off])), ENERGY_FACTORS, 1.2)
    bad = known[off]
    return Finding(
        item,
        Verdict.WRONG if unit else Verdict.DOUBTFUL,
        f"{len(bad)} of {len(known)} energies are about {np.median(ratio[off]):.4g} times the others"
        + (f", as if in {unit}" if unit else "")
        + f": {name_frames(s.frames, bad)}",
        "convert these frames, or leave them out",
        tuple(bad),
    )


def _mixed_forces(s: Survey) -> Finding:
    item = "one unit of force"
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
    # Structures unlike the others are also described badly, by no particular factor.
    if not unit:
        low, high = np.quantile(scale, [0.01, 0.99])
        return Finding(
            item,
            Verdict.OK,
            f"forces are {low:.2f} to {high:.2f} times a pair potential in 98 % of {len(known)} frames",
        )
    bad = known[off]
    return Finding(
        item,
        Verdict.WRONG,
        f"forces of {len(bad)} of {len(known)} frames are about {factor:.3g} times as large as the others, "
        f"as if in {unit}" + f": {name_frames(s.frames, bad)}",
        "convert these frames, or leave them out",
        tuple(bad),
    )


def check_absolute_units(s: Survey) -> Finding:
    """Whether forces are of the size that stiff bonds and a usual temperature give.

    The stiffness of bonds is compared with Badger's rule (J. Chem. Phys. 2, 128 (1934),
    doi:10.1063/1.1749433) in the form k = 1.86 mdyn/Å · (r/Å − d)^-3, over the number of bonds that
    share four electrons. The temperature is kT = ⟨F²⟩/⟨∇²U⟩ (Butler, Ayton, Jepps & Evans, J. Chem. Phys.
    109, 6519 (1998), doi:10.1063/1.477301), with the Laplacian from a pair potential fitted to the forces.
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
        return Finding(item, Verdict.UNKNOWN, "there are no bonds whose stiffness could be compared")
    temperature = squares / curvature / units.KB
    order = np.argsort(logs)
    share = np.cumsum(np.array(counts)[order]) / np.sum(counts)
    stiffness = float(np.array(logs)[order][np.searchsorted(share, 0.5)])
    summary = (
        f"bonds are {np.exp(stiffness):.2g} times as stiff as Badger's rule has it, and forces are those of "
        f"about {temperature:.3g} K"
    )
    fit = {"eV": _surprise(stiffness, temperature, 1.0)}
    for name in ("kcal/mol/Å", "hartree/Å", "hartree/bohr", "rydberg/bohr"):
        fit[name] = _surprise(stiffness, temperature, _FORCE[name])
    best = min(fit, key=lambda name: fit[name])
    if fit["eV"] - fit[best] > 8:
        return Finding(
            item,
            Verdict.DOUBTFUL,
            f"{summary}: units such as {best} would fit better than eV/Å",
            "check the units of energies and forces against the calculation, and read with Units(energy=...)",
            tuple(np.flatnonzero(known)),
        )
    return Finding(item, Verdict.OK, summary)


def _surprise(stiffness: float, temperature: float, factor: float) -> float:
    """Squared deviations from what is usual, were the forces too large by `factor`."""
    middle, width = _STIFFNESS
    usual, spread = _TEMPERATURE
    stiff = (stiffness - np.log(factor) - middle) / width
    # Cold data are nothing strange.
    hot = max(0.0, np.log(temperature / factor / usual) / spread)
    return float(stiff**2 + hot**2)


def _expected_stiffness(a: int, b: int, distance: float, coordination: float) -> float:
    sizes = _BADGER[np.searchsorted(_ROWS, [a, b])].sum()
    # H–H has d = 0.025 Å.
    apart = max(distance - sizes - 0.025, 0.3)
    return _BADGER_FORCE / apart**3 / max(1.0, coordination / 4)


def _nearest(factor: float, known: dict[str, float], within: float) -> str:
    """Name of the unit with this factor; "the unit of the others" may be the odd one."""
    gaps = {name: abs(np.log(factor / f)) for name, f in known.items()}
    gaps |= {f"eV, the others in {name}": abs(np.log(factor * f)) for name, f in known.items()}
    best = min(gaps, key=lambda name: gaps[name])
    return best if gaps[best] < np.log(within) else ""
