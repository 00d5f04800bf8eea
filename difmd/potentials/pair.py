"""Pair potentials: a scalar function of r² becomes a potential with fast forces.

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
from difmd._internal.dtypes import floats
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
"""One value for all pairs, or a symmetric table of the species."""


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
        tables: `tables(params)` → pytree of [species, species] arrays, of which `phi` gets the entry of its
            pair. Deeper arrays it gets as a `Row`.
        species: symbols or atomic numbers, in the order of the tables.
        cutoff: [Å].
        truncation: how φ ends at the cut-off; default `truncated()`.
        tail_correction: add what lies beyond the cut-off for g(r) = 1, to energy and stress; needs
            three periodic directions.

    Returns:
        The `Potential`.

    Raises:
        InputError: cutoff not positive, an unknown or repeated species, no truncation, or a switch that does
            not start between 0 and the cut-off. When applied: params of the wrong length, or a tail
            correction without three periodic directions; an unknown species gives NaN under jit.

    References:
        Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, §2.8 (tail corrections).
    """
    check_positive("cutoff", cutoff, "Å")
    cutoff = float(cutoff)
    truncation = truncated() if truncation is None else truncation
    if not isinstance(truncation, Truncation):
        raise InputError(
            f"truncation = {truncation!r} must be what truncated(), shifted() or switched(onset) returns"
        )
    if not 0 <= truncation.onset < cutoff:
        raise InputError(f"onset = {truncation.onset} Å must lie between 0 and cutoff = {cutoff} Å")
    numbers = as_species(species)
    n_types = len(numbers)
    ended = truncation.end(phi, cutoff)

    def within(pair: Any, r_squared: Array) -> Array:
        inside = r_squared < cutoff**2
        # The operand is safe on both branches, else padded pairs give NaN derivatives.
        safe = jnp.where(inside, r_squared, cutoff**2)
        return jnp.where(inside, ended(pair, safe), 0)

    def pairs(params: Params, xyz: list[Array], sites: Sites) -> tuple[Any, Callable[[Any, Array], Any]]:
        """What centers bring along, and a function of it and a slot: r_ij, r²_ij and what φ needs for it."""
        table = checked_tables(tables(params), n_types, xyz[0].dtype)
        own_types, type_of_neighbor = types_of_pairs(n_types, sites)

        def visit(own: Any, j: Array) -> tuple[list[Array], Array, Any]:
            centers, i = own
            apart, r_squared = separation(xyz, centers, j)
            there = type_of_neighbor(j)
            return apart, r_squared, jax.tree.map(lambda x: entry(x, i, there), table)

        return ([take(x, sites.centers) for x in xyz], own_types), visit

    def energies(params: Params, xyz: list[Array], sites: Sites) -> Array:
        own, visit = pairs(params, xyz, sites)

        def term(own: Any, j: Array) -> list[Array]:
            _, r_squared, pair = visit(own, j)
            return [0.5 * within(pair, r_squared)]

        (total,) = sum_over_slots(term, own, sites)
        return total

    def derivative(
        exponent: int | None, params: Params, xyz: list[Array], sites: Sites, *, with_virial: bool
    ) -> tuple[list[Array], list[Array] | None]:
        own, visit = pairs(params, xyz, sites)

        def term(own: Any, j: Array) -> list[Array]:
            apart, r_squared, pair = visit(own, j)
            _, slope = jax.jvp(lambda s: within(pair, s), (r_squared,), (jnp.ones_like(r_squared),))
            pull = [2 * slope * d for d in apart]
            if exponent is not None:
                pull = [rounded(x, exponent) for x in pull]
            return pull + (virial_terms(pull, apart) if with_virial else [])

        sums = sum_over_slots(term, own, sites)
        return sums[:3], sums[3:] if with_virial else None

    def pull_back(
        params: Params, system: System, neighbors: Neighbors, v: Array
    ) -> tuple[Params, Array] | None:
        if any(leaf.ndim > 2 for leaf in jax.tree.leaves(jax.eval_shape(tables, params))):
            return None
        # W = Σ_i v_i · F_i = −½ Σ_i Σ_k g(r_ik, v_ik) with g(d, w) = 2 φ'(d²) d · w, and ∂W/∂r_i is the sum
        # of ∂g/∂d over the neighbours of i, as F_i is one. One pass over the pairs gives that and ∂W/∂θ.
        sites = sites_of(numbers, system, neighbors)
        xyz = extended_positions(system, neighbors)
        table, to_params = jax.vjp(lambda p: checked_tables(tables(p), n_types, xyz[0].dtype), params)
        own_types, type_of_neighbor = types_of_pairs(n_types, sites)
        moves = [
            jnp.concatenate([take(v[:, axis], sites.parents), jnp.zeros(2, v.dtype)]) for axis in range(3)
        ]

        def term(own: Any, j: Array) -> list[Array]:
            (centers, speeds), i = own
            apart, r_squared = separation(xyz, centers, j)
            apart_dot = [take(x, j) - c for x, c in zip(moves, speeds, strict=True)]
            there = type_of_neighbor(j)
            pair = jax.tree.map(lambda x: jnp.broadcast_to(entry(x, i, there), j.shape), table)

            inside = r_squared < cutoff**2
            safe = jnp.where(inside, r_squared, cutoff**2)
            one = jnp.ones_like(safe)

            def slope_of(s: Array, pair: Any) -> Array:
                return jax.jvp(lambda s: ended(pair, s), (s,), (one,))[1]

            slope, curvature = jax.jvp(lambda s: slope_of(s, pair), (safe,), (one,))
            slope, curvature = (jnp.where(inside, x, 0) for x in (slope, curvature))
            flat, tree = jax.tree.flatten(pair)
            of_pair = [
                jax.jvp(
                    lambda x, k=k: slope_of(safe, jax.tree.unflatten(tree, [*flat[:k], x, *flat[k + 1 :]])),
                    (leaf,),
                    (jnp.ones_like(leaf),),
                )[1]
                for k, leaf in enumerate(flat)
            ]
            of_pair = [jnp.where(inside, x, 0) for x in of_pair]
            along = 2 * sum(d * w for d, w in zip(apart, apart_dot, strict=True))
            stretch = 2 * curvature * along
            of_apart = [2 * slope * w + stretch * d for d, w in zip(apart, apart_dot, strict=True)]
            leaves = [along * x for x in jax.tree.leaves(of_pair)]
            if there is None:
                return [*of_apart, *leaves]
            return [*of_apart, *(jnp.where(there == t, x, 0) for x in leaves for t in range(n_types))]

        own = ([[take(x, sites.centers) for x in axes] for axes in (xyz, moves)], own_types)
        # More numbers a slot than forces have, which leave the cache sooner.
        sums = sum_over_slots(term, own, sites, unroll=8 if sites.indices.shape[1] < 8000 else 4)
        bars = [
            _by_type(x, own_types, n_types) for x in jnp.stack(sums[3:]).reshape(-1, n_types, len(sums[0]))
        ]
        (of_params,) = to_params(jax.tree.unflatten(jax.tree.structure(table), [-0.5 * x for x in bars]))
        factor = nan_if_unknown(numbers, system)
        of_positions = factor * jnp.stack([take(x, sites.rank) for x in sums[:3]], axis=-1)
        return jax.tree.map(lambda x: factor.astype(x.dtype) * x, of_params), of_positions

    def tail(params: Params, system: System, neighbors: Neighbors) -> Array:
        if not all(neighbors.periodic):
            raise InputError("tail_correction needs three periodic directions: leave it out for this system")
        dtype = system.cell.dtype
        table = checked_tables(tables(params), n_types, dtype)
        if any(leaf.ndim > 2 for leaf in jax.tree.leaves(table)):
            raise InputError("tail_correction needs a number for each pair: leave it out with deeper tables")
        real = (system.atomic_numbers > 0).astype(dtype)
        counts = jnp.zeros(n_types, dtype).at[types_of(numbers, system.atomic_numbers)].add(real)
        return tail_energy(phi, table, counts, system.cell, cutoff, truncation)

    @functools.cache
    def made(exponent: int | None) -> Potential:
        bare = slot_potential(
            energies,
            functools.partial(derivative, exponent),
            init=init,
            species=species,
            cutoff=cutoff,
        )
        bare = dataclasses.replace(bare, on_grid=made, pull_back=pull_back)
        if not tail_correction:
            return bare

        def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
            return bare.apply(params, system, neighbors) + tail(params, system, neighbors)

        def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
            real = system.atomic_numbers > 0
            share = tail(params, system, neighbors) / jnp.sum(real, dtype=system.cell.dtype)
            return bare.atomic(params, system, neighbors) + jnp.where(real, share, 0)

        return dataclasses.replace(bare, apply=apply, atomic=atomic)

    return made(None)


