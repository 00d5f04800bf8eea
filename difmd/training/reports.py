"""`report`: errors of a trained potential, by kind of frame and by element."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from difmd._internal.summaries import html_table
from difmd._internal.summaries import summary as text_summary
from difmd.data.batches import make_batches
from difmd.data.frames import Frame
from difmd.errors import InputError
from difmd.potentials import Params, Potential
from difmd.potentials.base import check_finite, check_model
from difmd.potentials.species import symbols
from difmd.training.checks import check_frames
from difmd.training.gradient import predict
from difmd.training.metrics import Errors, Residuals, residuals
from difmd.training.result import TrainingResult
from difmd.training.table import duration, milli


class Row(NamedTuple):
    """Errors on a part of the data.

    Attributes:
        part: "valid" or "test".
        group: "all", a kind of frame, or a chemical symbol.
        by: "all", "kind" or "element"; an element has errors of forces only.
        n_frames: frames of the group, or with such an atom.
        n_atoms: atoms of the group.
        errors: of energies, forces, stresses and dipoles.
    """

    part: str
    group: str
    by: str
    n_frames: int
    n_atoms: int
    errors: Errors


class Report(NamedTuple):
    """The result of `report`; `print` shows it as a table.

    Attributes:
        rows: for each part all frames, then each kind and each element if there are several.
        residuals: of each part, which `difmd.plots.plot_parity` shows.
        best_epoch: epoch of the parameters, counted from 0.
        n_epochs: completed epochs.
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
        """Errors on all frames of a part, with units in the names.

        Args:
            part: "valid" or "test".

        Returns:
            The errors; those without labels are missing.

        Raises:
            InputError: no such part.
        """
        for row in self.rows:
            if (row.part, row.by) == (part, "all"):
                return {name: float(value) for name, value in _named(row).items() if math.isfinite(value)}
        raise InputError(f"the report has no part {part!r}, only {', '.join({r.part for r in self.rows})}")

    def as_json(self) -> dict[str, Any]:
        """Numbers and text for `json.dumps`, with units in the names; None for errors without labels."""
        return {
            "errors": [
                {
                    "part": row.part,
                    row.by: row.group,
                    "n_frames": row.n_frames,
                    "n_atoms": row.n_atoms,
                    **{k: float(v) if math.isfinite(v) else None for k, v in _named(row).items()},
                }
                for row in self.rows
            ],
            "best_epoch": self.best_epoch,
            "n_epochs": self.n_epochs,
            "n_compiled": self.n_compiled,
            "wall_s": round(self.seconds, 1),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        """Errors on all frames of each part."""
        rows = {row.part: _in_words(row) for row in self.rows if row.by == "all"}
        return text_summary("Report", {**rows, "best epoch": f"{self.best_epoch + 1} of {self.n_epochs}"})

    def _repr_html_(self) -> str:
        return html_table("Report", {f"{row.part} {row.group}": _in_words(row) for row in self.rows})

    def __str__(self) -> str:
        """The table."""
        width = max(len(f"{row.part} {row.group}") for row in self.rows) + 2
        # Energies and forces always; other columns if there are such labels.
        columns = [
            (name, head)
            for name, head in _COLUMNS.items()
            if name[:2] in ("E_", "F_") or any(math.isfinite(_named(row)[name]) for row in self.rows)
        ]
        heads = [("frames", ""), ("atoms", ""), *(head for _, head in columns)]
        lines = [" " * width + " ".join(line[k].rjust(9) for line in heads) for k in (0, 1)]
        for row in self.rows:
            shown = _named(row)
            cells = [str(row.n_frames), str(row.n_atoms), *(milli(shown[name] / 1e3) for name, _ in columns)]
            name = row.part if row.by == "all" else f"  {row.group or 'no kind'}"
            lines.append(name.ljust(width) + " ".join(cell.rjust(9) for cell in cells))
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
    """Errors of a trained potential on validation and test frames, by kind of frame and by element.

    Args:
        potential: the trained potential.
        result: of `train`.
        valid: frames that selected the best parameters.
        test: held-out frames that the training did not use.
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
        raise InputError("there are no frames: give valid or test")
    chosen = result.params if params is None else params
    check_model(potential, chosen)
    check_finite(chosen)
    check_frames(potential, [*valid, *test])
    evaluated = jax.jit(lambda p, batch: predict(potential, p, batch))
    rows: list[Row] = []
    residuals_of: dict[str, Residuals] = {}
    for name, part in parts.items():
        batches = make_batches(
            part, cutoff=potential.cutoff, batch_size=batch_size, references=result.references
        )
        residuals_of[name] = residuals(functools.partial(evaluated, chosen), batches)
        rows += _rows(name, part, residuals_of[name])
    return Report(
        rows=tuple(rows),
        residuals=residuals_of,
        best_epoch=result.best_epoch,
        n_epochs=result.history[-1]["epoch"] + 1 if result.history else 0,
        n_compiled=result.n_compiled,
        seconds=result.seconds,
        notes=result.notes,
    )


def _rows(name: str, frames: Sequence[Frame], of_part: Residuals) -> list[Row]:
    rows = [Row(name, "all", "all", len(frames), len(of_part.element), of_part.errors())]
    kinds: dict[str, list[int]] = {}
    for index, frame in enumerate(frames):
        kinds.setdefault(frame.kind, []).append(index)
    if len(kinds) > 1:
        for kind, indices in sorted(kinds.items()):
            n_atoms = int(np.isin(of_part.atom_frame, indices).sum())
            rows.append(Row(name, kind, "kind", len(indices), n_atoms, of_part.errors(indices)))
    elements = np.unique(of_part.element)
    if len(elements) > 1:
        for z, symbol in zip(elements, symbols(elements.tolist()), strict=True):
            is_z = of_part.element == z
            errors = of_part.errors(element=int(z))
            # Only forces belong to an element.
            others = [field for field in errors._fields if not field.startswith("forces")]
            errors = errors._replace(**dict.fromkeys(others, math.nan))
            n_frames = len(np.unique(of_part.atom_frame[is_z]))
            rows.append(Row(name, symbol, "element", n_frames, int(is_z.sum()), errors))
    return rows


_COLUMNS = {
    "E_rmse_meV_atom": ("E rmse", "meV/atom", "energy_rmse"),
    "E_mae_meV_atom": ("E mae", "meV/atom", "energy_mae"),
    "F_rmse_meV_A": ("F rmse", "meV/Å", "forces_rmse"),
    "F_mae_meV_A": ("F mae", "meV/Å", "forces_mae"),
    "virial_rmse_meV_atom": ("virial", "meV/atom", "virial_rmse"),
    "dipole_error_percent": ("dipole", "%", "dipole_error"),
}
"""Names of the errors in reports, with quantity, unit and field of `Errors`."""


def _named(row: Row) -> dict[str, float]:
    return {
        name: (100 if unit == "%" else 1e3) * getattr(row.errors, field)
        for name, (_, unit, field) in _COLUMNS.items()
    }


def _in_words(row: Row) -> str:
    parts = [
        f"{quantity} {value:.4g} {unit}"
        for (quantity, unit, _), value in zip(_COLUMNS.values(), _named(row).values(), strict=True)
        if math.isfinite(value)
    ]
    return f"{', '.join(parts)} ({row.n_frames} frames, {row.n_atoms} atoms)"
