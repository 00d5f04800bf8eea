"""Energies of single atoms, which put a learned potential on the scale of its data."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.argument_checks import real_numbers
from difmd._internal.dtypes import floats
from difmd._internal.gather import take
from difmd.errors import InputError
from difmd.neighbors import Neighbors
from difmd.potentials.base import Params, Potential
from difmd.potentials.describe import described
from difmd.potentials.slots import known, species_numbers, types_of
from difmd.system import System

# No pair matters; a list needs some reach.
_CUTOFF = 1.0


@described
def atomic_energies(species: Sequence[int | str], *, energies: Sequence[float]) -> Potential:
    """E = Σ_i E₀(Z_i), to be added to a potential that was trained without.

    In float32 a total of many electron volts leaves few digits for what changes: keep the sum in float64,
    or run dynamics without this term, which exerts no force.

    Args:
        species: symbols or atomic numbers.
        energies: E₀ of each [eV].

    Returns:
        `Potential`; its params are `{"energies": [species]}`.

    Raises:
        InputError: no element, an unknown or repeated one, or energies that are not finite or not one each.
    """
    numbers = species_numbers(species)
    values = real_numbers("energies", energies)
    if values.shape != (len(numbers),) or not np.isfinite(values).all():
        raise InputError(
            f"energies = {energies} must be finite numbers, one for each of {len(numbers)} species"
        )

    def init(key: Array) -> Params:
        del key
        return {"energies": floats(values)}

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        del neighbors
        table = jnp.asarray(params["energies"], system.positions.dtype)
        found = take(table, types_of(numbers, system.atomic_numbers))
        return known(numbers, system) * jnp.where(system.atomic_numbers > 0, found, 0)

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        return jnp.sum(atomic(params, system, neighbors))

    return Potential(init=init, apply=apply, atomic=atomic, cutoff=_CUTOFF, species=frozenset(numbers))
