"""`report`: what a trained potential is worth, by kind of frame and by element, and what it took."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from difmd.data.batches import make_batches
from difmd.data.frames import Frame
from difmd.errors import InputError
from difmd.potentials import Params, Potential, check_finite, check_model
from difmd.training.checks import check_frames
from difmd.training.gradient import predict
from difmd.training.metrics import Errors, Residuals, residuals
from difmd.training.result import TrainingResult
from difmd.training.table import duration, milli


class Row(NamedTuple):
    """Errors of a part of the data.

    Attributes:
        part: "valid", "test" or another name.
        group: "all", a kind of frame, or a chemical symbol.
        by: "all", "kind" or "element"; only forces are those of an element.
        n_frames: frames in it, or that have such an atom.
        n_atoms: atoms in it.
        errors: of energies, forces and stresses.
    """

    part: str
    group: str
    by: str
    n_frames: int
    n_atoms: int
    errors: Errors


class Report(NamedTuple):
    """What `report` found; `print` shows it as a table.

    Attributes:
        rows: for each part all frames, then each kind if there are several, then each element likewise.
        residuals: of each part, which `difmd.plots.plot_parity` shows.
        best_epoch: when the parameters were found; counted from 0.
        n_epochs: that were made.
        n_compiled: functions compiled.
        seconds: wall time of the training.
        notes: what could not be done.
    """

    rows: tuple[Row, ...]
    residuals: dict[str, Residuals]
    best_epoch: int
    n_epochs: int
    n_compiled: int
    seconds: float
    notes: tuple[str, ...]

    def summary(self, part: str) -> dict[str, float]:
        """Errors of all frames of a part, with units in the names.

        Args:
            part: "valid" or "test".

        Raises:
            InputError: no such part.
        """
        for row in self.rows:
            if (row.part, row.by) == (part, "all"):
                return {name: float(value) for name, value in _shown(row).items() if np.isfinite(value)}
        raise InputError(f"the report has no part {part!r}, only {', '.join({r.part for r in self.rows})}")

    def as_json(self) -> dict[str, Any]:
        """Numbers and words that `json.dumps` takes, with units in the names; None for what there is not."""
        return {
            "errors": [
                {
                    "part": row.part,
                    row.by: row.group,
                    "n_frames": row.n_frames,
                    "n_atoms": row.n_atoms,
                    **{name: _number(value) for name, value in _shown(row).items()},
                }
                for row in self.rows
            ],
            "best_epoch": self.best_epoch,
            "n_epochs": self.n_epochs,
            "n_compiled": self.n_compiled,
            "wall_s": round(self.seconds, 1),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """The table."""
        wide = max(len(f"{row.part} {row.group}") for row in self.rows) + 2
        # Energies and forces always; the other columns where there is such a label.
        columns = [
            (name, head)
            for name, head in _COLUMNS.items()
            if name[:2] in ("E_", "F_") or any(math.isfinite(_shown(row)[name]) for row in self.rows)
        ]
        heads = [("frames", ""), ("atoms", ""), *(head for _, head in columns)]
        lines = [" " * wide + " ".join(line[k].rjust(9) for line in heads) for k in (0, 1)]
        for row in self.rows:
            shown = _shown(row)
            cells = [str(row.n_frames), str(row.n_atoms), *(milli(shown[name] / 1e3) for name, _ in columns)]
            name = row.part if row.by == "all" else f"  {row.group or 'no kind'}"
            lines.append(name.ljust(wide) + " ".join(cell.rjust(9) for cell in cells))
        lines.append(
            f"best epoch {self.best_epoch + 1} of {self.n_epochs}, {self.n_compiled} functions compiled, "
            f"{duration(self.seconds)}"
        )
        return "\n".join([*(line.rstrip() for line in lines), *self.notes])


def report(
    potential: Potential,
    result: TrainingResult,
    *,
    valid: Sequence[Frame],
    test: Sequence[Frame] = (),
    params: Params | None = None,
    batch_size: int = 4,
) -> Report:
    """Errors of a trained potential: all, by kind of frame and by element.

    Args:
        potential: that was trained.
        result: of `train`.
        valid: frames that chose the best parameters.
        test: frames that the training has not seen; none if empty.
        params: default: `result.params`.
        batch_size: frames that are evaluated together.

    Returns:
        `Report`.

    Raises:
        InputError: no frames, params of another potential, or an element without parameters or reference
            energy.
    """
    parts = {name: part for name, part in (("valid", valid), ("test", test)) if part}
    if not parts:
        raise InputError("there are no frames to report errors of")
    chosen = result.params if params is None else params
    check_model(potential, chosen)
    check_finite(chosen)
    check_frames(potential, [*valid, *test])
    evaluated = jax.jit(lambda p, batch: predict(potential, p, batch))
    rows: list[Row] = []
    found: dict[str, Residuals] = {}
    for name, part in parts.items():
        batches = make_batches(
            part, cutoff=potential.cutoff, batch_size=batch_size, references=result.references
        )
        found[name] = residuals(functools.partial(evaluated, chosen), batches)
        rows += _rows(name, part, found[name])
    return Report(
        rows=tuple(rows),
        residuals=found,
        best_epoch=result.best_epoch,
        n_epochs=result.history[-1]["epoch"] + 1 if result.history else 0,
        n_compiled=result.n_compiled,
        seconds=result.seconds,
        notes=result.notes,
    )


def _rows(name: str, frames: Sequence[Frame], found: Residuals) -> list[Row]:
    from ase.data import chemical_symbols

    rows = [Row(name, "all", "all", len(frames), len(found.element), found.errors())]
    kinds: dict[str, list[int]] = {}
    for place, frame in enumerate(frames):
        kinds.setdefault(frame.kind, []).append(place)
    if len(kinds) > 1:
        for kind, places in sorted(kinds.items()):
            n_atoms = int(np.isin(found.atom_frame, places).sum())
            rows.append(Row(name, kind, "kind", len(places), n_atoms, found.errors(places)))
    elements = np.unique(found.element)
    if len(elements) > 1:
        for z in elements:
            of_it = found.element == z
            errors = found.errors(element=int(z))
            # Only forces belong to an element.
            others = [field for field in errors._fields if not field.startswith("forces")]
            errors = errors._replace(**dict.fromkeys(others, math.nan))
            n_frames = len(np.unique(found.atom_frame[of_it]))
            rows.append(Row(name, chemical_symbols[z], "element", n_frames, int(of_it.sum()), errors))
    return rows


_COLUMNS = {
    "E_rmse_meV_atom": ("E rmse", "meV/atom"),
    "E_mae_meV_atom": ("E mae", "meV/atom"),
    "F_rmse_meV_A": ("F rmse", "meV/Å"),
    "F_mae_meV_A": ("F mae", "meV/Å"),
    "virial_rmse_meV_atom": ("virial", "meV/atom"),
    "dipole_error_percent": ("dipole", "%"),
}
"""Heads of what `_shown` finds: the quantity and its unit."""


def _shown(row: Row) -> dict[str, float]:
    return {
        "E_rmse_meV_atom": 1e3 * row.errors.energy_rmse,
        "E_mae_meV_atom": 1e3 * row.errors.energy_mae,
        "F_rmse_meV_A": 1e3 * row.errors.forces_rmse,
        "F_mae_meV_A": 1e3 * row.errors.forces_mae,
        "virial_rmse_meV_atom": 1e3 * row.errors.virial_rmse,
        "dipole_error_percent": 100 * row.errors.dipole_error,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
