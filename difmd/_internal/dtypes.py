"""Conversion of NumPy arrays to JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def default_float() -> np.dtype[Any]:
    """float32, or float64 where it is enabled."""
    return jax.dtypes.canonicalize_dtype(float)


def floats(values: Any, dtype: Any = None) -> Float[Array, "*shape"]:
    """An array of `values` in `dtype`; default: JAX's default."""
    dtype = default_float() if dtype is None else dtype
    # NumPy rounds, as JAX would compile a conversion for each shape.
    return jnp.asarray(np.asarray(values, dtype), dtype)
