"""How a rollout, and an average over rollouts, is differentiated."""

from difmd.gradients.checkpointed import checkpointed
from difmd.gradients.diffusion import DiffusionWindow, diffusion_sample
from difmd.gradients.direct import direct
from difmd.gradients.equilibrium import EquilibriumGradient, equilibrium_gradient
from difmd.gradients.forward import forward
from difmd.gradients.lyapunov import TangentGrowth, tangent_growth
from difmd.gradients.methods import GradientMethod
from difmd.gradients.report import Cost, GradientReport, gradient_report
from difmd.gradients.reversible import reversible
from difmd.gradients.reweighting import (
    Reweighted,
    Reweighting,
    energies_of,
    log_mixture,
    reweighted,
    reweighting,
)
from difmd.gradients.truncated import truncated

__all__ = [
    "Cost",
    "DiffusionWindow",
    "EquilibriumGradient",
    "GradientMethod",
    "GradientReport",
    "Reweighted",
    "Reweighting",
    "TangentGrowth",
    "checkpointed",
    "diffusion_sample",
    "direct",
    "energies_of",
    "equilibrium_gradient",
    "forward",
    "gradient_report",
    "log_mixture",
    "reversible",
    "reweighted",
    "reweighting",
    "tangent_growth",
    "truncated",
]
