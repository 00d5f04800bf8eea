"""Checks of the arrays of a structure: finite numbers, a valid cell, distinct atoms (host)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from difmd._internal.argument_checks import real_numbers
from difmd._internal.pairs import find_pairs
from difmd.errors import InputError

# Up to this number of atoms all distances are computed, which is faster than a neighbour search.
_FEW_ATOMS = 64

# Atoms closer than this coincide [Å].
_COINCIDE = 1e-4

# Cut-off of the search [Å]: with a shorter one there would be many more bins than atoms.
_SEARCHED = 1.0


def check_dtype(dtype: Any) -> None:
    """Refuse a dtype that is not a floating-point type; None passes."""
    try:
        is_floating = dtype is None or jnp.issubdtype(jnp.dtype(dtype), np.floating)
    except TypeError:
        is_floating = False
    if not is_floating:
        raise InputError(f"dtype = {dtype!r} must be a floating-point type, such as 'float32' or 'float64'")


def finite_floats(name: str, values: Any) -> np.ndarray:
    """`values` as an array of finite float64."""
    array = real_numbers(name, values)
    bad = ~np.isfinite(array)
    if bad.any():
        where = [int(i) for i in np.argwhere(bad)[0]]
        raise InputError(f"{name}{where} = {array[tuple(where)]} is not finite")
    return array


def cell_and_pbc(cell: Any, pbc: Any) -> tuple[np.ndarray, np.ndarray]:
    """A cell [3, 3] and periodic directions [3] from the arguments of `host_system`."""
    box: np.ndarray = np.zeros((3, 3))
    if cell is not None:
        box = finite_floats("cell", cell)
        if box.shape == (3,):
            box = np.diag(box)
        if box.shape != (3, 3):
            raise InputError(f"cell must have shape [3, 3] or [3], got {list(box.shape)}")
    flags = np.asarray(cell is not None if pbc is None else pbc)
    if flags.shape not in ((), (3,)) or flags.dtype != bool:
        raise InputError(f"pbc must be a bool or three bools, got {pbc!r}")
    periodic = np.broadcast_to(flags, 3)
    vectors = box[periodic]
    if len(vectors):
        lengths = np.linalg.norm(vectors, axis=1)
        spanned = np.sqrt(abs(np.linalg.det(vectors @ vectors.T)))
        # Relative to the box of the same edges, so that the bound has no unit.
        if (lengths == 0).any() or spanned <= 1e-8 * np.prod(lengths):
            raise InputError(
                f"cell is singular: its periodic vectors {vectors.tolist()} do not span a volume; "
                "give linearly independent vectors or set pbc to False there"
            )
    return box, periodic


def which_fixed(fixed: Any, n_atoms: int) -> np.ndarray | None:
    """A bool for each atom, [n_atoms], from indices or bools; None for None."""
    if fixed is None:
        return None
    given = np.asarray(fixed)
    if given.dtype == bool and given.shape != (n_atoms,):
        raise InputError(f"fixed has shape {list(given.shape)}, but there are {n_atoms} atoms")
    if given.dtype == bool:
        return np.array(given)
    if given.size and (given.ndim != 1 or not np.issubdtype(given.dtype, np.integer)):
        raise InputError(f"fixed must be indices or bools of atoms, got {fixed!r}")
    wrong = (given < -n_atoms) | (given >= n_atoms)
    if wrong.any():
        raise InputError(f"fixed contains {given[wrong][0]}, but there are {n_atoms} atoms")
    mask = np.zeros(n_atoms, bool)
    mask[given.astype(int)] = True
    return mask


def check_distinct(positions: np.ndarray, labels: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
    """Refuse atoms that coincide, where every energy model is singular; `labels` are their numbers."""
    if len(positions) < 2:
        return
    coinciding = _coinciding_few(positions, cell, pbc) if len(positions) <= _FEW_ATOMS else None
    if coinciding is None:
        i, j, _, distances = find_pairs(positions, cell, pbc, cutoff=_SEARCHED)
        (close,) = np.nonzero(distances < _COINCIDE)
        coinciding = [(i[n], j[n], distances[n]) for n in close]
    if coinciding:
        first, second, distance = coinciding[0]
        raise InputError(
            f"atoms {labels[first]} and {labels[second]} coincide (distance {distance:.1e} Å): "
            "remove one of them or check the units of the positions"
        )


def _coinciding_few(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> list[Any] | None:
    """Coinciding pairs from all differences; None where rounding may not yield the nearest image."""
    apart = positions[None, :] - positions[:, None]
    if pbc.any():
        vectors = cell[pbc]
        inverse = np.linalg.pinv(vectors)
        # Lengths of columns of the inverse are 1/distance of the lattice planes.
        if np.linalg.norm(inverse, axis=0).max() * _COINCIDE > 0.1:
            return None
        apart = apart - np.round(apart @ inverse) @ vectors
    square = np.einsum("ijk,ijk->ij", apart, apart)
    i, j = np.nonzero(square < _COINCIDE**2)
    return [(a, b, np.sqrt(square[a, b])) for a, b in zip(i, j, strict=True) if a < b]
