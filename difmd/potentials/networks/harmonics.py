"""Spherical harmonics and the coupling of angular momenta, in the real basis of e3nn."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Irrep(NamedTuple):
    """An irreducible representation of O(3): degree l, and parity ±1."""

    l: int  # noqa: E741
    parity: int

    @property
    def dim(self) -> int:
        """2l + 1."""
        return 2 * self.l + 1

    @property
    def name(self) -> str:
        """As e3nn writes it, such as 1o."""
        return f"{self.l}{'e' if self.parity > 0 else 'o'}"


def natural(l: int) -> Irrep:  # noqa: E741
    """The representation of the spherical harmonics of degree l, of parity (−1)^l."""
    return Irrep(l, (-1) ** l)


@functools.cache
def coupling(l1: int, l2: int, l3: int) -> Float[np.ndarray, "m1 m2 m3"]:
    """√(2l₃+1) times the Wigner 3j symbols of the real basis: products of unit variance keep it.

    References:
        Geiger & Smidt, arXiv:2207.09453 (the basis and its phases).
    """
    import e3nn_jax

    return np.sqrt(2 * l3 + 1) * np.asarray(e3nn_jax.clebsch_gordan(l1, l2, l3), np.float64)


def spherical_harmonics(
    l_max: int,
    vectors: tuple[Float[Array, "*pairs"], Float[Array, "*pairs"], Float[Array, "*pairs"]],
    distances: Float[Array, "*pairs"],
) -> list[Float[Array, "*pairs m"]]:
    """Real spherical harmonics of r/|r| up to `l_max`, with Σ_m Y_lm² = 2l + 1; one array for each degree.

    Y_l follows from Y_1 ⊗ Y_{l−1} by the recursion of the couplings, in the components that are not zero.
    The order is that of e3nn, which is x, y, z for l = 1.
    """
    x, y, z = (v / distances for v in vectors)
    degrees = [[jnp.ones_like(x)]]
    if l_max > 0:
        root = math.sqrt(3.0)
        degrees.append([root * x, root * y, root * z])
    for l in range(2, l_max + 1):  # noqa: E741
        table = _recursion(l)
        components = []
        for m in range(2 * l + 1):
            terms = [
                float(table[a, b, m]) * degrees[1][a] * degrees[l - 1][b]
                for a, b in zip(*np.nonzero(np.abs(table[:, :, m]) > 1e-12), strict=True)
            ]
            components.append(sum(terms[1:], terms[0]))
        degrees.append(components)
    return [jnp.stack(components, axis=-1) for components in degrees]


@functools.cache
def _recursion(l: int) -> Float[np.ndarray, "3 m m"]:  # noqa: E741
    """T with Y_l = T(Y_1, Y_{l−1}): a coupling, scaled so that Σ_m Y_lm² = 2l + 1."""
    table = coupling(1, l - 1, l)
    length = np.linalg.norm(np.einsum("a,b,abm->m", _along_axis(1), _along_axis(l - 1), table))
    return table * np.sqrt(2 * l + 1) / length


def _along_axis(l: int) -> Float[np.ndarray, "m"]:  # noqa: E741
    """Y_l of the direction of one axis."""
    if l < 2:
        return np.array([[1.0], [np.sqrt(3.0), 0.0, 0.0]][l])
    return np.einsum("a,b,abm->m", _along_axis(1), _along_axis(l - 1), _recursion(l))
