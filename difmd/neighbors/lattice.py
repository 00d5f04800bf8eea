"""Geometry of a cell with any mixture of periodic directions, usable under jit."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def product(vectors: Array, matrix: Array) -> Array:
    """`vectors @ matrix` in full precision; accelerators otherwise round the factors to 8 or 11 bits."""
    return jnp.matmul(vectors, matrix, precision=lax.Precision.HIGHEST)


def complete_cell(cell: Any, periodic: tuple[bool, bool, bool]) -> Any:
    """Replace the vectors of non-periodic directions by unit vectors normal to the periodic ones.

    With them the inverse splits a position into lattice coordinates within the span of the periodic
    vectors and Cartesian coordinates outside it.

    Args:
        cell: rows are lattice vectors [Å]; [3, 3].
        periodic: which rows count; static.

    Returns:
        An invertible cell; [3, 3].
    """
    rows = [axis for axis in range(3) if periodic[axis]]
    # NumPy stays NumPy, so that the host compiles nothing.
    xp: Any = np if isinstance(cell, np.ndarray) else jnp
    eye = xp.eye(3, dtype=cell.dtype)
    if len(rows) == 3:
        return cell
    if len(rows) == 0:
        return eye
    first = cell[rows[0]]
    if len(rows) == 2:
        normals = [xp.cross(first, cell[rows[1]])]
    else:
        # The Cartesian axis farthest from the one periodic vector gives a well-conditioned normal.
        normal = xp.cross(first, eye[xp.argmin(xp.abs(first))])
        normals = [normal, xp.cross(first, normal)]
    units = iter([normal / xp.linalg.norm(normal) for normal in normals])
    return xp.stack([cell[axis] if periodic[axis] else next(units) for axis in range(3)])


def heights(complete: Any) -> Any:
    """Distances between opposite faces of an invertible cell [Å]; [3]."""
    xp: Any = np if isinstance(complete, np.ndarray) else jnp
    return 1.0 / xp.linalg.norm(xp.linalg.inv(complete), axis=0)


def image_range(height: np.ndarray, reach: float, periodic: tuple[bool, bool, bool]) -> tuple[int, int, int]:
    """How many images each way a sphere of radius `reach` around an atom can touch (host)."""
    a, b, c = (
        int(np.ceil(reach / h * (1 + 1e-9))) if p else 0 for h, p in zip(height, periodic, strict=True)
    )
    return a, b, c


def image_table(ranges: tuple[int, int, int]) -> np.ndarray:
    """All images within `ranges` but the zeroth; int [images, 3]."""
    axes = [range(-n, n + 1) for n in ranges]
    table = [image for image in itertools.product(*axes) if image != (0, 0, 0)]
    return np.asarray(table, np.int32).reshape(-1, 3)
