"""Crystalline order of a configuration from its structure factor."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.lattice import product
from difmd.errors import InputError, check_positive
from difmd.system import System, check_system

SOLID_ABOVE = 0.35
"""Largest S(k)/N above which a configuration counts as crystalline; see `crystalline_order`."""


def crystalline_order(systems: System, *, spacing: float) -> Float[np.ndarray, "replicas"]:
    """Largest S(k)/N over the wave vectors where a crystal has its first Bragg peaks (host).

    It is 1 for a perfect crystal, about 0.7 for a hot one, and about 20/N in a liquid. For 100 atoms or more.

    Args:
        systems: replicas with a leading dimension, periodic in all directions, in the same cell.
        spacing: distance of nearest neighbours [Å]; wave vectors from 0.85 to 1.5 × 2π/spacing include {111}
            and {200} of fcc, {110} of bcc and the first three of hcp.

    Returns:
        The order parameter of each replica; [replicas].

    Raises:
        InputError: no replicas, open directions, different cells, or a spacing that does not suit the cell.
    """
    check_system(systems)
    check_positive("spacing", spacing, "Å")
    if systems.positions.ndim != 3:
        raise InputError("systems must be replicas: give jax.tree.map(lambda x: x[None], system)")
    cells = np.asarray(systems.cell, np.float64)
    if not np.asarray(systems.pbc).all() or (cells != cells[0]).any():
        raise InputError("systems must share a cell that is periodic in all directions")
    vectors = _wave_vectors(cells[0], spacing)
    if not len(vectors):
        raise InputError(f"no wave vector of the cell is near 2π/spacing with spacing = {spacing} Å")
    return np.asarray(_orders(systems.positions, jnp.asarray(vectors, systems.positions.dtype)))


def is_liquid(systems: System, *, spacing: float) -> np.ndarray:
    """Whether each replica is less ordered than a crystal (host).

    Args:
        systems: as in `crystalline_order`.
        spacing: distance of nearest neighbours [Å].

    Returns:
        bool [replicas].

    Raises:
        InputError: as `crystalline_order`.
    """
    return crystalline_order(systems, spacing=spacing) < SOLID_ABOVE


@jax.jit
def _orders(positions: Array, vectors: Array) -> Array:
    def order(r: Array) -> Array:
        phase = product(r, vectors.T)
        total = jnp.sum(jnp.cos(phase), axis=0) ** 2 + jnp.sum(jnp.sin(phase), axis=0) ** 2
        return jnp.max(total) / len(r) ** 2

    return jax.lax.map(order, positions)


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
