"""A polynomial that takes functions of distance smoothly to zero at a cut-off."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def polynomial_envelope(r: Float[Array, "*pairs"], cutoff: float, p: int) -> Float[Array, "*pairs"]:
    """1 − (p+1)(p+2)/2 xᵖ + p(p+2) xᵖ⁺¹ − p(p+1)/2 xᵖ⁺² for x = r/r_c < 1, else 0.

    Value, slope and curvature vanish at the cut-off.

    References:
        Gasteiger, Groß & Günnemann, ICLR 2020, arXiv:2003.03123, equation 8.
    """
    is_inside = r < cutoff
    x = jnp.where(is_inside, r, cutoff) / cutoff
    value = 1 - x**p * ((p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2)))
    return jnp.where(is_inside, value, 0)
