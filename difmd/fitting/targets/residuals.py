"""Residuals of targets that are single numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from difmd.fitting.liquids.states import Average
from difmd.fitting.result import MOST
from difmd.fitting.targets.target import Residual
from difmd.fitting.terms import Residuals, flat_names


def relative_residual(value: Array, measured: Array) -> Array:
    """ln(D/D_measured): every target counts by its relative deviation.

    Args:
        value: simulated values of all targets of one quantity; [targets].
        measured: measured values, in the same unit; [targets].

    Returns:
        Residuals; [targets].
    """
    return jnp.log(value / measured)


def absolute_residual(value: Array, measured: Array) -> Array:
    """(D − D_measured)/rms(D_measured): least squares in D, as for equal absolute errors.

    Args:
        value: simulated values of all targets of one quantity; [targets].
        measured: measured values, in the same unit; [targets].

    Returns:
        Residuals; [targets].
    """
    return (value - measured) / jnp.sqrt(jnp.mean(measured**2))


def scalar_residuals(
    measured: Sequence[float], stderr: Sequence[float | None], results: Sequence[Average], residual: Residual,
    share: float,
) -> list[Residuals]:  # fmt: skip
    """Residuals of all targets of one quantity, a single number each, times `share`.

    `stderr` are the errors of the measured values, None where they are not known.
    """
    values, known = jnp.asarray([result.value for result in results]), jnp.asarray(measured)
    deviations, slopes = jax.jvp(lambda v: residual(v, known), (values,), (jnp.ones_like(values),))
    parts = []
    for result, error, deviation, slope in zip(results, stderr, deviations, slopes, strict=True):
        scale = share * slope
        noise = jnp.nan if error is None else jnp.abs(scale) * np.hypot(error, result.stderr)
        jacobian, errors = jax.tree.map(
            lambda g, s=scale: (g * s)[None], (result.gradient, result.gradient_stderr)
        )
        noises = jnp.asarray(noise, values.dtype)[None]
        parts.append(Residuals((share * deviation)[None], jacobian, errors, noises))
    return parts


def gradient_record(name: str, gradients: Sequence[Any], unit: float) -> dict[str, Any]:
    """Gradients of all targets over a unit, by the names of parameters; `norm_of_…` for more than 64."""
    if sum(x.size for x in jax.tree.leaves(gradients[0])) > MOST:
        return {f"norm_of_{name}": [float(optax.tree.norm(x)) / unit for x in gradients]}
    rows = [flat_names(x, 1 / unit) for x in gradients]
    return {name: {key: [row[key] for row in rows] for key in rows[0]}}
