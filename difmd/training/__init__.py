"""Fit potentials to energies, forces, stresses and dipoles of given configurations."""

from difmd.training.gradient import loss_and_gradient, predict
from difmd.training.loss import Weights, loss
from difmd.training.metrics import Errors, Residuals, residuals
from difmd.training.train import Recipe, TrainingError, TrainingInterrupted, TrainingResult, train

__all__ = [
    "Errors",
    "Recipe",
    "Residuals",
    "TrainingError",
    "TrainingInterrupted",
    "TrainingResult",
    "Weights",
    "loss",
    "loss_and_gradient",
    "predict",
    "residuals",
    "train",
]
