"""Fit potentials to energies, forces, stresses and dipoles of given configurations."""

from difmd.training.committee import Consensus, consensus, train_committee
from difmd.training.driver import train
from difmd.training.gradient import loss_and_gradient, predict
from difmd.training.losses import Weights, loss
from difmd.training.metrics import Errors, Residuals, residuals
from difmd.training.recipe import Recipe
from difmd.training.reports import Report, report
from difmd.training.result import CommitteeResult, TrainingError, TrainingInterrupted, TrainingResult
from difmd.training.schedules import Schedule, reduce_on_plateau, warmup_cosine
from difmd.training.selection import all_but, only

__all__ = [
    "CommitteeResult",
    "Consensus",
    "Errors",
    "Recipe",
    "Report",
    "Residuals",
    "Schedule",
    "TrainingError",
    "TrainingInterrupted",
    "TrainingResult",
    "Weights",
    "all_but",
    "consensus",
    "loss",
    "loss_and_gradient",
    "only",
    "predict",
    "reduce_on_plateau",
    "report",
    "residuals",
    "train",
    "train_committee",
    "warmup_cosine",
]
