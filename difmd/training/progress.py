"""`Progress`: the histories of a training and the decisions after each validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from difmd.training.losses import Weights
from difmd.training.metrics import Errors
from difmd.training.recipe import Recipe
from difmd.training.result import Entry
from difmd.training.schedules import Schedule


class Progress(NamedTuple):
    """What a checkpoint holds besides arrays; lists have an item for each member."""

    histories: list[list[Entry]]  # entries of all validations
    epoch: int  # number of completed epochs
    best_epochs: list[int]  # −1 before the first finite validation loss
    best_losses: list[float]  # lowest validation losses
    stale: list[int]  # validations since the last improvement, or since the learning rate was reduced
    skipped: list[int]  # batches in a row, up to the last, without a finite gradient
    is_done: bool  # whether the training has ended


def no_progress(n: int) -> Progress:
    """The progress of n members before the first epoch."""
    return Progress([[] for _ in range(n)], 0, [-1] * n, [math.inf] * n, [0] * n, [0] * n, False)


def after_validation(
    progress: Progress, recipe: Recipe, losses: Sequence[float], entries: Sequence[Entry], rates: np.ndarray
) -> tuple[Progress, list[bool], np.ndarray]:
    """Add losses and entries; return also which members improved, and rates after reductions on a plateau."""
    epoch = entries[0]["epoch"]
    is_better = [loss < best for loss, best in zip(losses, progress.best_losses, strict=True)]
    best_epochs = [epoch if better else e for better, e in zip(is_better, progress.best_epochs, strict=True)]
    stale = [0 if better else n + 1 for better, n in zip(is_better, progress.stale, strict=True)]
    schedule = recipe.schedule
    if isinstance(schedule, Schedule) and schedule.patience is not None and schedule.factor is not None:
        is_flat = [n >= schedule.patience for n in stale]
        lower = np.maximum(rates * schedule.factor, schedule.final)
        rates = np.where(is_flat, lower, rates).astype(rates.dtype)
        stale = [0 if flat else n for flat, n in zip(is_flat, stale, strict=True)]
    is_stuck = recipe.patience is not None and all(
        epoch - e >= recipe.patience * recipe.validate_every for e in best_epochs
    )
    progress = progress._replace(
        histories=[[*h, entry] for h, entry in zip(progress.histories, entries, strict=True)],
        best_losses=[min(pair) for pair in zip(losses, progress.best_losses, strict=True)],
        best_epochs=best_epochs,
        stale=stale,
        is_done=is_stuck or epoch + 1 == recipe.n_epochs,
    )
    return progress, is_better, rates


def count_skipped(before: Sequence[int], applied: np.ndarray) -> tuple[int, list[int]]:
    """Largest number of batches in a row that were not `applied` [batches, members], and those at the end."""
    most, skipped = 0, list(before)
    for was_applied in applied:
        skipped = [0 if good else n + 1 for good, n in zip(was_applied, skipped, strict=True)]
        most = max(most, *skipped)
    return most, skipped


def validation_loss(errors: Errors, weights: Weights) -> float:
    """The loss of the labels that exist; ∞ where predictions are not finite."""
    terms = (
        (weights.energy, errors.energy_rmse),
        (weights.forces, errors.forces_rmse),
        (weights.stress, errors.virial_rmse),
        (weights.dipole, errors.dipole_rmse),
    )
    return float(sum(float(w) * e**2 for w, e in terms if float(w) > 0 and not math.isnan(e)))
