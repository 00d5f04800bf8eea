"""How a rollout, and an average over rollouts, is differentiated."""

from difmd.gradients.diffusion import DiffusionWindow, diffusion_sample
from difmd.gradients.equilibrium import EquilibriumGradient, equilibrium_gradient
from difmd.gradients.methods import GradientMethod, checkpointed, direct

__all__ = [
    "DiffusionWindow",
    "EquilibriumGradient",
    "GradientMethod",
    "checkpointed",
    "diffusion_sample",
    "direct",
    "equilibrium_gradient",
]
