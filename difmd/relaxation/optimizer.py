"""`Optimizer`: the interface of FIRE and L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from difmd._internal.summaries import short
from difmd.relaxation.point import Point


class Optimizer(NamedTuple):
    """A minimiser as two pure functions; equal settings give the same functions, so that they compile once.

    Attributes:
        init: `init(point) -> memory`, a pytree.
        step: `step(memory, point, enthalpy, gradient) -> point, memory`: the next point to evaluate, from
            the enthalpy [eV] and its gradient [eV/Å] at the last one.
        name: the call of the factory that made it, for `repr`.
    """

    init: Callable[[Point], Any]
    step: Callable[[Any, Point, Array, Point], tuple[Point, Any]]
    name: str = "Optimizer(…)"

    def __repr__(self) -> str:
        """The call of the factory."""
        return self.name


def named(factory: str, **settings: float) -> str:
    """The `name` of an optimizer: the call of its factory."""
    return f"{factory}({', '.join(f'{name}={short(value)}' for name, value in settings.items())})"
