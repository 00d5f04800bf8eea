"""Tables of measured diffusivities."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from difmd import units
from difmd.errors import InputError
from difmd.fitting.targets.diffusivity import DiffusivityTarget

COLUMNS = ("temperature_K", "diffusivity_1e-9_m2_s", "density_kg_m3", "viscosity_uPa_s")
"""Columns of a target table; others are ignored."""

_SCALES = (1.0, units.D, units.KG_PER_M3, 1e-6 * units.PA_S)


def read_targets(path: str | Path, *, finite_size: bool = True) -> tuple[DiffusivityTarget, ...]:
    """Read measured diffusivities from a CSV file, one state point per row.

    Its columns are `temperature_K`, `diffusivity_1e-9_m2_s`, `density_kg_m3` and `viscosity_uPa_s`, in any
    order; others are ignored, and lines that begin with # are comments.

    Args:
        path: the file.
        finite_size: False ignores the viscosities, so that no finite-size correction is made.

    Returns:
        The rows in their order.

    Raises:
        InputError: no such file, a missing column, no rows, or a value that is not a positive number;
            the message names line and column.
    """
    path = Path(path)
    lines = _lines(path)
    rows = csv.DictReader(line for _, line in lines)
    wanted = COLUMNS if finite_size else COLUMNS[:3]
    present = rows.fieldnames or ()
    missing = ", ".join(name for name in wanted if name not in present)
    if missing:
        raise InputError(f"target table {path} has no column {missing}; it has {', '.join(present)}")
    targets = [
        _target(row, wanted, f"target table {path}, line {number}")
        for (number, _), row in zip(lines[1:], rows, strict=True)
    ]
    if not targets:
        raise InputError(f"target table {path} has a header but no rows")
    return tuple(targets)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines without comments and empty ones."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"target table {path} {problem}: give the path of a CSV file")
    try:
        # Spreadsheets put a byte order mark first.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"target table {path} cannot be read as UTF-8 text: {error}") from error
    table = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    if not table:
        raise InputError(f"target table {path} is empty")
    return table


def _target(row: Mapping[str, str], names: tuple[str, ...], where: str) -> DiffusivityTarget:
    values = []
    for name, scale in zip(names, _SCALES, strict=False):
        try:
            value = float(row[name])
        except (TypeError, ValueError):
            value = np.nan
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{where}: {name} = {row[name]!r} is not a positive number")
        values.append(value * scale)
    temperature, diffusivity, density = values[:3]
    viscosity = values[3] if len(values) > 3 else None
    return DiffusivityTarget(
        temperature=temperature, diffusivity=diffusivity, density=density, viscosity=viscosity
    )


def at_temperatures(
    targets: Iterable[DiffusivityTarget], temperatures: Iterable[float]
) -> tuple[DiffusivityTarget, ...]:
    """Select targets by temperature.

    Args:
        targets: such as a table.
        temperatures: [K].

    Returns:
        The targets at these temperatures, in that order.

    Raises:
        InputError: a temperature that is not in the table.
    """
    table = {round(target.temperature, 6): target for target in targets}
    chosen = []
    for temperature in temperatures:
        if round(temperature, 6) not in table:
            raise InputError(f"no target at {temperature} K; there are {sorted(table)}")
        chosen.append(table[round(temperature, 6)])
    return tuple(chosen)
