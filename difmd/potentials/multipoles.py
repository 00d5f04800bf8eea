"""Charges and dipoles of atoms, and the total dipole."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError
from difmd.neighbors import Neighbors
from difmd.system import System


@brief_repr
class Multipoles(NamedTuple):
    """Charge and dipole of each atom; 0 for padding.

    Attributes:
        charges: [e]; [atoms]. They add up to zero.
        dipoles: atomic dipoles, without the contribution of the charges [e·Å]; [atoms, 3].
    """

    charges: Float[Array, "atoms"]
    dipoles: Float[Array, "atoms 3"]


def total_dipole(multipoles: Multipoles, system: System, neighbors: Neighbors) -> Float[Array, "3"]:
    """μ = Σ_i q_i (r_i − r̄) + Σ_i p_i [e·Å], with r̄ the mean of the positions.

    As charges add up to zero, r̄ does not matter but for rounding. The dipole of a periodic system is not
    defined.

    Args:
        multipoles: q and p.
        system: the configuration.
        neighbors: a list for it, without periodic directions.

    Returns:
        μ [e·Å]; [3].

    Raises:
        InputError: a periodic direction, or multipoles of another number of atoms.

    References:
        Veit et al., J. Chem. Phys. 153, 024113 (2020), doi:10.1063/5.0009106 (charges and atomic dipoles).
    """
    if any(neighbors.periodic):
        raise InputError(
            "the dipole of a periodic system is not defined: use a molecule with pbc=False, or the charges"
        )
    if multipoles.charges.shape != system.atomic_numbers.shape:
        raise InputError(
            f"multipoles are of {len(multipoles.charges)} atoms, but the system has {system.n_atoms}: use "
            "those of this system"
        )
    is_atom = (system.atomic_numbers > 0)[:, None]
    n_atoms = jnp.maximum(jnp.sum(is_atom, dtype=system.positions.dtype), 1)
    mean = jnp.sum(jnp.where(is_atom, system.positions, 0), axis=0) / n_atoms
    apart = system.positions - mean[None]
    return jnp.sum(multipoles.charges[:, None] * apart + multipoles.dipoles, axis=0)
