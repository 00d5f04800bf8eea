"""How reverse mode goes back through a rollout: values that are passed to `rollout(gradient=)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class GradientMethod(NamedTuple):
    """A way to differentiate a rollout.

    Attributes:
        wrap: turns the function that advances one segment into one that is differentiated in this way.
    """

    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]


def direct() -> GradientMethod:
    """Store every step: fastest, memory in proportion to the number of steps."""
    return GradientMethod(wrap=lambda segment: segment)


def checkpointed() -> GradientMethod:
    """Store the start of each segment and recompute the rest: one forward pass more.

    With segments of about √n steps memory grows as √n. The segment is the `rebuild_every` of the
    rollout, or `save_every` when the list is updated dynamically.

    References:
        Griewank & Walther, ACM Trans. Math. Softw. 26, 19 (2000), doi:10.1145/347837.347846.
    """
    return GradientMethod(wrap=jax.checkpoint)
