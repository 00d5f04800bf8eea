"""The Buckingham potential."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.pair import PairValues, inverse, pair_potential, pair_tables, symmetric
from difmd.potentials.species import Species, as_species
from difmd.potentials.truncation import Truncation


@described
def buckingham(
    species: Species,
    *,
    repulsion: PairValues,
    range: PairValues,  # noqa: A002, the field's word
    dispersion: PairValues,
    cutoff: float,
    truncation: Truncation | None = None,
    tail_correction: bool = False,
) -> Potential:
    """φ(r) = A e^{−r/ρ} − C/r⁶.

    It falls to −∞ at short distances: atoms that cross the barrier collapse onto each other. Add a repulsion,
    such as `buckingham(...) + zbl(...)`, where that can happen.

    Args:
        species: symbols or atomic numbers.
        repulsion: A [eV], one for all pairs or a symmetric table of the species; ≥ 0.
        range: ρ [Å], in the same form; > 0.
        dispersion: C [eV Å⁶], in the same form; ≥ 0.
        cutoff: [Å].
        truncation: `truncated()` (default), `shifted()` or `switched(onset)`.
        tail_correction: add the energy and stress beyond the cut-off for g(r) = 1.

    Returns:
        `Potential`; its params are `{"repulsion": …, "range": …, "dispersion": …}`, each
        [species, species]; only their symmetric parts count.

    Raises:
        InputError: negative values, tables that are not symmetric or of another size, or as
            `pair_potential`.

    References:
        Buckingham, Proc. R. Soc. A 168, 264 (1938), doi:10.1098/rspa.1938.0173.
    """
    given = {"repulsion": repulsion, "range": range, "dispersion": dispersion}
    tables = pair_tables(len(as_species(species)), may_vanish=("repulsion", "dispersion"), **given)

    def phi(pair: Params, r_squared: Array) -> Array:
        repelled = pair["repulsion"] * jnp.exp(-jnp.sqrt(r_squared) / pair["range"])
        return repelled - pair["dispersion"] * inverse(r_squared) ** 3

    return pair_potential(
        phi,
        init=constant_init(**tables),
        tables=symmetric,
        species=species,
        cutoff=cutoff,
        truncation=truncation,
        tail_correction=tail_correction,
    )