def _by_type(sums: Array, types: Array | None, n_types: int) -> Float[Array, "species species"]:
    """Sums over the centers of each type, from those of each center over its neighbours of each type."""
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


def pair_tables(
    n_species: int, *, may_vanish: Sequence[str] = (), **values: Any
) -> Callable[[Array], dict[str, Array]]:
    """`init` of a potential whose params are tables of the species, from one value or a table each.

    Raises:
        InputError: as `pair_table`.
    """
    tables = {
        name: pair_table(name, value, n_species, may_vanish=name in may_vanish)
        for name, value in values.items()
    }

    def init(key: Array) -> dict[str, Array]:
        del key
        return {name: floats(table) for name, table in tables.items()}

    return init


def pair_table(name: str, value: Any, n_species: int, *, may_vanish: bool = False) -> np.ndarray:
    """A table of the species from one value or a table (host); float64 [species, species].

    Raises:
        InputError: a table that is not [species, species] and symmetric, or a value that is not positive
            (or negative, if it `may_vanish`).
    """
    array = real_numbers(name, value)
    table = np.broadcast_to(array, (n_species, n_species)) if array.ndim == 0 else array
    if table.shape != (n_species, n_species) or not np.array_equal(table, table.T, equal_nan=True):
        raise InputError(
            f"{name} = {array.tolist()}: give one value, or a symmetric table of "
            f"{n_species} × {n_species} for the species"
        )
    allowed = table >= 0 if may_vanish else table > 0
    if not (np.isfinite(table) & allowed).all():
        kind = "not negative" if may_vanish else "positive"
        raise InputError(f"{name} = {array.tolist()} must be {kind} and finite")
    return table


def symmetric(params: dict[str, Array]) -> dict[str, Array]:
    """The symmetric part of each table: what a pair needs does not depend on which atom comes first.

    Raises:
        InputError: a table that is not square.
    """
    for name, table in params.items():
        if table.ndim < 2 or table.shape[0] != table.shape[1]:
            raise InputError(
                f"params[{name!r}] make a table of {list(table.shape)}: give one entry a species each way, "
                "as `init` does"
            )
    return {name: 0.5 * (table + table.swapaxes(0, 1)) for name, table in params.items()}
