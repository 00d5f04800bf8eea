"""`Keys`: the names of the labels in a file, and the common names that are searched by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from difmd.errors import InputError

_PREFIXES = ("REF_", "ref_", "dft_", "DFT_")


def _names(*plain: str) -> tuple[str, ...]:
    return plain + tuple(prefix + name for name in plain for prefix in _PREFIXES)


# The free energy has priority: with smeared occupations the forces are its derivative.
_FREE = _names("free_energy")
_CANDIDATES = {
    "energy": _names("energy", "Energy", "total_energy"),
    "forces": _names("forces", "force", "Forces"),
    "stress": _names("stress", "Stress"),
    "virial": _names("virial", "virials"),
    "dipole": _names("dipole", "total_dipole"),
    "charges": _names("charges", "atomic_charges", "Qs"),
    "kind": ("config_type", "configtype", "kind", "group", "set", "system_type"),
}


class Keys(NamedTuple):
    """Names of the labels in a file; None searches for common names.

    These are `energy`, `forces`, `stress`, `virial`, `dipole`, `charges` and variants (`force`, `virials`,
    `REF_energy`, `dft_forces` ...), and `config_type`, `group`, `set` for the kind. `free_energy` has
    priority over `energy`, since the forces are its derivative. Two other names of one label with different
    numbers are an error.

    Attributes:
        energy: total energy.
        forces: one row per atom.
        stress: 9 numbers, or 6 in ASE's order xx yy zz yz xz xy.
        virial: −stress·volume, as in GAP, MACE and DeePMD; used if there is no stress.
        dipole: 3 numbers.
        charges: one number per atom.
        kind: text that describes the configuration.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    dipole: str | None = None
    charges: str | None = None
    kind: str | None = None


def find_key(label: str, given: str | None, values: Mapping[str, Any]) -> str | None:
    """The name of a label in the content of a frame; None if the frame lacks the label."""
    if given is not None:
        return given if given in values else None
    if label == "energy" and (free := [name for name in _FREE if name in values]):
        return free[0]
    names = [name for name in _CANDIDATES[label] if name in values]
    if len(names) > 1 and label != "kind":
        first = np.asarray(values[names[0]])
        for name in names[1:]:
            other = np.asarray(values[name])
            if first.shape != other.shape or not np.array_equal(first, other):
                raise InputError(f"{names[0]} and {name} differ: select one with Keys({label}={name!r})")
    return names[0] if names else None


def as_matrix(name: str, value: Any) -> np.ndarray:
    """A 3×3 tensor from 9 numbers, or from 6 in ASE's order xx yy zz yz xz xy."""
    array = np.asarray(value, np.float64)
    if array.size == 9:
        return array.reshape(3, 3)
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    raise InputError(
        f"{name} has shape {list(array.shape)}, not 3×3 numbers or 6 in the order xx yy zz yz xz xy"
    )
