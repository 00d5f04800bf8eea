"""Pair potentials from a scalar function of r², with fast forces.

The energy is ½ Σ_i Σ_k φ(r²_ik) over the slots k of a full neighbour list, and its derivative
F_i = Σ_k 2 φ'(r²_ik) r_ik.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import real_numbers
from difmd._internal.fixed_point import rounded
from difmd._internal.gather import take
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors, extended_positions
from difmd.potentials.base import Params, Potential
from difmd.potentials.slots import (
    Sites,
    checked_tables,
    entry,
    separation,
    sites_of,
    slot_potential,
    sum_over_slots,
    types_of_pairs,
    virial_terms,
)
from difmd.potentials.species import Species, as_species, nan_if_unknown, types_of
from difmd.potentials.truncation import Truncation, tail_energy, truncated
from difmd.system import System

PairFunction: TypeAlias = Callable[[Any, Array], Array]
"""`phi(pair_params, r_squared) -> energy`, element-wise."""

PairValues: TypeAlias = float | Sequence[Sequence[float]] | np.ndarray
"""One value for all pairs of species, or a symmetric table."""


def pair_potential(
    phi: PairFunction,
    *,
    init: Callable[[Array], Params],
    tables: Callable[[Params], Any],
    species: Species,
    cutoff: float,
    truncation: Truncation | None = None,
    tail_correction: bool = False,
) -> Potential:
    """A potential from a function of the squared distance of a pair.

    Args:
        phi: `phi(pair, r_squared) -> energy` [eV] for arrays of r² [Å²], differentiable twice.
        init: `init(key) -> params`.
        tables: `tables(params)` → pytree of [species, species] arrays; `phi` receives the entry of its
            pair, or a `Row` of a deeper array.
        species: symbols or atomic numbers, in the order of the tables.
        cutoff: [Å].
        truncation: how φ ends at the cut-off; default `truncated()`.
        tail_correction: add the energy and stress beyond the cut-off for g(r) = 1; needs three periodic
            directions.

    Returns:
        The `Potential`.

    Raises:
        InputError: cut-off not positive, an unknown or repeated species, not a truncation, or a switch that
            does not begin between 0 and the cut-off. When evaluated: tables of the wrong size, or a tail
            correction without three periodic directions.

    References:
        Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, §2.8 (tail corrections).
    """
    check_positive("cutoff", cutoff, "Å")
    cutoff = float(cutoff)
    truncation = truncated() if truncation is None else truncation
    if not isinstance(truncation, Truncation):
        raise InputError(
            f"truncation = {truncation!r} must be the result of truncated(), shifted() or switched(onset)"
        )
    if not 0 <= truncation.onset < cutoff:
        raise InputError(f"onset = {truncation.onset} Å must lie between 0 and cutoff = {cutoff} Å")
    numbers = as_species(species)
    terms = _PairTerms(phi, truncation.end(phi, cutoff), tables, numbers, cutoff, truncation)

    @functools.cache
    def on_grid(exponent: int | None) -> Potential:
        derivative = functools.partial(terms.derivative, exponent)
        bare = slot_potential(terms.energies, derivative, init=init, species=numbers, cutoff=cutoff)
        bare = dataclasses.replace(bare, on_grid=on_grid, pull_back=terms.pull_back)
        return terms.with_tail(bare) if tail_correction else bare

    return on_grid(None)


@dataclasses.dataclass(frozen=True, eq=False)
class _PairTerms:
    """Energies and derivatives of pairs; `ended` is φ with its truncation, the rest as `pair_potential`."""

    phi: PairFunction
    ended: PairFunction
    tables: Callable[[Params], Any]
    numbers: tuple[int, ...]
    cutoff: float
    truncation: Truncation

    def within(self, pair: Any, r_squared: Array) -> Array:
        """φ up to the cut-off, then 0."""
        inside = r_squared < self.cutoff**2
        # The operand is safe on both branches, else padded pairs give NaN derivatives.
        safe = jnp.where(inside, r_squared, self.cutoff**2)
        return jnp.where(inside, self.ended(pair, safe), 0)

    def pairs(
        self, params: Params, xyz: list[Array], sites: Sites
    ) -> tuple[Any, Callable[[Any, Array], tuple[list[Array], Array, Any]]]:
        """Data of the centers, and a function of these and a slot: r_ij, r²_ij and the entry for φ."""
        n_types = len(self.numbers)
        table = checked_tables(self.tables(params), n_types, xyz[0].dtype)
        types, type_of_neighbor = types_of_pairs(n_types, sites)

        def visit(center: Any, j: Array) -> tuple[list[Array], Array, Any]:
            position, i = center
            apart, r_squared = separation(xyz, position, j)
            neighbor_type = type_of_neighbor(j)
            return apart, r_squared, jax.tree.map(lambda x: entry(x, i, neighbor_type), table)

        return ([take(x, sites.centers) for x in xyz], types), visit

    def energies(self, params: Params, xyz: list[Array], sites: Sites) -> Array:
        """½ Σ_j φ of each center."""
        centers, visit = self.pairs(params, xyz, sites)

        def term(center: Any, j: Array) -> list[Array]:
            _, r_squared, pair = visit(center, j)
            return [0.5 * self.within(pair, r_squared)]

        (total,) = sum_over_slots(term, centers, sites)
        return total

    def derivative(
        self, exponent: int | None, params: Params, xyz: list[Array], sites: Sites, *, with_virial: bool
    ) -> tuple[list[Array], list[Array] | None]:
        """Forces and virial of each center, rounded to multiples of 2^exponent if there is one."""
        centers, visit = self.pairs(params, xyz, sites)

        def term(center: Any, j: Array) -> list[Array]:
            apart, r_squared, pair = visit(center, j)
            _, slope = jax.jvp(lambda s: self.within(pair, s), (r_squared,), (jnp.ones_like(r_squared),))
            pull = [2 * slope * d for d in apart]
            if exponent is not None:
                pull = [rounded(x, exponent) for x in pull]
            return pull + (virial_terms(pull, apart) if with_virial else [])

        sums = sum_over_slots(term, centers, sites)
        return sums[:3], sums[3:] if with_virial else None

    def pull_back(
        self, params: Params, system: System, neighbors: Neighbors, v: Array
    ) -> tuple[Params, Array] | None:
        """See `Potential`; None where tables are deep.

        W = Σ_i v_i · F_i = −½ Σ_i Σ_k g(r_ik, v_ik) with g(d, w) = 2 φ'(d²) d · w, and ∂W/∂r_i is a sum of
        ∂g/∂d over the neighbours of i, like F_i. One pass over the pairs gives that and ∂W/∂θ.
        """
        if any(leaf.ndim > 2 for leaf in jax.tree.leaves(jax.eval_shape(self.tables, params))):
            return None
        n_types = len(self.numbers)
        sites = sites_of(self.numbers, system, neighbors)
        xyz = extended_positions(system, neighbors)
        table, to_params = jax.vjp(lambda p: checked_tables(self.tables(p), n_types, xyz[0].dtype), params)
        types, type_of_neighbor = types_of_pairs(n_types, sites)
        velocities = [
            jnp.concatenate([take(v[:, axis], sites.parents), jnp.zeros(2, v.dtype)]) for axis in range(3)
        ]

        def term(center: Any, j: Array) -> list[Array]:
            (position, velocity), i = center
            apart, r_squared = separation(xyz, position, j)
            apart_dot = [take(x, j) - c for x, c in zip(velocities, velocity, strict=True)]
            neighbor_type = type_of_neighbor(j)
            pair = jax.tree.map(lambda x: jnp.broadcast_to(entry(x, i, neighbor_type), j.shape), table)
            slope, curvature, slope_of_pair = self.slopes(pair, r_squared)
            along = 2 * sum(d * w for d, w in zip(apart, apart_dot, strict=True))
            stretch = 2 * curvature * along
            of_apart = [2 * slope * w + stretch * d for d, w in zip(apart, apart_dot, strict=True)]
            leaves = [along * x for x in slope_of_pair]
            if neighbor_type is None:
                return [*of_apart, *leaves]
            return [*of_apart, *(jnp.where(neighbor_type == t, x, 0) for x in leaves for t in range(n_types))]

        centers = ([[take(x, sites.centers) for x in axes] for axes in (xyz, velocities)], types)
        # More numbers in a slot than forces have, which leave the cache sooner.
        sums = sum_over_slots(term, centers, sites, unroll=8 if sites.indices.shape[1] < 8000 else 4)
        by_leaf = jnp.stack(sums[3:]).reshape(-1, n_types, len(sums[0]))
        of_table = [-0.5 * _by_type(x, types, n_types) for x in by_leaf]
        (of_params,) = to_params(jax.tree.unflatten(jax.tree.structure(table), of_table))
        factor = nan_if_unknown(self.numbers, system)
        of_positions = factor * jnp.stack([take(x, sites.rank) for x in sums[:3]], axis=-1)
        return jax.tree.map(lambda x: factor.astype(x.dtype) * x, of_params), of_positions

    def slopes(self, pair: Any, r_squared: Array) -> tuple[Array, Array, list[Array]]:
        """φ' and φ'' in r², and the derivatives of φ' in each number of `pair`; 0 beyond the cut-off."""
        inside = r_squared < self.cutoff**2
        safe = jnp.where(inside, r_squared, self.cutoff**2)
        unit = jnp.ones_like(safe)

        def slope_of(s: Array, pair: Any) -> Array:
            return jax.jvp(lambda s: self.ended(pair, s), (s,), (unit,))[1]

        slope, curvature = jax.jvp(lambda s: slope_of(s, pair), (safe,), (unit,))
        flat, tree = jax.tree.flatten(pair)
        of_pair = [
            jax.jvp(
                lambda x, k=k: slope_of(safe, jax.tree.unflatten(tree, [*flat[:k], x, *flat[k + 1 :]])),
                (leaf,),
                (jnp.ones_like(leaf),),
            )[1]
            for k, leaf in enumerate(flat)
        ]
        slope, curvature, *of_pair = (jnp.where(inside, x, 0) for x in (slope, curvature, *of_pair))
        return slope, curvature, of_pair

    def tail(self, params: Params, system: System, neighbors: Neighbors) -> Array:
        """The energy beyond the cut-off [eV]."""
        if not all(neighbors.periodic):
            raise InputError("tail_correction needs three periodic directions: omit it for this system")
        dtype, n_types = system.cell.dtype, len(self.numbers)
        table = checked_tables(self.tables(params), n_types, dtype)
        if any(leaf.ndim > 2 for leaf in jax.tree.leaves(table)):
            raise InputError(
                "tail_correction needs one number per pair of species: omit it for deeper tables"
            )
        real = (system.atomic_numbers > 0).astype(dtype)
        counts = jnp.zeros(n_types, dtype).at[types_of(self.numbers, system.atomic_numbers)].add(real)
        return tail_energy(self.phi, table, counts, system.cell, self.cutoff, self.truncation)

    def with_tail(self, bare: Potential) -> Potential:
        """A potential with the energy beyond the cut-off, in equal shares of the atoms."""

        def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
            return bare.apply(params, system, neighbors) + self.tail(params, system, neighbors)

        def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
            real = system.atomic_numbers > 0
            share = self.tail(params, system, neighbors) / jnp.sum(real, dtype=system.cell.dtype)
            return bare.atomic(params, system, neighbors) + jnp.where(real, share, 0)

        return dataclasses.replace(bare, apply=apply, atomic=atomic)


def _by_type(sums: Array, types: Array | None, n_types: int) -> Float[Array, "species species"]:
    """Sums over the centers of each type, from the sums of each center over its neighbours of each type."""
    if types is None:
        return jnp.sum(sums, axis=1, keepdims=True)
    return jnp.stack([jnp.sum(jnp.where(types == t, sums, 0), axis=1) for t in range(n_types)])


@jax.custom_jvp
def inverse(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1/x, whose derivative −(1/x)² needs no second division."""
    return 1 / x


