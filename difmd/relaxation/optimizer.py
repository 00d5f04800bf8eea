"""`Optimizer`: how a relaxation goes from one point to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from difmd.relaxation.point import Point


class Optimizer(NamedTuple):
    """Two pure functions; the same settings give the same functions, so that nothing compiles again.

    Attributes:
        init: `init(point) -> memory`, a pytree.
        step: `step(memory, point, enthalpy, gradient) -> point, memory`: where to look next, from the
            enthalpy [eV] and its gradient [eV/Å] at `point`, the one looked at last.
    """

    init: Callable[[Point], Any]
    step: Callable[[Any, Point, Array, Point], tuple[Point, Any]]
