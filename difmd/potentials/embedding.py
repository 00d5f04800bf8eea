"""Energies that are functions of sums over neighbours: embedded atom, Stillinger–Weber and similar ones.

    U = ½ Σ_i Σ_j φ_ij(r_ij) + Σ_i F_i(ρ_i),    ρ_i^m = Σ_j g_ij^m(r_ij),    r_ij = r_j − r_i.

Where such sums suffice, a many-body force costs two passes over the pairs and no loop over triplets:

    −∂U/∂r_i = Σ_j ∇[φ_ij(r_ij) + w_i·g_ij(r_ij) + w_j·g_ji(−r_ij)],    w_i = ∂F_i/∂ρ_i.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd._internal.gather import take
from difmd._internal.summaries import brief_repr
from difmd.potentials.base import Params, Potential
from difmd.potentials.slots import (
    Sites,
    separation,
    slot_potential,
    sum_over_slots,
    types_of_pairs,
    virial_terms,
)
from difmd.potentials.species import Species, as_species

# Terms are large, and XLA computes them once for each sum: more of them in a loop make it slower.
_UNROLL = 1


@brief_repr
class Contribution(NamedTuple):
    """Contribution of atom i and its neighbour j.

    Attributes:
        pair: φ_ij [eV], symmetric in i and j.
        sums: g_ij^m(r_ij), the contribution of j to the sums of i.
        back: g_ji^m(−r_ij), the contribution of i to the sums of j; both may share intermediate results.
    """

    pair: Float[Array, "*pairs"]
    sums: list[Float[Array, "*pairs"]]
    back: list[Float[Array, "*pairs"]]


Neighbor: TypeAlias = Callable[[Any, Any, Any, list[Array]], Contribution]
"""`neighbor(tables, i, j, apart)` for types i and j and the components of r_ij [Å], element-wise; twice
differentiable, and exactly zero beyond the cut-off, with finite derivatives also for the 10⁶ Å of unused
slots: use a safe distance where the pair is beyond the cut-off. Forces use `back` as it is given."""

Embedding: TypeAlias = Callable[[Any, Any, list[Array]], Array]
"""`embed(tables, i, sums)` → F_i [eV], element-wise; twice differentiable, also where all sums are 0 if atoms
may be without neighbours."""


def embedding_potential(
    neighbor: Neighbor,
    embed: Embedding,
    *,
    init: Callable[[Array], Params],
    tables: Callable[[Params, Any], Any],
    species: Species,
    cutoff: float,
) -> Potential:
    """A potential whose energy is a function of sums over the neighbours of each atom.

    Args:
        neighbor: `neighbor(tables, i, j, apart) -> Contribution`. Types are None for one species; `entry`
            of `difmd.potentials.slots` returns the entry of a pair.
        embed: `embed(tables, i, sums) -> F_i`; an atom without neighbours has its energy F_i(0).
        init: `init(key) -> params`.
        tables: `tables(params, dtype)` → first argument of both functions.
        species: symbols or atomic numbers, in the order of the tables.
        cutoff: [Å].

    Returns:
        The `Potential`.

    Raises:
        InputError: cut-off not positive, an unknown or repeated species.

    References:
        Daw & Baskes, Phys. Rev. B 29, 6443 (1984), doi:10.1103/PhysRevB.29.6443 (the form).
    """
    n_types = len(as_species(species))

    def sums_of(
        table: Any, xyz: list[Array], sites: Sites
    ) -> tuple[Array, list[Array], Array, Any, Callable[[Array], Any]]:
        """½ Σ_j φ_ij and ρ_i of every center, whether it is an atom, its type, and types of neighbours."""
        types, type_of = types_of_pairs(n_types, sites)

        def term(center: Any, j: Array) -> list[Array]:
            position, i = center
            contribution = neighbor(table, i, type_of(j), separation(xyz, position, j)[0])
            return [0.5 * contribution.pair, *contribution.sums]

        centers = ([take(x, sites.centers) for x in xyz], types)
        pair, *sums = sum_over_slots(term, centers, sites, unroll=_UNROLL)
        # Padding is sorted behind the atoms and has no extended position. Its sums are made safe, for example
        # under a root.
        real = sites.centers < len(sites.parents)
        return pair, [jnp.where(real, s, 1) for s in sums], real, types, type_of

    def energies(params: Params, xyz: list[Array], sites: Sites) -> Array:
        table = tables(params, xyz[0].dtype)
        pair, sums, real, types, _ = sums_of(table, xyz, sites)
        return pair + jnp.where(real, embed(table, types, sums), 0)

    def derivative(
        params: Params, xyz: list[Array], sites: Sites, *, with_virial: bool
    ) -> tuple[list[Array], list[Array] | None]:
        table = tables(params, xyz[0].dtype)
        _, sums, _, types, type_of = sums_of(table, xyz, sites)
        value, pullback = jax.vjp(lambda s: embed(table, types, s), sums)
        (weights,) = pullback(jnp.ones_like(value))
        extended = [_extended(w, sites) for w in weights]

        def term(center: Any, j: Array) -> list[Array]:
            position, here, weights = center
            apart, _ = separation(xyz, position, j)
            there = type_of(j)
            others = [take(w, j) for w in extended]

            def along(apart: list[Array]) -> Array:
                contribution = neighbor(table, here, there, apart)
                total = contribution.pair
                terms = zip(weights, contribution.sums, others, contribution.back, strict=True)
                for weight, g, other, g_back in terms:
                    total = total + weight * g + other * g_back
                return total

            energy, pullback = jax.vjp(along, apart)
            (pull,) = pullback(jnp.ones_like(energy))
            return pull + (virial_terms(pull, apart) if with_virial else [])

        centers = ([take(x, sites.centers) for x in xyz], types, weights)
        total = sum_over_slots(term, centers, sites, unroll=_UNROLL)
        return total[:3], total[3:] if with_virial else None

    return slot_potential(energies, derivative, init=init, species=species, cutoff=cutoff)


def _extended(values: Array, sites: Sites) -> Array:
    """Values of centers for every extended position, and 0 for the two that are not atoms."""
    extended = take(take(values, sites.rank), sites.parents)
    return jnp.concatenate([extended, jnp.zeros(2, values.dtype)])
