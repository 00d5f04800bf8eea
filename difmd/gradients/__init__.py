"""Methods to differentiate a rollout, one per file."""

from difmd.gradients.base import GradientMethod
from difmd.gradients.checkpointed import checkpointed
from difmd.gradients.direct import direct
from difmd.gradients.forward import forward
from difmd.gradients.reversible import reversible
from difmd.gradients.truncated_backpropagation import truncated_backpropagation

__all__ = ["GradientMethod", "checkpointed", "direct", "forward", "reversible", "truncated_backpropagation"]
