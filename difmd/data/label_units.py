"""`Units` of the numbers in a file, and the factors that convert them to eV, Å and e."""

from __future__ import annotations

import math
from typing import NamedTuple

from difmd import units
from difmd.errors import InputError
from difmd.units import BOHR

HARTREE = 27.211386245988
"""One hartree [eV], CODATA 2018."""

_ENERGY = {
    "eV": 1.0, "meV": 1e-3, "kcal/mol": units.KCAL_PER_MOL, "kJ/mol": units.KJ_PER_MOL,
    "Hartree": HARTREE, "Ha": HARTREE, "Ry": HARTREE / 2, "Rydberg": HARTREE / 2, "K": units.KB,
}  # fmt: skip
ENERGY_FACTORS = {
    "kcal/mol": 1 / units.KCAL_PER_MOL, "kJ/mol": 1 / units.KJ_PER_MOL, "hartree": 1 / HARTREE,
    "rydberg": 2 / HARTREE, "meV": 1000.0,
}  # fmt: skip
"""Ratio of the number in another unit to the number in eV."""

_LENGTH = {
    "Å": 1.0, "A": 1.0, "Angstrom": 1.0, "nm": 10.0, "pm": 0.01, "Bohr": BOHR, "bohr": BOHR, "a0": BOHR
}  # fmt: skip
_PRESSURE = {
    "GPa": units.GPA, "MPa": 1e-3 * units.GPA, "bar": units.BAR, "kbar": 1e3 * units.BAR,
    "atm": 1.01325 * units.BAR,
}  # fmt: skip
_DIPOLE = {"Debye": 0.20819434, "D": 0.20819434, "au": BOHR, "a.u.": BOHR}


class Units(NamedTuple):
    """Units of the numbers in a file; those that are None follow from energy and length.

    Each is a name, or a number: the size of the unit in eV, Å and e. A negative number also changes the sign,
    as for a stress in kbar with compression positive: `stress=-1e3 * units.BAR`. ASE converts the outputs of
    codes (VASP, QE, aims, ORCA) to eV and Å itself; give no units for them.

    Attributes:
        energy: eV, meV, kcal/mol, kJ/mol, Hartree (Ha), Ry, K.
        length: of positions and cells; Å (A, Angstrom), nm, pm, Bohr.
        forces: as "kcal/mol/Å" or "Hartree/Bohr"; default: energy/length.
        stress: as "GPa", "kbar", "bar", "eV/Å³" or "Hartree/Bohr³"; default: energy/length³.
        virial: default: energy.
        dipole: as "Debye", "au" or "e·Bohr"; default: e·Å, whatever the length.
        charges: e.
    """

    energy: str | float = "eV"
    length: str | float = "Å"
    forces: str | float | None = None
    stress: str | float | None = None
    virial: str | float | None = None
    dipole: str | float = "e·Å"
    charges: str | float = "e"


class Factors(NamedTuple):
    """Factors by which the numbers of a file are multiplied."""

    energy: float
    length: float
    forces: float
    stress: float
    virial: float
    dipole: float
    charges: float


def factors_of(given: Units) -> Factors:
    """The factors that convert numbers in these units to eV, Å and e."""
    energy = _factor("energy", given.energy, _ENERGY)
    length = _factor("length", given.length, _LENGTH)
    per_length = {f"{e}/{x}": a / b for e, a in _ENERGY.items() for x, b in _LENGTH.items()}
    pressures = dict(_PRESSURE)
    for cube in ("³", "^3", "**3", "3"):
        pressures |= {f"{e}/{x}{cube}": a / b**3 for e, a in _ENERGY.items() for x, b in _LENGTH.items()}
    moments = {f"e{dot}{x}": b for x, b in _LENGTH.items() for dot in ("·", "*", " ", "")}
    return Factors(
        energy=energy,
        length=length,
        forces=energy / length if given.forces is None else _factor("forces", given.forces, per_length),
        stress=energy / length**3 if given.stress is None else _factor("stress", given.stress, pressures),
        virial=energy if given.virial is None else _factor("virial", given.virial, _ENERGY),
        dipole=_factor("dipole", given.dipole, {**_DIPOLE, **moments}),
        charges=_factor("charges", given.charges, {"e": 1.0}),
    )


def _factor(name: str, value: str | float, known: dict[str, float]) -> float:
    if isinstance(value, str):
        if value in known:
            return known[value]
        lowered = {key.lower(): factor for key, factor in known.items()}
        if value.lower() in lowered:
            return lowered[value.lower()]
        # Alternative spellings of products and quotients are not listed.
        listed = [key for key in known if "*" not in key and "^" not in key][:14]
        raise InputError(
            f"Units({name}={value!r}) is unknown: use one of {', '.join(listed)}, or the size of the unit in "
            "eV, Å and e as a number"
        )
    if not (math.isfinite(value) and value != 0):
        raise InputError(f"Units({name}={value!r}) must be finite and not zero")
    return float(value)
