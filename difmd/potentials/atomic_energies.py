"""Energies of isolated atoms, which put a learned potential on the scale of its data."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from difmd._internal.gather import take
from difmd.neighbors import Neighbors
from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.species import (
    Species,
    SpeciesValues,
    as_species,
    nan_if_unknown,
    species_values,
    types_of,
)
from difmd.system import System

# No pair contributes, but a list needs a cut-off.
_CUTOFF = 1.0


@described
def atomic_energies(species: Species, *, energies: SpeciesValues) -> Potential:
    """E = Σ_i E₀(Z_i), to be added to a potential that was trained without these energies.

    In float32 a large total leaves few digits for changes: use float64 for the sum, or run dynamics without
    this term, which exerts no force.

    Args:
        species: symbols or atomic numbers.
        energies: E₀ of each species, or of all [eV].

    Returns:
        `Potential`; its params are `{"energies": [species]}`.

    Raises:
        InputError: no species, an unknown or repeated one, or energies that are not finite or not one each.
    """
    numbers = as_species(species)
    values = species_values("energies", energies, numbers)

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        del neighbors
        table = jnp.asarray(params["energies"], system.positions.dtype)
        of_atoms = take(table, types_of(numbers, system.atomic_numbers))
        return nan_if_unknown(numbers, system) * jnp.where(system.atomic_numbers > 0, of_atoms, 0)

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        return jnp.sum(atomic(params, system, neighbors))

    init = constant_init(energies=values)
    return Potential(init=init, apply=apply, atomic=atomic, cutoff=_CUTOFF, species=frozenset(numbers))
