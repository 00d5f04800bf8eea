"""Temperatures and pressures that change with the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import real_numbers
from difmd.errors import InputError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Schedule:
    """A value at some steps, straight lines between them, and the last one for ever; see `ramp`.

    Attributes:
        steps: in ascending order; [points].
        values: [points, ...].
    """

    steps: Float[Array, "points"]
    values: Float[Array, "points *shape"]

    def at(self, step: Array) -> Array:
        """The value in the step with this number."""
        steps = self.steps.astype(self.values.dtype)
        now = step.astype(self.values.dtype)
        k = jnp.clip(jnp.searchsorted(steps, now, side="right") - 1, 0, len(steps) - 2)
        share = jnp.clip((now - steps[k]) / (steps[k + 1] - steps[k]), 0, 1)
        return self.values[k] + share * (self.values[k + 1] - self.values[k])


def ramp(steps: Sequence[int], values: Sequence[Any]) -> Schedule:
    """A schedule for the `temperature` or `pressure` of an integrator: heating, quenching, annealing.

    `ramp([0, 10_000, 20_000], [300.0, 1500.0, 300.0])` heats, cools, and stays at 300.

    Args:
        steps: numbers of steps, ascending from 0 or more; before the first the first value holds.
        values: at these, floats or tensors [3, 3].

    Returns:
        `Schedule`.

    Raises:
        InputError: fewer than two steps, not ascending, another number of values, or values that are not
            finite.
    """
    numbers = real_numbers("ramp: steps", steps)
    given = real_numbers("ramp: values", values)
    if numbers.ndim != 1 or len(numbers) < 2 or not (np.diff(numbers) > 0).all() or numbers[0] < 0:
        raise InputError(f"ramp: steps = {numbers.tolist()} must be two or more ascending numbers")
    if given.ndim == 0 or len(given) != len(numbers) or not np.isfinite(given).all():
        raise InputError(f"ramp: give a finite value for each of {len(numbers)} steps, got {given.tolist()}")
    return Schedule(jnp.asarray(numbers, float), jnp.asarray(given, float))


def at(value: Any, step: Array) -> Any:
    """The value in this step of a `Schedule`, or a number as it is."""
    return value.at(step) if isinstance(value, Schedule) else value


def is_ramp(value: Any) -> bool:
    """Whether it changes with the steps."""
    return isinstance(value, Schedule)


def values_of(value: Any) -> Any:
    """All that a `Schedule` or a number may be, for checks."""
    return value.values if isinstance(value, Schedule) else value