@inverse.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value = inverse(*primals)
    return value, -(value * value) * tangents[0]


def pair_tables(n_species: int, *, may_vanish: Sequence[str] = (), **values: Any) -> dict[str, np.ndarray]:
    """`pair_table` of each value."""
    return {
        name: pair_table(name, value, n_species, may_vanish=name in may_vanish)
        for name, value in values.items()
    }


def pair_table(name: str, value: Any, n_species: int, *, may_vanish: bool = False) -> np.ndarray:
    """A symmetric table of positive numbers from one value or a table (host); float64 [species, species]."""
    array = real_numbers(name, value)
    table = np.broadcast_to(array, (n_species, n_species)) if array.ndim == 0 else array
    if table.shape != (n_species, n_species) or not np.array_equal(table, table.T, equal_nan=True):
        raise InputError(
            f"{name} = {array.tolist()}: give one value, or a symmetric table of "
            f"{n_species} × {n_species} species"
        )
    allowed = table >= 0 if may_vanish else table > 0
    if not (np.isfinite(table) & allowed).all():
        kind = "not negative" if may_vanish else "positive"
        raise InputError(f"{name} = {array.tolist()} must be {kind} and finite")
    return table


def symmetric(params: dict[str, Array]) -> dict[str, Array]:
    """The symmetric part of each table, as the energy of a pair does not depend on the order of its atoms."""
    return {name: 0.5 * (table + table.swapaxes(0, 1)) for name, table in params.items()}
