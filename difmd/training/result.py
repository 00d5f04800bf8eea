"""What a training returns, and how it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from difmd.errors import DifmdError
from difmd.potentials import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The outcome of `train`.

    Attributes:
        params: the averaged parameters with the lowest validation loss.
        last_params: the averaged parameters at the end.
        references: energy of an atom of each element, which `params` know nothing of [eV].
        best_epoch: when `params` were found.
        history: a dict for each validation: `epoch`, `seconds`, `train_loss`, `valid_loss`, `skipped`
            (batches without a finite gradient in that epoch, which were not applied), `learning_rate` and
            `weights` of the last step, and `Errors`.
        n_compiled: functions compiled.
        seconds: wall time, of all calls that a folder has seen together.
        is_complete: False where `time_limit` ended it; the same call with the same folder goes on.
        notes: what could not be done, in words.
    """

    params: Params
    last_params: Params
    references: Mapping[int, float]
    best_epoch: int
    history: list[dict[str, Any]]
    n_compiled: int
    seconds: float
    is_complete: bool
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommitteeResult:
    """The outcome of `train_committee`; what it has of each member is as in `TrainingResult`.

    Attributes:
        params: best parameters of each member, every array with a leading axis of members.
        last_params: averaged parameters of each member at the end, likewise.
        references: energy of an atom of each element, which `params` know nothing of [eV].
        best_epochs: of each member.
        histories: of each member.
        n_compiled: functions compiled.
        seconds: wall time, of all calls that a folder has seen together.
        is_complete: False where `time_limit` ended it.
        notes: what could not be done, in words.
    """

    params: Params
    last_params: Params
    references: Mapping[int, float]
    best_epochs: tuple[int, ...]
    histories: list[list[dict[str, Any]]]
    n_compiled: int
    seconds: float
    is_complete: bool
    notes: tuple[str, ...] = ()


class TrainingError(DifmdError, RuntimeError):
    """A training had to stop; `result` holds the best parameters so far."""

    def __init__(self, message: str, result: Any) -> None:
        """Keep what the training had: a `TrainingResult` or a `CommitteeResult`."""
        super().__init__(message)
        self.result = result


class TrainingInterrupted(TrainingError, KeyboardInterrupt):
    """Ctrl-C while training; run it again with the same folder to go on."""
