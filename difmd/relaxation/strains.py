"""Strain modes of a cell, the deformation of a system by a strain, and springs that regularise a Hessian.

In a relaxation, the coordinate of the strain ε_k in mode k is s = L ε_k with L = V^{1/3} N^{1/6}, so that its
stiffness is comparable to that of an atom. Its force is −∂(U + P V)/∂s. A residual stress τ exerts the force
τ V/L: forces below f imply stresses below f L/V.
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

# Force constant of the springs that hold the centre of mass, and atoms that do not move [eV/Å²].
_TETHER = 10.0


def any_strain() -> np.ndarray:
    """All six strains, in Voigt order xx, yy, zz, yz, xz, xy.

    Returns:
        Symmetric modes; [6, 3, 3].
    """
    modes = np.zeros((6, 3, 3))
    for mode, (a, b) in zip(modes, ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)), strict=True):
        mode[a, b] += 0.5
        mode[b, a] += 0.5
    return modes


def axial_strain() -> np.ndarray:
    """Independent strains along x, y and z, without shear.

    Returns:
        Modes; [3, 3, 3].
    """
    return any_strain()[:3]


def isotropic_strain() -> np.ndarray:
    """The same strain along all axes.

    Returns:
        One mode; [1, 3, 3].
    """
    return np.eye(3)[None]


def check_modes(strains: Any, periodic: tuple[bool, ...]) -> Any:
    """Strain modes [modes, 3, 3], after validation, of traced ones only of their shape; None: no modes."""
    if strains is None:
        return np.zeros((0, 3, 3))
    matrices = strains if isinstance(strains, jax.core.Tracer) else real_numbers("strains", strains)
    if matrices.shape[1:] != (3, 3) or not len(matrices):
        raise InputError(f"strains must have shape [modes, 3, 3], got {list(matrices.shape)}")
    if not all(periodic):
        raise InputError("only a cell with three periodic directions can be relaxed: omit strains")
    if isinstance(strains, jax.core.Tracer):
        return strains
    if not np.isfinite(matrices).all():
        raise InputError("strains are not finite")
    if not np.allclose(matrices, np.swapaxes(matrices, 1, 2)):
        raise InputError("strains must be symmetric matrices: an antisymmetric part is a rotation")
    if np.linalg.matrix_rank(matrices.reshape(-1, 9)) < len(matrices):
        raise InputError("strains are linearly dependent: remove modes that are zero or sums of others")
    return strains


def deform(system: System, strain: Float[Array, "3 3"]) -> System:
    """Deform a system by a strain ε: positions r(1 + ε) and cell h(1 + ε).

    Args:
        system: the system.
        strain: ε, dimensionless; [3, 3].

    Returns:
        The deformed `System`.
    """
    return system.replace(
        positions=system.positions + product(system.positions, strain),
        cell=system.cell + product(system.cell, strain),
    )


def tether(system: System, displacements: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
    """Gradient of springs that make the Hessian regular in directions in which the energy is constant [eV/Å].

    They hold padding, fixed atoms and, where no atom is fixed, the mean of all atoms.
    """
    mobile = system.is_mobile[:, None]
    n_mobile = jnp.maximum(jnp.sum(mobile), 1).astype(displacements.dtype)
    mean = jnp.sum(jnp.where(mobile, displacements, 0), axis=0, keepdims=True) / n_mobile
    if system.fixed is not None:
        # Fixed atoms determine the position of the others, whose mean may move.
        mean = jnp.where(system.holds_atoms, 0, mean)
    return _TETHER * jnp.where(mobile, mean, displacements)
