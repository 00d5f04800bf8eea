"""The interface of gradient methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from difmd.gradients.segment import Carry, Inputs, Plan

Run: TypeAlias = Callable[[Plan, Inputs, Carry], tuple[Carry, Any]]
"""`run(plan, inputs, carry) -> carry, frames`: all segments of a plan."""


class GradientMethod(NamedTuple):
    """A way to differentiate a rollout, passed as `rollout(gradient=)`.

    Attributes:
        run: runs all segments of a plan, with the derivatives of this method.
        name: the call of the factory that made it, for `repr`.
    """

    run: Run
    name: str = "GradientMethod(…)"

    def __repr__(self) -> str:
        """The call of the factory."""
        return self.name
