"""Geometry of a cell with any mixture of periodic directions, usable under jit."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def product(vectors: Array, matrix: Array) -> Array:
    """`vectors @ matrix` in full precision; accelerators otherwise round the factors to 8 or 11 bits."""
    return jnp.matmul(vectors, matrix, precision=lax.Precision.HIGHEST)


def complete_cell(cell: Any, periodic: tuple[bool, bool, bool]) -> Any:
    """An invertible cell, with unit vectors normal to the periodic vectors along open directions."""
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
    return 1.0 / xp.linalg.norm(invert(complete), axis=0)


def invert(cell: Any) -> Any:
    """Inverse of a 3×3 matrix, or of many; written out, as a decomposition takes long to compile.

    Columns are b×c, c×a and a×b over a·(b×c) for rows a, b, c.
    """
    xp: Any = np if isinstance(cell, np.ndarray) else jnp
    a, b, c = (cell[..., axis, :] for axis in range(3))
    normals = [xp.cross(b, c), xp.cross(c, a), xp.cross(a, b)]
    volume = xp.sum(a * normals[0], axis=-1)
    return xp.stack(normals, axis=-1) / volume[..., None, None]


def signed_volume(cell: Any) -> Any:
    """a·(b×c), negative for left-handed vectors [Å³]; shape as that of `cell` without its last two axes."""
    xp: Any = np if isinstance(cell, np.ndarray) else jnp
    return xp.sum(cell[..., 0, :] * xp.cross(cell[..., 1, :], cell[..., 2, :]), axis=-1)
