"""Reverse mode of JAX, which stores every step."""

from __future__ import annotations

from typing import Any

from jax import lax

from difmd.gradients.base import GradientMethod
from difmd.gradients.segment import Carry, Inputs, Plan, segment


def direct() -> GradientMethod:
    """Store every step: fastest, with memory proportional to the number of steps.

    Returns:
        `GradientMethod`, for every integrator.
    """
    return GradientMethod(run=_run, name="direct()")


def _run(plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    return lax.scan(lambda c, _: segment(plan, inputs, c), carry, None, length=plan.n_segments)
