"""Fits to measured quantities, through the trajectory."""

from difmd.fitting.diffusivity import (
    FitError,
    FitInterrupted,
    FitResult,
    absolute_residual,
    fit_diffusivity,
    relative_residual,
)
from difmd.fitting.estimate import StatePoint, measure_diffusivity
from difmd.fitting.gauss_newton import gauss_newton
from difmd.fitting.liquid import Replicas, Sampling, box_length, equilibrate, keep_liquid, melt, produce
from difmd.fitting.targets import DiffusivityTarget, at_temperatures, read_targets
from difmd.fitting.transforms import Transform, identity, logarithmic

__all__ = [
    "DiffusivityTarget",
    "FitError",
    "FitInterrupted",
    "FitResult",
    "Replicas",
    "Sampling",
    "StatePoint",
    "Transform",
    "absolute_residual",
    "at_temperatures",
    "box_length",
    "equilibrate",
    "fit_diffusivity",
    "gauss_newton",
    "identity",
    "keep_liquid",
    "logarithmic",
    "measure_diffusivity",
    "melt",
    "produce",
    "read_targets",
    "relative_residual",
]
