"""The Morse potential."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.pair import PairValues, pair_potential, pair_tables, symmetric
from difmd.potentials.species import Species, as_species
from difmd.potentials.truncation import Truncation


@described
def morse(
    species: Species,
    *,
    depth: PairValues,
    width: PairValues,
    distance: PairValues,
    cutoff: float,
    truncation: Truncation | None = None,
) -> Potential:
    """φ(r) = D[(1 − e^{−α(r − r₀)})² − 1].

    Args:
        species: symbols or atomic numbers.
        depth: D [eV], one for all pairs or a symmetric table of the species.
        width: α [1/Å], in the same form.
        distance: r₀ of the minimum [Å], in the same form.
        cutoff: [Å].
        truncation: `truncated()` (default), `shifted()` or `switched(onset)`.

    Returns:
        `Potential`; its params are `{"depth": …, "width": …, "distance": …}`, each [species, species];
        only their symmetric parts count.

    Raises:
        InputError: values not positive, tables that are not symmetric or of another size, or as
            `pair_potential`.

    References:
        Morse, Phys. Rev. 34, 57 (1929), doi:10.1103/PhysRev.34.57.
    """
    tables = pair_tables(len(as_species(species)), depth=depth, width=width, distance=distance)
    init = constant_init(**tables)

    def phi(pair: Params, r_squared: Array) -> Array:
        grown = 1 - jnp.exp(-pair["width"] * (jnp.sqrt(r_squared) - pair["distance"]))
        return pair["depth"] * (grown * grown - 1)

    return pair_potential(
        phi, init=init, tables=symmetric, species=species, cutoff=cutoff, truncation=truncation
    )
