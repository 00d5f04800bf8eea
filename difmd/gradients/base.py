"""The protocol of gradient methods: values that are passed to `rollout(gradient=)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from difmd.gradients.segment import Carry, Inputs, Plan

Run: TypeAlias = Callable[[Plan, Inputs, Carry], tuple[Carry, Any]]
"""`run(plan, inputs, carry) -> carry, frames`: all segments of a plan."""


class GradientMethod(NamedTuple):
    """A way to differentiate a rollout.

    Attributes:
        run: goes through all segments of a plan, and is differentiated in this way.
    """

    run: Run
