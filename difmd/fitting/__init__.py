"""Fits to measured quantities, through the trajectory."""

from difmd.fitting.diffusivity import fit_diffusivity
from difmd.fitting.driver import fit
from difmd.fitting.first_principles import first_principles
from difmd.fitting.gauss_newton import gauss_newton
from difmd.fitting.liquids.estimate import StatePoint, measure, measure_diffusivity
from difmd.fitting.liquids.liquid import (
    Replicas,
    Sampling,
    box_length,
    equilibrate,
    given_replicas,
    keep_liquid,
    melt,
    produce,
)
from difmd.fitting.liquids.state_points_term import state_points
from difmd.fitting.result import FitError, FitInterrupted, FitResult
from difmd.fitting.targets.residuals import absolute_residual, relative_residual
from difmd.fitting.targets.structure import Structure
from difmd.fitting.targets.target import DiffusivityTarget, StructureTarget, at_temperatures, read_targets
from difmd.fitting.terms import Evaluation, Residuals, Term, least_squares, prior, scalar_loss
from difmd.fitting.transforms import Transform, bounded, identity, logarithmic

__all__ = [
    "DiffusivityTarget",
    "Evaluation",
    "FitError",
    "FitInterrupted",
    "FitResult",
    "Replicas",
    "Residuals",
    "Sampling",
    "StatePoint",
    "Structure",
    "StructureTarget",
    "Term",
    "Transform",
    "absolute_residual",
    "at_temperatures",
    "bounded",
    "box_length",
    "equilibrate",
    "first_principles",
    "fit",
    "fit_diffusivity",
    "gauss_newton",
    "given_replicas",
    "identity",
    "keep_liquid",
    "least_squares",
    "logarithmic",
    "measure",
    "measure_diffusivity",
    "melt",
    "prior",
    "produce",
    "read_targets",
    "relative_residual",
    "scalar_loss",
    "state_points",
]
