"""Numbers on a grid, whose sums are exact: what makes a step undone bit for bit.

Multiples of a power of two are added without rounding as long as they stay below 2^p times it, with p = 53 in
float64 and 24 in float32. A step that adds to positions what depends on momenta alone, and to momenta what
depends on positions alone, each rounded to its grid, is undone exactly by subtracting the same.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from difmd._internal.reductions import largest


class Resolution(NamedTuple):
    """Exponents of the grids: numbers are multiples of 2^exponent.

    Attributes:
        positions: [Å]; of the cell, too.
        momenta: [amu Å/(Å√(amu/eV))].
        forces: of a pair [eV/Å].
    """

    positions: int
    momenta: int
    forces: int


def resolution_of(dtype: np.dtype) -> Resolution:
    """Grids that suit a precision.

    float64 reaches 8192 Å, momenta of 2048 and forces of 8192 eV/Å; float32 64 Å, 32 and 128 eV/Å.
    """
    if dtype == np.float64:
        return Resolution(positions=-40, momenta=-42, forces=-40)
    return Resolution(positions=-18, momenta=-19, forces=-17)


def rounded(x: Float[Array, "*shape"], exponent: int) -> Float[Array, "*shape"]:
    """The nearest multiple of 2^exponent, the even one of two that are equally near."""
    scale = 2.0**exponent
    return jnp.round(x / scale) * scale


def is_outside(x: Float[Array, "atoms 3"], exponent: int) -> Bool[Array, ""]:
    """Whether a number is so large that sums on the grid may be rounded."""
    most = 2.0 ** (exponent + jnp.finfo(x.dtype).nmant)
    return largest(jnp.abs(x).reshape(-1)) > most
