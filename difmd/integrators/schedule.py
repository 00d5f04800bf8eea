"""Schedules: temperatures and pressures that change with the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import real_numbers
from difmd._internal.summaries import fields_summary
from difmd.errors import InputError

Scalar: TypeAlias = float | Float[Array, ""]
"""A number, which may be traced."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Schedule:
    """A piecewise linear function of the step, constant after the last point; see `ramp`.

    Attributes:
        steps: in ascending order; [points].
        values: [points, ...].
    """

    steps: Float[Array, "points"]
    values: Float[Array, "points *shape"]

    __repr__ = fields_summary

    def at(self, step: Array) -> Array:
        """The value at a step.

        Args:
            step: int [].

        Returns:
            The value; [...].
        """
        steps = self.steps.astype(self.values.dtype)
        now = step.astype(self.values.dtype)
        k = jnp.clip(jnp.searchsorted(steps, now, side="right") - 1, 0, len(steps) - 2)
        fraction = jnp.clip((now - steps[k]) / (steps[k + 1] - steps[k]), 0, 1)
        return self.values[k] + fraction * (self.values[k + 1] - self.values[k])


def ramp(steps: Sequence[int], values: Sequence[Any]) -> Schedule:
    """A schedule for the `temperature` or `pressure` of an integrator: heating, quenching, annealing.

    `ramp([0, 10_000, 20_000], [300.0, 1500.0, 300.0])` heats to 1500 K, cools, and stays at 300 K.

    Args:
        steps: ascending, ≥ 0; before the first step the value is the first.
        values: at these steps, numbers or tensors [3, 3], in the units of the argument.

    Returns:
        `Schedule`.

    Raises:
        InputError: fewer than two steps, steps that do not ascend, or not a finite value for each.
    """
    numbers = real_numbers("ramp: steps", steps)
    points = real_numbers("ramp: values", values)
    if numbers.ndim != 1 or len(numbers) < 2 or not (np.diff(numbers) > 0).all() or numbers[0] < 0:
        raise InputError(f"ramp: steps = {numbers.tolist()} must be two or more ascending numbers")
    if points.ndim == 0 or len(points) != len(numbers) or not np.isfinite(points).all():
        raise InputError(f"ramp: give a finite value for each of {len(numbers)} steps, got {points.tolist()}")
    return Schedule(jnp.asarray(numbers, float), jnp.asarray(points, float))


def at(value: Any, step: Array) -> Any:
    """The value of a `Schedule` at this step, or a constant as it is."""
    return value.at(step) if isinstance(value, Schedule) else value


def is_ramp(value: Any) -> bool:
    """Whether a value is a `Schedule`."""
    return isinstance(value, Schedule)


def values_of(value: Any) -> Any:
    """All values of a `Schedule`, or a constant as it is, for checks."""
    return value.values if isinstance(value, Schedule) else value
