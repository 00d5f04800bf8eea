"""Cubic splines on an even grid as sums of B-splines: local, smooth, linear in their coefficients."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd.potentials.slots import Row


def coefficients(values: Any) -> np.ndarray:
    """Coefficients of the spline through `values` with the not-a-knot condition at both ends (host).

    [*tables, points] → [*tables, points + 2], from at least four points. With f = (c₋ + 4c + c₊)/6 and
    f″ = c₋ − 2c + c₊ at a knot, in units of the spacing, c = f − f″/6.

    References:
        de Boor, A Practical Guide to Splines, 1978, ch. IV and IX.
    """
    from scipy.interpolate import CubicSpline

    f = np.asarray(values, np.float64)
    knots = np.arange(f.shape[-1])
    curvature = CubicSpline(knots, f, axis=-1)(knots, 2)
    inner = f - curvature / 6
    before = curvature[..., :1] + 2 * inner[..., :1] - inner[..., 1:2]
    after = curvature[..., -1:] + 2 * inner[..., -1:] - inner[..., -2:-1]
    return np.concatenate([before, inner, after], axis=-1)


def spline(row: Row, x: Float[Array, "..."], points: int) -> Float[Array, "..."]:
    """The spline at `x`, in grid spacings from the first of `points`; the outermost polynomials continue."""
    k = jnp.clip(jnp.floor(x), 0, points - 2)
    u = x - k
    k = k.astype(jnp.int32)
    v = 1 - u
    weights = (v * v * v, 4 - 3 * u * u * (1 + v), 4 - 3 * v * v * (1 + u), u * u * u)
    first, *others = (w * row.at(k + m) for m, w in enumerate(weights))
    return sum(others, first) / 6
