"""How a rollout, and an average over rollouts, is differentiated."""

from difmd.gradients.checkpointed import checkpointed
from difmd.gradients.diffusion import DiffusionWindow, diffusion_sample
from difmd.gradients.direct import direct
from difmd.gradients.equilibrium import EquilibriumGradient, equilibrium_gradient
from difmd.gradients.forward import forward
from difmd.gradients.methods import GradientMethod
from difmd.gradients.reversible import reversible
from difmd.gradients.truncated import truncated

__all__ = [
    "DiffusionWindow",
    "EquilibriumGradient",
    "GradientMethod",
    "checkpointed",
    "diffusion_sample",
    "direct",
    "equilibrium_gradient",
    "forward",
    "reversible",
    "truncated",
]
