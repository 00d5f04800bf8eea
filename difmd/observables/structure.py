"""Is it a liquid? Order of a configuration from its structure factor."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.lattice import product
from difmd.system import System

SOLID_ABOVE = 0.35
"""Largest S(k)/N above which a configuration counts as crystalline; see `crystalline_order`."""


def crystalline_order(systems: System, *, spacing: float) -> Float[np.ndarray, "replicas"]:
    """Largest S(k)/N over the wave vectors where a crystal has its first Bragg peaks (host).

    1 for a perfect crystal and about 0.7 for a hot one; in a liquid the largest of a few hundred
    exponentially distributed values with mean below 3, thus about 20/N. For 100 atoms or more.

    Args:
        systems: replicas with a leading dimension, fully periodic, all in the cell of the first.
        spacing: distance of nearest neighbours [Å]; wave vectors from 0.85 to 1.5 × 2π/spacing are
            searched, which holds {111} and {200} of fcc, {110} of bcc and the first three of hcp.

    Returns:
        The order parameter of each replica; [replicas].
    """
    vectors = _wave_vectors(np.asarray(systems.cell[0], np.float64), spacing)
    return np.asarray(_orders(systems.positions, jnp.asarray(vectors, systems.positions.dtype)))


def is_liquid(systems: System, *, spacing: float) -> np.ndarray:
    """Whether each replica is less ordered than a crystal (host); bool [replicas]."""
    return crystalline_order(systems, spacing=spacing) < SOLID_ABOVE


@jax.jit
def _orders(positions: Array, vectors: Array) -> Array:
    def one(r: Array) -> Array:
        phase = product(r, vectors.T)
        total = jnp.sum(jnp.cos(phase), axis=0) ** 2 + jnp.sum(jnp.sin(phase), axis=0) ** 2
        return jnp.max(total) / len(r) ** 2

    return jax.lax.map(one, positions)


def _wave_vectors(cell: np.ndarray, spacing: float) -> np.ndarray:
    """Half of the reciprocal lattice vectors in the shell of the first Bragg peaks; [k, 3]."""
    reciprocal = 2 * np.pi * np.linalg.inv(cell).T
    low, high = (factor * 2 * np.pi / spacing for factor in (0.85, 1.5))
    reach = [int(np.ceil(high * np.linalg.norm(row) / (2 * np.pi))) for row in cell]
    grid = np.array(list(itertools.product(*[range(-n, n + 1) for n in reach])))
    grid = grid[len(grid) // 2 + 1 :]  # k and −k are the same
    vectors = grid @ reciprocal
    length = np.linalg.norm(vectors, axis=1)
    return vectors[(length > low) & (length < high)]
