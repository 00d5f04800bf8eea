"""How a rollout, and an average over rollouts, is differentiated."""

from difmd.gradients.equilibrium import EquilibriumGradient, equilibrium_gradient
from difmd.gradients.methods import GradientMethod, checkpointed, direct

__all__ = [
    "EquilibriumGradient",
    "GradientMethod",
    "checkpointed",
    "direct",
    "equilibrium_gradient",
]
