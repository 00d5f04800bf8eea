"""Numbers on a grid, whose sums are exact, so that a step can be undone bit for bit.

Sums of multiples of a power of two are exact as long as they stay below 2^p times it, with p = 53 in float64
and 24 in float32. A step that adds a function of the momenta to the positions, and vice versa, each rounded
to its grid, is undone exactly by subtracting the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from difmd._internal.reductions import largest


class Resolution(NamedTuple):
    """Exponents of the grids: positions and cell, momenta, and pair forces are multiples of 2^exponent."""

    positions: int
    momenta: int
    forces: int


def resolution_of(dtype: np.dtype) -> Resolution:
    """Grids for a precision: 8192 Å, momenta of 2048 and 8192 eV/Å in float64; 64, 32 and 128 in float32."""
    if dtype == np.float64:
        return Resolution(positions=-40, momenta=-42, forces=-40)
    return Resolution(positions=-18, momenta=-19, forces=-17)


def rounded(x: Float[Array, "*shape"], exponent: int) -> Float[Array, "*shape"]:
    """The nearest multiple of 2^exponent; halfway between two, the even one."""
    scale = 2.0**exponent
    return jnp.round(x / scale) * scale


def is_outside(x: Float[Array, "atoms 3"], exponent: int) -> Bool[Array, ""]:
    """Whether any number is so large that sums on the grid may be rounded."""
    most = 2.0 ** (exponent + jnp.finfo(x.dtype).nmant)
    return largest(jnp.abs(x).reshape(-1)) > most
