"""Residuals of what was found at state points, and what the history keeps of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from difmd import units
from difmd.fitting.result import MOST
from difmd.fitting.targets.structure import Structure
from difmd.fitting.targets.target import DiffusivityTarget, StructureTarget, Target
from difmd.fitting.terms import Residuals, flat_names


def relative_residual(value: Array, measured: Array) -> Array:
    """ln(D/D_measured): every target counts by its relative deviation."""
    return jnp.log(value / measured)


def absolute_residual(value: Array, measured: Array) -> Array:
    """(D − D_measured)/rms(D_measured): least squares in D, as for equal absolute errors."""
    return (value - measured) / jnp.sqrt(jnp.mean(measured**2))


def residuals_of(
    targets: Sequence[Target], results: Sequence[Any], residual: Callable[[Any, Any], Any]
) -> Residuals:
    """All residuals, so that the sum of their squares is the mean over targets."""
    dynamic = [k for k, target in enumerate(targets) if isinstance(target, DiffusivityTarget)]
    share = 1 / math.sqrt(len(targets))
    of: dict[int, Residuals] = {}
    if dynamic:
        values = jnp.asarray([results[k].value for k in dynamic])
        measured = jnp.asarray([targets[k].diffusivity for k in dynamic])  # type: ignore[union-attr]
        deviations, slopes = jax.jvp(lambda v: residual(v, measured), (values,), (jnp.ones_like(values),))
        for k, deviation, slope in zip(dynamic, deviations, slopes, strict=True):
            point, scale = results[k], share * slope
            error = targets[k].stderr
            noise = jnp.nan if error is None else jnp.abs(scale) * np.hypot(error, point.stderr)
            of[k] = Residuals(
                (share * deviation)[None],
                jax.tree.map(lambda g, s=scale: (g * s)[None], point.gradient.gradient),
                jax.tree.map(lambda g, s=scale: (g * s)[None], point.gradient.gradient_stderr),
                jnp.asarray(noise, values.dtype)[None],
            )
    for k, target in enumerate(targets):
        if isinstance(target, StructureTarget):
            of[k] = _of_structure(target, results[k], share)
    return jax.tree.map(lambda *x: jnp.concatenate(x), *(of[k] for k in range(len(targets))))


def _of_structure(target: StructureTarget, found: Structure, share: float) -> Residuals:
    scale = share * math.sqrt(target.weight / len(target.r))
    dtype = found.g.dtype
    error = np.nan if target.stderr is None else np.hypot(target.stderr, np.asarray(found.stderr))
    noise = jnp.broadcast_to(jnp.asarray(scale * error, dtype), found.g.shape)
    return Residuals(
        scale * (found.g - jnp.asarray(target.g, dtype)),
        jax.tree.map(lambda x: scale * x, found.gradient),
        jax.tree.map(lambda x: scale * x, found.gradient_stderr),
        noise,
    )


def record_of(targets: Sequence[Target], results: Sequence[Any]) -> dict[str, Any]:
    """What `state_points` says that its record holds."""
    unit = 1e-9 * units.M2_PER_S
    points = [r for t, r in zip(targets, results, strict=True) if isinstance(t, DiffusivityTarget)]
    found: dict[str, Any] = {}
    if points:
        found["D_1e-9_m2_s"] = [point.value / unit for point in points]
        found["D_stderr_1e-9_m2_s"] = [point.stderr / unit for point in points]
        for term in ("gradient", "gradient_stderr", "along", "initial"):
            of_points = [getattr(point.gradient, term) for point in points]
            if sum(x.size for x in jax.tree.leaves(of_points[0])) > MOST:
                found[f"norm_of_{term}"] = [float(optax.tree.norm(x)) / unit for x in of_points]
                continue
            rows = [flat_names(x, 1 / unit) for x in of_points]
            found[term] = {name: [row[name] for row in rows] for name in rows[0]}
    structures = [(t, r) for t, r in zip(targets, results, strict=True) if isinstance(t, StructureTarget)]
    if structures:
        found["g"] = [np.asarray(r.g).tolist() for _, r in structures]
        found["g_stderr"] = [np.asarray(r.stderr).tolist() for _, r in structures]
        found["effective"] = [r.effective for _, r in structures]
        found["g_deviation"] = [
            float(np.sqrt(np.mean((np.asarray(r.g) - np.asarray(t.g)) ** 2))) for t, r in structures
        ]
    return found
