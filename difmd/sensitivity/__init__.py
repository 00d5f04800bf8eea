"""Sensitivity analysis: gradient reports, Lyapunov exponents, equilibrium averages and reweighting."""

from difmd.sensitivity.diffusion import DiffusionWindow, diffusion_sample
from difmd.sensitivity.equilibrium import EquilibriumGradient, equilibrium_gradient
from difmd.sensitivity.lyapunov import TangentGrowth, lyapunov_exponents, tangent_growth
from difmd.sensitivity.report import Cost, GradientReport
from difmd.sensitivity.reports import gradient_report
from difmd.sensitivity.reweighting import (
    Reweighted,
    Reweighting,
    energies_of,
    log_mixture,
    reweighted,
    reweighting,
)

__all__ = [
    "Cost", "DiffusionWindow", "EquilibriumGradient", "GradientReport", "Reweighted", "Reweighting",
    "TangentGrowth", "diffusion_sample", "energies_of", "equilibrium_gradient", "gradient_report",
    "log_mixture", "lyapunov_exponents", "reweighted", "reweighting", "tangent_growth",
]  # fmt: skip
