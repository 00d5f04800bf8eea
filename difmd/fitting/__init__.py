"""Fits of potentials to measured quantities, through differentiable simulations."""

from difmd.fitting.diffusivity import fit_diffusivity
from difmd.fitting.driver import fit
from difmd.fitting.first_principles import first_principles
from difmd.fitting.gauss_newton import gauss_newton
from difmd.fitting.liquids.dynamics import Production, equilibrate, produce
from difmd.fitting.liquids.melting import box_length, keep_liquid, melt
from difmd.fitting.liquids.replicas import Replicas, given_replicas
from difmd.fitting.liquids.sampling import Sampling
from difmd.fitting.measurements import measure, measure_diffusivity
from difmd.fitting.result import FitError, FitInterrupted, FitResult
from difmd.fitting.state_points_term import state_points
from difmd.fitting.targets.density import DensityTarget
from difmd.fitting.targets.diffusivity import DiffusivityTarget, StatePoint
from difmd.fitting.targets.residuals import absolute_residual, relative_residual
from difmd.fitting.targets.structure import Structure, StructureTarget
from difmd.fitting.targets.tables import at_temperatures, read_targets
from difmd.fitting.targets.target import Setup, StatePointRun, Target
from difmd.fitting.terms import Evaluation, Residuals, Term, least_squares, prior, scalar_loss
from difmd.fitting.transforms import Transform, bounded, identity, logarithmic

__all__ = [
    "DensityTarget", "DiffusivityTarget", "Evaluation", "FitError", "FitInterrupted", "FitResult",
    "Production", "Replicas", "Residuals", "Sampling", "Setup", "StatePoint", "StatePointRun", "Structure",
    "StructureTarget", "Target", "Term", "Transform", "absolute_residual", "at_temperatures", "bounded",
    "box_length", "equilibrate", "first_principles", "fit", "fit_diffusivity", "gauss_newton",
    "given_replicas", "identity", "keep_liquid", "least_squares", "logarithmic", "measure",
    "measure_diffusivity", "melt", "prior", "produce", "read_targets", "relative_residual", "scalar_loss",
    "state_points",
]  # fmt: skip
