"""Charges and dipoles of atoms, and the dipole that they make together."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd.neighbors import Neighbors
from difmd.system import System


class Multipoles(NamedTuple):
    """What a potential knows of the charge of each atom; 0 for padding.

    Attributes:
        charges: [e]; [atoms]. They add up to zero.
        dipoles: of the atoms themselves, besides what their charges make [e·Å]; [atoms, 3].
    """

    charges: Float[Array, "atoms"]
    dipoles: Float[Array, "atoms 3"]


def total_dipole(multipoles: Multipoles, system: System, neighbors: Neighbors) -> Float[Array, "3"]:
    """μ = Σ_i q_i (r_i − r̄) + Σ_i p_i [e·Å], with r̄ the mean of the positions.

    As charges add up to zero, r̄ does not matter but for rounding. A dipole needs an end: it is NaN with a
    periodic direction.

    Args:
        multipoles: q and p.
        system: the configuration.
        neighbors: a list for it, which knows the periodic directions.

    References:
        Veit et al., J. Chem. Phys. 153, 024113 (2020), doi:10.1063/5.0009106 (charges and atomic dipoles).
    """
    if any(neighbors.periodic):
        return jnp.full(3, jnp.nan, system.positions.dtype)
    is_atom = (system.atomic_numbers > 0)[:, None]
    n_atoms = jnp.maximum(jnp.sum(is_atom, dtype=system.positions.dtype), 1)
    mean = jnp.sum(jnp.where(is_atom, system.positions, 0), axis=0) / n_atoms
    apart = system.positions - mean[None]
    return jnp.sum(multipoles.charges[:, None] * apart + multipoles.dipoles, axis=0)
