"""Strains: modes in which a cell is free, what they do to a system, and what ties it where it is.

A strain ε deforms positions r and cell h to r(1 + ε) and h(1 + ε). Of strain ε_k in mode k the coordinate in
a relaxation is s = L ε_k with L = V^{1/3} N^{1/6}, so that its stiffness is like that of an atom; its force
−∂(U + P V)/∂s counts as that of an atom. A residual stress τ is a force τ V/L, so that forces below f mean
stresses below f L/V.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import real_numbers
from difmd._internal.lattice import product
from difmd.errors import InputError
from difmd.system import System

# Stiffness of what holds the centre, and atoms that do not move [eV/Å²].
_TETHER = 10.0


def any_strain() -> np.ndarray:
    """All six strains, in Voigt's order xx, yy, zz, yz, xz, xy; [6, 3, 3]."""
    modes = np.zeros((6, 3, 3))
    for mode, (a, b) in zip(modes, ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)), strict=True):
        mode[a, b] += 0.5
        mode[b, a] += 0.5
    return modes


def axial_strain() -> np.ndarray:
    """Each axis by itself, no shear; [3, 3, 3]."""
    return any_strain()[:3]


def isotropic_strain() -> np.ndarray:
    """All axes alike; [1, 3, 3]."""
    return np.eye(3)[None]


def checked_modes(strains: Any, periodic: tuple[bool, ...]) -> Any:
    """The modes that `strains` are, none for None.

    Raises:
        InputError: strains that are not symmetric 3×3 matrices, finite and independent of each other, or of
            a cell without three periodic directions. Of traced ones only the shape is looked at.
    """
    if strains is None:
        return np.zeros((0, 3, 3))
    matrices = strains if isinstance(strains, jax.core.Tracer) else real_numbers("strains", strains)
    if matrices.shape[1:] != (3, 3) or not len(matrices):
        raise InputError(f"strains must have shape [modes, 3, 3], got {list(matrices.shape)}")
    if not all(periodic):
        raise InputError("only a cell with three periodic directions can be relaxed: leave strains away")
    if isinstance(strains, jax.core.Tracer):
        return strains
    if not np.isfinite(matrices).all():
        raise InputError("strains are not finite")
    if not np.allclose(matrices, np.swapaxes(matrices, 1, 2)):
        raise InputError("strains must be symmetric matrices: another one is a rotation besides")
    if np.linalg.matrix_rank(matrices.reshape(-1, 9)) < len(matrices):
        raise InputError("strains depend on each other, or one of them is zero: leave out what adds nothing")
    return strains


def deform(system: System, strain: Float[Array, "3 3"]) -> System:
    """Positions r(1 + ε) and cell h(1 + ε) for a strain ε."""
    return system.replace(
        positions=system.positions + product(system.positions, strain),
        cell=system.cell + product(system.cell, strain),
    )


def tether(system: System, moves: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
    """Gradient of springs that make a Hessian regular where the energy does not [eV/Å].

    One holds the mean of all atoms, where none of them is fixed: else translations cost nothing. The others
    hold padding and fixed atoms, each by itself.
    """
    mobile = system.is_mobile[:, None]
    n_mobile = jnp.maximum(jnp.sum(mobile), 1).astype(moves.dtype)
    mean = jnp.sum(jnp.where(mobile, moves, 0), axis=0, keepdims=True) / n_mobile
    if system.fixed is not None:
        # Fixed atoms hold the others, and these may move on average.
        mean = jnp.where(system.holds_atoms, 0, mean)
    return _TETHER * jnp.where(mobile, mean, moves)
