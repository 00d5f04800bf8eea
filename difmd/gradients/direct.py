"""Reverse mode as JAX does it: every step is stored."""

from __future__ import annotations

from typing import Any

from jax import lax

from difmd.gradients.base import GradientMethod
from difmd.gradients.segment import Carry, Inputs, Plan, segment


def direct() -> GradientMethod:
    """Store every step: fastest, memory in proportion to the number of steps."""
    return GradientMethod(run=_run)


def _run(plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    return lax.scan(lambda c, _: segment(plan, inputs, c), carry, None, length=plan.n_segments)
