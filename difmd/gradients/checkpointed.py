"""Reverse mode that stores some states and computes the steps between them again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from difmd.errors import InputError
from difmd.gradients.methods import GradientMethod
from difmd.motion import Carry, Inputs, Plan, segment


def checkpointed(*, levels: int = 1) -> GradientMethod:
    """Store the start of each segment and recompute the rest: one forward pass more for each level.

    With segments of about √n steps memory grows as √n. The segment is the `rebuild_every` of the
    rollout, or `save_every` when the list is updated dynamically. With more levels segments are gathered
    in groups, these in larger ones and so on, as equal as the divisors of their number allow, and only the
    starts of the largest groups are stored.

    Args:
        levels: of groups, counting the segments.

    Raises:
        InputError: fewer than one level.

    References:
        Griewank & Walther, ACM Trans. Math. Softw. 26, 19 (2000), doi:10.1145/347837.347846.
    """
    if levels < 1:
        raise InputError(f"levels = {levels} must be at least 1")
    return GradientMethod(run=functools.partial(_run, levels))


def _run(levels: int, plan: Plan, inputs: Inputs, carry: Carry) -> tuple[Carry, Any]:
    def nested(lengths: list[int]) -> Callable[[Carry, None], tuple[Carry, Any]]:
        inner = nested(lengths[1:]) if lengths[1:] else lambda c, _: segment(plan, inputs, c)
        return lambda c, _: lax.scan(jax.checkpoint(inner), c, None, length=lengths[0])

    lengths = factors(plan.n_segments, levels)
    carry, frames = nested(lengths)(carry, None)
    return carry, jax.tree.map(lambda x: x.reshape(plan.n_segments, *x.shape[len(lengths) :]), frames)


def factors(number: int, n_factors: int) -> list[int]:
    """Factors of a number, as equal as its divisors allow, the largest first; fewer where there are none.

    >>> factors(1000, 3), factors(7, 2)
    ([10, 10, 10], [7])
    """
    found = []
    for left in range(n_factors, 1, -1):
        root = number ** (1 / left)
        divisor = min(
            (d for d in range(2, number + 1) if number % d == 0), key=lambda d: abs(d - root), default=1
        )
        if divisor in (1, number):
            break
        found.append(divisor)
        number //= divisor
    return sorted([*found, number], reverse=True)
