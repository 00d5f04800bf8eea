"""Conversion of `Raw` to `Frame`, with checks of names, units, shapes and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from difmd.data.frames import Frame
from difmd.data.label_units import Factors
from difmd.data.readers.labels import Keys, as_matrix, find_key
from difmd.data.readers.raw import Raw
from difmd.errors import InputError
from difmd.system import System, host_system

NO_VOLUME = "no volume"
"""Key in `used` of labels that were ignored because there is no volume."""


def to_frame(raw: Raw, path: str, keys: Keys, factors: Factors, used: dict[str, Counter[str]]) -> Frame:
    """Check one configuration, convert it to eV, Å and e, and count the names of its labels in `used`."""
    source = f"{path}, {raw.name}"
    try:
        positions, numbers = np.asarray(raw.positions, np.float64) * factors.length, np.asarray(raw.numbers)
        cell = None if raw.cell is None else np.asarray(raw.cell, np.float64) * factors.length
        system = host_system(positions, numbers, masses=raw.masses, cell=cell, pbc=np.asarray(raw.pbc, bool))
        if not (system.atomic_numbers > 0).all():
            i = int(np.argmin(system.atomic_numbers))
            raise InputError(f"atom {i} has no element (atomic number 0, or the symbol X): remove it")
        labels, kind = _labels(raw.values, keys, factors, system, used)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return Frame(system=system, kind=kind, source=source, **labels)


def _labels(
    values: Mapping[str, Any], keys: Keys, factors: Factors, system: System, used: dict[str, Counter[str]]
) -> tuple[dict[str, Any], str]:
    raw_labels = {}
    for label, given in zip(Keys._fields, keys, strict=True):
        name = find_key(label, given, values)
        if name is not None and values[name] is not None:
            raw_labels[label] = values[name]
            used.setdefault(label, Counter())[name] += 1
    kind = raw_labels.pop("kind", "")
    kind = kind.item() if isinstance(kind, np.ndarray) and kind.size == 1 else kind
    labels: dict[str, Any] = {}
    if "energy" in raw_labels:
        energy = _numbers("energy", raw_labels["energy"])
        if energy.size != 1:
            raise InputError(f"energy has shape {list(energy.shape)}, not one number per frame")
        labels["energy"] = float(energy.ravel()[0]) * factors.energy
    n_atoms = system.n_atoms
    shapes = {"forces": (n_atoms, 3), "dipole": (3,), "charges": (n_atoms,)}
    texts = {"forces": f"[{n_atoms} atoms, 3]", "dipole": "[3]", "charges": f"[{n_atoms} atoms]"}
    for name, shape in shapes.items():
        if name in raw_labels:
            array = _numbers(name, raw_labels[name])
            if array.shape != shape:
                raise InputError(f"{name} has shape {list(array.shape)}, not {texts[name]}")
            labels[name] = array * getattr(factors, name)
    if "stress" in raw_labels:
        labels["stress"] = as_matrix("stress", _numbers("stress", raw_labels["stress"])) * factors.stress
    elif "virial" in raw_labels and system.pbc.all():
        virial = as_matrix("virial", _numbers("virial", raw_labels["virial"])) * factors.virial
        labels["stress"] = -virial / abs(np.linalg.det(system.cell))
    elif "virial" in raw_labels:
        used.setdefault(NO_VOLUME, Counter())["virial"] += 1
    return labels, str(kind)


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
