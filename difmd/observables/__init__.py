"""Observables of trajectories with error bars, and elastic constants of crystals."""

from difmd.observables.correlation import (
    autocorrelation,
    mean_squared_displacement,
    remove_center_of_mass,
    velocity_autocorrelation,
)
from difmd.observables.elastic import elastic_constants
from difmd.observables.radial import RadialDistribution, radial_distribution
from difmd.observables.self_diffusion import (
    Diffusivity,
    diffusivity,
    diffusivity_from_arrays,
    finite_size_correction,
)
from difmd.observables.statistics import Estimate, over_blocks, over_replicas, with_control
from difmd.observables.structure import crystalline_order, is_liquid

__all__ = [
    "Diffusivity", "Estimate", "RadialDistribution", "autocorrelation", "crystalline_order",
    "diffusivity", "diffusivity_from_arrays", "elastic_constants", "finite_size_correction", "is_liquid",
    "mean_squared_displacement", "over_blocks", "over_replicas", "radial_distribution",
    "remove_center_of_mass", "velocity_autocorrelation", "with_control",
]  # fmt: skip
