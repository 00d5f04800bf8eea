"""Numbers of NumPy as arrays of JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def default_float() -> Any:
    """float32, or float64 where it is enabled."""
    return jax.dtypes.canonicalize_dtype(float)


def floats(values: Any, dtype: Any = None) -> Float[Array, "*shape"]:
    """An array of `values` in `dtype`, by default JAX's; NumPy rounds them, as JAX would compile it."""
    return jnp.asarray(np.asarray(values, default_float() if dtype is None else dtype))
