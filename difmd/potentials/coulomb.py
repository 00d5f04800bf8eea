"""Coulomb interaction of fixed charges with a damped, shifted force."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import Array, Float

from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors
from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.pair import PairFunction, pair_potential
from difmd.potentials.species import Species, SpeciesValues, as_species, species_values, types_of
from difmd.system import System
from difmd.units import COULOMB


@described
def coulomb_damped_shifted(
    species: Species, *, charges: SpeciesValues, damping: float, cutoff: float
) -> Potential:
    """Wolf's sum with continuous forces, at a cost that grows linearly with N.

        φ(r) = k q_i q_j [erfc(αr)/r − erfc(αR)/R + (erfc(αR)/R² + 2α e^{−α²R²}/(√π R)) (r − R)],

    with the cut-off R, and −k q_i² (erfc(αR)/2R + α/√π) for each atom. It approximates the energy of all
    images of a neutral system; `ewald` is exact. Energy and forces are zero at the cut-off.

    Args:
        species: symbols or atomic numbers.
        charges: q of each species, or of all [e].
        damping: α [1/Å], ≥ 0; 0.2 is usual.
        cutoff: R [Å]; 12 is usual.

    Returns:
        `Potential`; its params are `{"charges": [species]}`. The charges of the atoms of a system should
        add up to zero, which is not checked.

    Raises:
        InputError: a negative damping, charges that do not match `species`, or as `pair_potential`.

    References:
        Fennell & Gezelter, J. Chem. Phys. 124, 234104 (2006), doi:10.1063/1.2206581; the energy of the
        atoms: Wolf et al., J. Chem. Phys. 110, 8254 (1999), doi:10.1063/1.478738.
    """
    if not (math.isfinite(damping) and damping >= 0):
        raise InputError(f"damping = {damping} 1/Å must be finite and not negative")
    check_positive("cutoff", cutoff, "Å")
    edge = math.erfc(damping * cutoff) / cutoff
    gaussian = 2 * damping / math.sqrt(math.pi) * math.exp(-((damping * cutoff) ** 2))
    slope = (edge + gaussian) / cutoff
    self_energy = COULOMB * (0.5 * edge + damping / math.sqrt(math.pi))

    def phi(product: Array, r_squared: Array) -> Array:
        r = jnp.sqrt(r_squared)
        return COULOMB * product * (erfc(damping * r) / r - edge + slope * (r - cutoff))

    pairs, charges_of = charged_pairs(phi, species, charges=charges, cutoff=cutoff)

    def self_energies(params: Params, system: System) -> Array:
        return -self_energy * charges_of(params, system) ** 2

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        return pairs.apply(params, system, neighbors) + jnp.sum(self_energies(params, system))

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        return pairs.atomic(params, system, neighbors) + self_energies(params, system)

    return Potential(init=pairs.init, apply=apply, atomic=atomic, cutoff=pairs.cutoff, species=pairs.species)


def charged_pairs(
    phi: PairFunction, species: Species, *, charges: SpeciesValues, cutoff: float
) -> tuple[Potential, Callable[[Params, System], Float[Array, "atoms"]]]:
    """Σ φ(q_i q_j, r²) over pairs, with params `{"charges": [species]}`; and the charges of the atoms [e]."""
    numbers = as_species(species)
    values = species_values("charges", charges, numbers)

    def tables(params: Params) -> Array:
        return params["charges"][:, None] * params["charges"][None, :]

    def charges_of(params: Params, system: System) -> Array:
        charge = jnp.asarray(params["charges"], system.positions.dtype)
        return jnp.where(system.atomic_numbers > 0, charge[types_of(numbers, system.atomic_numbers)], 0)

    init = constant_init(charges=values)
    return pair_potential(phi, init=init, tables=tables, species=species, cutoff=cutoff), charges_of
