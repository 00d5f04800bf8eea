"""Results of a training, and the errors that carry them."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from difmd._internal.summaries import html_table
from difmd._internal.summaries import summary as text_summary
from difmd.errors import DifmdError, InputError
from difmd.potentials import Params
from difmd.training.table import duration, milli

if TYPE_CHECKING:
    import pandas

Entry = dict[str, Any]
"""An entry of a history, see `TrainingResult`."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class _Members(abc.ABC):
    """What results derive from the histories of their members."""

    best_params: Params
    last_params: Params
    references: Mapping[int, float]
    n_compiled: int
    seconds: float
    is_complete: bool
    notes: tuple[str, ...] = ()

    @abc.abstractmethod
    def _members(self) -> list[tuple[int, list[Entry]]]:
        """Best epoch and history of each member."""

    @property
    def params(self) -> Params:
        """The parameters to use: `best_params`."""
        return self.best_params

    def summary(self) -> dict[str, float]:
        """Validation errors at the best epoch, epochs and wall time, with units in the names.

        Returns:
            Numbers by name; in a committee means over the members.
        """
        members = self._members()
        rows = {name: 1e3 * self._at_best(key) for name, key in _ERRORS.items()}
        return {
            **{name: value for name, value in rows.items() if math.isfinite(value)},
            "best_epoch": float(np.mean([best for best, _ in members])),
            "n_epochs": float(members[0][1][-1]["epoch"] + 1 if members[0][1] else 0),
            "wall_s": round(self.seconds, 1),
        }

    def to_pandas(self) -> pandas.DataFrame:
        """The histories as a table with a row for each member and validation.

        Returns:
            The table; the weights of the loss are `energy_weight` and so on.

        Raises:
            InputError: pandas is not installed.
        """
        rows = [
            {"member": member, **entry, **{f"{k}_weight": v for k, v in entry["weights"].items()}}
            for member, (_, history) in enumerate(self._members())
            for entry in history
        ]
        return to_table(rows).drop(columns="weights", errors="ignore")

    def __repr__(self) -> str:
        """Epochs, errors, number of parameters and wall time."""
        return text_summary(type(self).__name__, self._rows())

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self._rows())

    def _at_best(self, key: str) -> float:
        entries = [e for best, history in self._members() for e in history if e["epoch"] == best]
        return float(np.mean([entry[key] for entry in entries])) if entries else math.nan

    def _rows(self) -> dict[str, str]:
        members = self._members()
        n_epochs = members[0][1][-1]["epoch"] + 1 if members[0][1] else 0
        best = ", ".join(str(epoch + 1) if epoch >= 0 else "–" for epoch, _ in members)
        energy, forces = milli(self._at_best("energy_rmse")), milli(self._at_best("forces_rmse"))
        leaves = jax.tree.leaves(self.best_params)
        n_params = sum(int(np.size(x)) for x in leaves) // len(members)
        rows = {
            "epochs": f"{n_epochs}{'' if self.is_complete else ' (incomplete)'}, best {best}",
            "validation": f"energy RMSE {energy} meV/atom, force RMSE {forces} meV/Å at the best epoch",
            "parameters": f"{n_params} in {len(leaves)} arrays"
            + (f", {len(members)} members" if len(members) > 1 else ""),
            "wall time": f"{duration(self.seconds)}, {self.n_compiled} functions compiled",
        }
        return {**rows, "notes": "; ".join(self.notes)} if self.notes else rows


_ERRORS = {
    "E_rmse_meV_atom": "energy_rmse",
    "F_rmse_meV_A": "forces_rmse",
    "virial_rmse_meV_atom": "virial_rmse",
    "dipole_rmse_me_A": "dipole_rmse",
}


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class TrainingResult(_Members):
    """The result of `train`; `params` are the parameters to use, which are `best_params`.

    Attributes:
        best_params: averaged parameters with the lowest validation loss.
        last_params: averaged parameters after the last step.
        references: energy of an atom of each element [eV], to be added to energies predicted with `params`.
        best_epoch: epoch of `best_params`, counted from 0; −1 without a finite validation loss, where
            `best_params` are `last_params`.
        history: a dict for each validation: `epoch`, `seconds`, `train_loss`, `valid_loss`, `skipped`
            (batches of the epoch without a finite gradient, which were not applied), `learning_rate` of the
            last step (with `Recipe.optimizer`: the factor of its updates), `weights`, and `Errors`.
        n_compiled: functions compiled.
        seconds: wall time of all calls with the same folder.
        is_complete: False if `time_limit` ended it; the same call with the same folder continues.
        notes: what could not be done.
    """

    best_epoch: int
    history: list[Entry]

    def _members(self) -> list[tuple[int, list[Entry]]]:
        return [(self.best_epoch, self.history)]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class CommitteeResult(_Members):
    """The result of `train_committee`; `params` are the parameters to use, which are `best_params`.

    Attributes:
        best_params: as in `TrainingResult`, every array with a leading axis of members.
        last_params: averaged parameters of all members after the last step.
        references: energy of an atom of each element [eV], to be added to energies predicted with `params`.
        best_epochs: `TrainingResult.best_epoch` of each member.
        histories: `TrainingResult.history` of each member.
        n_compiled: functions compiled.
        seconds: wall time of all calls with the same folder.
        is_complete: False if `time_limit` ended it.
        notes: what could not be done.
    """

    best_epochs: tuple[int, ...]
    histories: list[list[Entry]]

    def _members(self) -> list[tuple[int, list[Entry]]]:
        return list(zip(self.best_epochs, self.histories, strict=True))


def to_table(entries: list[Entry]) -> pandas.DataFrame:
    """Entries of a history as rows; raises `InputError` without pandas."""
    try:
        import pandas
    except ImportError as error:
        raise InputError(
            "pandas is not installed: pip install pandas, or use the history, a list of dicts"
        ) from error
    return pandas.DataFrame(entries)


class TrainingError(DifmdError, RuntimeError):
    """A training had to stop; `partial_result` holds the best parameters so far."""

    def __init__(self, message: str, partial_result: TrainingResult | CommitteeResult) -> None:
        """The message and the result of the completed part."""
        super().__init__(message)
        self.partial_result = partial_result


class TrainingInterrupted(TrainingError, KeyboardInterrupt):
    """Ctrl-C during a training; call it again with the same folder to continue."""
