"""Measured quantities to fit to: diffusivities, one row a state point, and structures."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from difmd import units
from difmd.errors import InputError, check_positive

COLUMNS = ("temperature_K", "diffusivity_1e-9_m2_s", "density_kg_m3", "viscosity_uPa_s")
"""Columns of a target table; others are ignored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusivityTarget:
    """A measured self-diffusivity at one state point, in internal units.

    Attributes:
        temperature: [K].
        diffusivity: measured D, of the infinite system [Å²/time].
        density: mass density [amu/Å³].
        viscosity: shear viscosity [eV/Å³·time], for the finite-size correction; None switches it off.
        stderr: standard error of the measured D [Å²/time]; None where it is not known.
        species: atomic number of the atoms that are followed, of a mixture or of molecules; None: all.
    """

    temperature: float
    diffusivity: float
    density: float
    viscosity: float | None = None
    stderr: float | None = None
    species: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that are not positive."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("viscosity", "stderr", "species") and value is None:
                continue
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"target {field.name} = {value} must be positive and finite")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StructureTarget:
    """A measured radial distribution function at one state point, in internal units.

    Attributes:
        temperature: [K].
        density: mass density [amu/Å³].
        r: middles of bins of equal width [Å]; [bins].
        g: measured g(r); [bins].
        stderr: standard errors of g, each by itself; None where they are not known; [bins].
        weight: of its mean squared deviation, beside the squared residual of a diffusivity.
    """

    temperature: float
    density: float
    r: Float[np.ndarray, "bins"]
    g: Float[np.ndarray, "bins"]
    stderr: Float[np.ndarray, "bins"] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that are not positive, and bins that are not of one width."""
        for name in ("temperature", "density", "weight"):
            check_positive(f"target {name}", getattr(self, name), "")
        r, g = np.asarray(self.r, np.float64), np.asarray(self.g, np.float64)
        if r.ndim != 1 or len(r) < 2 or r.shape != g.shape:
            raise InputError(f"target r and g have shapes {r.shape} and {g.shape}: give two or more bins")
        if not (np.isfinite(r).all() and np.isfinite(g).all()):
            raise InputError("target r and g must be finite")
        if not np.allclose(np.diff(r), self.width, rtol=1e-3) or not r[0] > 0.499 * self.width > 0:
            raise InputError("target r must be the middles of bins of one width, in ascending order")
        if self.stderr is not None:
            check_positive("target stderr", self.stderr, "")
            if np.shape(self.stderr) != r.shape:
                raise InputError(f"target stderr has shape {np.shape(self.stderr)}, and r {r.shape}")

    @property
    def width(self) -> float:
        """Of a bin [Å]."""
        return float((self.r[-1] - self.r[0]) / (len(self.r) - 1))


Target = DiffusivityTarget | StructureTarget


def read_targets(path: str | Path, *, finite_size: bool = True) -> tuple[DiffusivityTarget, ...]:
    """Read a CSV table with the columns of `COLUMNS`; lines that begin with # are comments.

    Args:
        path: the table.
        finite_size: False leaves the viscosities out, so that no correction is made.

    Returns:
        The rows in their order.

    Raises:
        InputError: no such file, a missing column, no rows, or a value that is not a positive number;
            the message names line and column.
    """
    path = Path(path)
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
    rows = csv.DictReader(line for _, line in table)
    wanted = COLUMNS if finite_size else COLUMNS[:3]
    missing = [name for name in wanted if name not in (rows.fieldnames or ())]
    if missing:
        raise InputError(
            f"target table {path} has no column {', '.join(missing)}; it has "
            f"{', '.join(rows.fieldnames or ())}"
        )
    scale = (1.0, 1e-9 * units.M2_PER_S, units.KG_PER_M3, 1e-6 * units.PA_S)
    targets = []
    for (number, _), row in zip(table[1:], rows, strict=True):
        values = []
        for name, factor in zip(wanted, scale, strict=False):
            try:
                value = float(row[name])
            except (TypeError, ValueError):
                value = np.nan
            if not (np.isfinite(value) and value > 0):
                raise InputError(
                    f"target table {path}, line {number}: {name} = {row[name]!r} is not a positive number"
                )
            values.append(value * factor)
        targets.append(
            DiffusivityTarget(
                temperature=values[0],
                diffusivity=values[1],
                density=values[2],
                viscosity=values[3] if finite_size else None,
            )
        )
    if not targets:
        raise InputError(f"target table {path} has a header but no rows")
    return tuple(targets)


def at_temperatures(
    targets: Iterable[DiffusivityTarget], temperatures: Iterable[float]
) -> tuple[DiffusivityTarget, ...]:
    """The targets at these temperatures [K], in that order.

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
