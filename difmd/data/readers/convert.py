"""From what a reader found to a `Frame`: names, units, shapes and values are checked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from difmd.data.frames import Frame
from difmd.data.label_units import Factors
from difmd.data.readers.labels import Keys, as_kind, as_matrix, find_key
from difmd.data.readers.raw import Raw
from difmd.errors import InputError
from difmd.system import System, host_system

NO_VOLUME = "no volume"
"""In `used`: labels that were left out for want of a volume."""


def to_frame(raw: Raw, place: str, keys: Keys, factors: Factors, used: dict[str, Counter[str]]) -> Frame:
    """Check one configuration and bring it into eV, Å and e.

    Args:
        raw: what the reader found.
        place: the file, for messages.
        keys: names of the labels.
        factors: of the units.
        used: which name each label was found under, and how often; added to.

    Returns:
        The frame.

    Raises:
        InputError: something is wrong with it; the message names file, frame and atom.
    """
    source = f"{place}, {raw.name}"
    try:
        system = host_system(
            np.asarray(raw.positions, np.float64) * factors.length,
            np.asarray(raw.numbers),
            masses=raw.masses,
            cell=None if raw.cell is None else np.asarray(raw.cell, np.float64) * factors.length,
            pbc=np.asarray(raw.pbc, bool),
        )
        if not (system.atomic_numbers > 0).all():
            i = int(np.argmin(system.atomic_numbers))
            raise InputError(f"atom {i} is of no element (atomic number 0, or the symbol X): remove it")
        labels, kind = _labels(raw.values, keys, factors, system, used)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return Frame(system=system, kind=kind, source=source, **labels)


def _labels(
    values: Mapping[str, Any],
    keys: Keys,
    factors: Factors,
    system: System,
    used: dict[str, Counter[str]],
) -> tuple[dict[str, Any], str]:
    found = {}
    for label, wanted in zip(Keys._fields, keys, strict=True):
        name = find_key(label, wanted, values)
        if name is not None and values[name] is not None:
            found[label] = values[name]
            used.setdefault(label, Counter())[name] += 1
    kind = as_kind(found.pop("kind", ""))
    n_atoms = system.n_atoms
    labels: dict[str, Any] = {}
    if "energy" in found:
        energy = _numbers("energy", found["energy"])
        if energy.size != 1:
            raise InputError(f"energy has shape {list(energy.shape)}: one number a frame is needed")
        labels["energy"] = float(energy.ravel()[0]) * factors.energy
    if "forces" in found:
        labels["forces"] = _shaped("forces", found["forces"], (n_atoms, 3)) * factors.forces
    if "stress" in found:
        labels["stress"] = as_matrix("stress", _numbers("stress", found["stress"])) * factors.stress
    elif "virial" in found and system.pbc.all():
        volume = abs(np.linalg.det(system.cell))
        labels["stress"] = -as_matrix("virial", _numbers("virial", found["virial"])) * factors.virial / volume
    elif "virial" in found:
        used.setdefault(NO_VOLUME, Counter())["virial"] += 1
    if "dipole" in found:
        labels["dipole"] = _shaped("dipole", found["dipole"], (3,)) * factors.dipole
    if "charges" in found:
        labels["charges"] = _shaped("charges", found["charges"], (n_atoms,)) * factors.charges
    return labels, kind


def _shaped(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = _numbers(name, value)
    if array.shape != shape:
        wanted = f"[{shape[0]}{' atoms' if name != 'dipole' else ''}{', 3' if len(shape) == 2 else ''}]"
        raise InputError(f"{name} has shape {list(array.shape)}, not {wanted}")
    return array


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} = {value!r} is not a number or an array of numbers") from None
    bad = ~np.isfinite(array)
    if bad.any():
        where = [int(i) for i in np.argwhere(bad)[0]]
        atom = f" of atom {where[0]}" if name in ("forces", "charges") and where else ""
        raise InputError(f"{name}{atom} is {array[tuple(where)]}: the calculation failed, remove the frame")
    return array
