"""Pair potentials: a scalar function of r² becomes a potential with fast forces.

The energy is ½ Σ_i Σ_k φ(r²_ik) over the slots k of a full neighbour list. Its derivative is written
out, F_i = Σ_k 2 φ'(r²_ik) r_ik, so that a force needs no scatter: XLA vectorises the element-wise body
of a scan over slots on CPU, which it does not do for a gather followed by a reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

from difmd.errors import InputError
from difmd.neighbors import Neighbors, extended_positions
from difmd.neighbors.lattice import complete_cell, product
from difmd.potentials.base import Params, Potential
from difmd.potentials.truncation import Truncation, tail_energy, truncated
from difmd.system import System
from difmd.take import take

PairFunction: TypeAlias = Callable[[Any, Array], Array]
"""`phi(pair_params, r_squared) -> energy`, element-wise."""

PairValues: TypeAlias = float | Sequence[Sequence[float]] | np.ndarray
"""One value for all pairs, or a symmetric table of the species."""

# Slots fused into one loop: the sums then pass through memory once in four slots. With eight the loop runs
# out of registers in float64.
_UNROLL = 4

_VIRIAL = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class _Geometry(NamedTuple):
    """What pairs are made of; integers only, so nothing here is differentiated."""

    types: Int[Array, "atoms"]
    indices: Int[Array, "slots atoms"]
    centers: Int[Array, "atoms"]
    order: Int[Array, "atoms"]
    rank: Int[Array, "atoms"]
    parents: Int[Array, "extended"]
    images: Int[Array, "3 extended"]


def pair_potential(
    phi: PairFunction,
    *,
    init: Callable[[Array], Params],
    tables: Callable[[Params], Any],
    species: Sequence[int | str],
    cutoff: float,
    truncation: Truncation | None = None,
    tail_correction: bool = False,
) -> Potential:
    """A potential from a function of the squared distance of a pair.

    Args:
        phi: `phi(pair, r_squared) -> energy` [eV] for arrays of r² [Å²], differentiable twice.
        init: `init(key) -> params`.
        tables: `tables(params)` → pytree of [species, species] arrays; `phi` gets the entry of its pair.
        species: symbols or atomic numbers, in the order of the tables.
        cutoff: [Å].
        truncation: how φ ends at the cut-off; default `truncated()`.
        tail_correction: add what lies beyond the cut-off for g(r) = 1, to energy and stress; needs
            three periodic directions.

    Returns:
        The `Potential`.

    Raises:
        InputError: cutoff not positive, an unknown or repeated species, or a switch that does not start
            between 0 and the cut-off. When applied: params of the wrong length, or a tail correction
            without three periodic directions; an unknown species gives NaN under jit.

    References:
        Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, §2.8 (tail corrections).
    """
    if not cutoff > 0 or not np.isfinite(cutoff):
        raise InputError(f"cutoff = {cutoff} Å must be positive and finite")
    truncation = truncated() if truncation is None else truncation
    if not 0 <= truncation.onset < cutoff:
        raise InputError(f"onset = {truncation.onset} Å must lie between 0 and cutoff = {cutoff} Å")
    numbers = species_numbers(species)
    n_types = len(numbers)
    type_of = np.full(119, -1, np.int32)
    type_of[list(numbers)] = np.arange(n_types)
    ended = truncation.end(phi, cutoff)

    def within(pair: Any, r_squared: Array) -> Array:
        inside = r_squared < cutoff**2
        # The operand is safe on both branches, else padded pairs give NaN derivatives.
        safe = jnp.where(inside, r_squared, cutoff**2)
        return jnp.where(inside, ended(pair, safe), 0)

    def tables_of(params: Params, dtype: Any) -> Any:
        found = jax.tree.map(lambda x: jnp.asarray(x, dtype), tables(params))
        for leaf in jax.tree.leaves(found):
            if leaf.shape[:2] != (n_types, n_types):
                raise InputError(
                    f"params make a table of {list(leaf.shape[:2])} for {n_types} species: "
                    "give one entry a species, as `init` does"
                )
        return found

    def parameters(params: Params, geometry: _Geometry, dtype: Any) -> Callable[[Array], Any]:
        """A function of a slot that gives what φ needs for its pairs."""
        table = tables_of(params, dtype)
        if n_types == 1:
            single = jax.tree.map(lambda x: x[0, 0], table)
            return lambda j: single
        flat = jax.tree.map(lambda x: x.reshape(-1), table)
        # The last two extended positions are no atoms; their type is arbitrary, as they are out of reach.
        extended = jnp.concatenate([take(geometry.types, geometry.parents), jnp.zeros(2, jnp.int32)])
        row = take(geometry.types, geometry.order) * n_types
        return lambda j: jax.tree.map(lambda x: take(x, row + take(extended, j)), flat)

    def sum_over_slots(
        term: Callable[[Array], list[Array]], zeros: list[Array], geometry: _Geometry
    ) -> list[Array]:
        """Σ_k term(k-th neighbour of every center)."""
        term = jax.checkpoint(term)

        def add(sums: list[Array], k: Array) -> tuple[list[Array], None]:
            # Taken here and not by the scan, which would transpose the lists of replicas.
            j = lax.dynamic_index_in_dim(geometry.indices, k, keepdims=False)
            return [s + t for s, t in zip(sums, term(j), strict=True)], None

        slots = jnp.arange(len(geometry.indices), dtype=jnp.int32)
        return lax.scan(add, zeros, slots, unroll=_UNROLL)[0]

    def atomic_energies(params: Params, xyz: list[Array], geometry: _Geometry) -> Array:
        pair_of = parameters(params, geometry, xyz[0].dtype)
        centers = [take(x, geometry.centers) for x in xyz]

        def term(j: Array) -> list[Array]:
            _, r_squared = _separation(xyz, centers, j)
            return [0.5 * within(pair_of(j), r_squared)]

        (total,) = sum_over_slots(term, [jnp.zeros_like(centers[0])], geometry)
        return take(total, geometry.rank)

    def forces_and_virial(
        params: Params, xyz: list[Array], geometry: _Geometry, *, with_virial: bool
    ) -> tuple[Array, Array | None]:
        pair_of = parameters(params, geometry, xyz[0].dtype)
        centers = [take(x, geometry.centers) for x in xyz]

        def term(j: Array) -> list[Array]:
            apart, r_squared = _separation(xyz, centers, j)
            pair = pair_of(j)
            _, slope = jax.jvp(lambda s: within(pair, s), (r_squared,), (jnp.ones_like(r_squared),))
            pull = 2 * slope
            terms = [pull * d for d in apart]
            if with_virial:
                # Each pair is seen twice.
                terms += [0.5 * pull * apart[a] * apart[b] for a, b in _VIRIAL]
            return terms

        sums = sum_over_slots(term, [jnp.zeros_like(centers[0])] * (9 if with_virial else 3), geometry)
        forces = jnp.stack([take(f, geometry.rank) for f in sums[:3]], axis=-1)
        if not with_virial:
            return forces, None
        xx, yy, zz, yz, xz, xy = (jnp.sum(s) for s in sums[3:])
        return forces, jnp.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3)

    def energy_of(
        params: Params, system: System, neighbors: Neighbors
    ) -> tuple[Callable[..., Array], _Geometry]:
        periodic = neighbors.periodic

        def extend(r: Array, cell: Array, geometry: _Geometry) -> list[Array]:
            moved = system.replace(positions=r, cell=cell)
            current = neighbors.replace(parents=geometry.parents, images=geometry.images)
            return extended_positions(moved, current)

        @jax.custom_jvp
        def energy(params: Params, r: Array, cell: Array, geometry: _Geometry) -> Array:
            return jnp.sum(atomic_energies(params, extend(r, cell, geometry), geometry))

        def energy_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
            params, r, cell, geometry = primals
            params_dot, r_dot, cell_dot, _ = tangents
            positions = extend(r, cell, geometry)
            moves = not isinstance(r_dot, SymbolicZero)
            strains = not isinstance(cell_dot, SymbolicZero)
            value = energy(params, r, cell, geometry)
            change = jnp.zeros_like(value)
            if moves or strains:
                forces, virial = forces_and_virial(params, positions, geometry, with_virial=strains)
                if moves:
                    change = change - jnp.sum(forces * r_dot)
                if strains:
                    # A change of the cell alone is a strain of everything, minus that of the atoms.
                    rows = jnp.asarray(periodic)[:, None]
                    whole = complete_cell(cell, periodic)
                    strain = jnp.linalg.solve(whole, jnp.where(rows, cell_dot, 0))
                    change = change + jnp.sum(virial * strain) + jnp.sum(forces * product(r, strain))
            leaves, tree = jax.tree.flatten(params)
            dots = jax.tree.leaves(params_dot, is_leaf=_is_symbolic_zero)
            if any(not isinstance(dot, SymbolicZero) for dot in dots):
                filled = [
                    jnp.zeros_like(x) if isinstance(dot, SymbolicZero) else dot
                    for x, dot in zip(leaves, dots, strict=True)
                ]
                _, through = jax.jvp(
                    lambda p: jnp.sum(atomic_energies(p, positions, geometry)),
                    (params,),
                    (jax.tree.unflatten(tree, filled),),
                )
                change = change + through
            return value, change

        energy.defjvp(energy_jvp, symbolic_zeros=True)
        geometry = _Geometry(
            types=jnp.maximum(jnp.asarray(type_of)[system.atomic_numbers], 0),
            indices=neighbors.indices,
            centers=neighbors.centers,
            order=neighbors.order,
            rank=neighbors.rank,
            parents=neighbors.parents,
            images=neighbors.images,
        )
        return energy, geometry

    def tail(params: Params, system: System) -> Array:
        types = jnp.maximum(jnp.asarray(type_of)[system.atomic_numbers], 0)
        real = system.atomic_numbers > 0
        counts = jnp.zeros(n_types, system.cell.dtype).at[types].add(real.astype(system.cell.dtype))
        return tail_energy(phi, tables_of(params, system.cell.dtype), counts, system.cell, cutoff, truncation)

    def known(system: System, neighbors: Neighbors) -> Array:
        """1, or NaN with a species that the potential does not know: no exception can tell under jit."""
        if tail_correction and not all(neighbors.periodic):
            raise InputError("tail_correction needs three periodic directions: leave it out for this system")
        numbers = system.atomic_numbers
        unknown = jnp.any((numbers > 0) & (jnp.asarray(type_of)[numbers] < 0))
        return jnp.where(unknown, jnp.nan, 1).astype(system.positions.dtype)

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        energy, geometry = energy_of(params, system, neighbors)
        total = known(system, neighbors) * energy(params, system.positions, system.cell, geometry)
        if tail_correction:
            total = total + tail(params, system)
        return total

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        _, geometry = energy_of(params, system, neighbors)
        positions = extended_positions(system, neighbors)
        energies = known(system, neighbors) * atomic_energies(params, positions, geometry)
        if tail_correction:
            real = system.atomic_numbers > 0
            energies = energies + jnp.where(
                real, tail(params, system) / jnp.sum(real, dtype=energies.dtype), 0
            )
        return energies

    return Potential(init=init, apply=apply, atomic=atomic, cutoff=float(cutoff), species=frozenset(numbers))


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
        InputError: a table that is not [species, species] and symmetric, or a value that is not positive
            (or negative, for those that `may_vanish`).
    """
    tables = {}
    for name, value in values.items():
        array = np.asarray(value, np.float64)
        table = np.broadcast_to(array, (n_species, n_species)) if array.ndim == 0 else array
        if table.shape != (n_species, n_species) or not np.array_equal(table, table.T):
            raise InputError(
                f"{name} = {array.tolist()}: give one value, or a symmetric table of "
                f"{n_species} × {n_species} for the species"
            )
        allowed = table >= 0 if name in may_vanish else table > 0
        if not (np.isfinite(table) & allowed).all():
            kind = "not negative" if name in may_vanish else "positive"
            raise InputError(f"{name} = {array.tolist()} must be {kind} and finite")
        tables[name] = table

    def init(key: Array) -> dict[str, Array]:
        del key
        return {name: jnp.asarray(table, jnp.zeros(()).dtype) for name, table in tables.items()}

    return init


def symmetric(params: dict[str, Array]) -> dict[str, Array]:
    """The symmetric part of each table: what a pair needs does not depend on which atom comes first.

    Raises:
        InputError: a table that is not square.
    """
    for name, table in params.items():
        if table.ndim != 2 or table.shape[0] != table.shape[1]:
            raise InputError(
                f"params[{name!r}] make a table of {list(table.shape)}: give one entry a species each way, "
                "as `init` does"
            )
    return {name: 0.5 * (table + table.T) for name, table in params.items()}


def species_numbers(species: Sequence[int | str]) -> tuple[int, ...]:
    """Atomic numbers of symbols or numbers.

    Raises:
        InputError: none, an unknown one, or one given twice.
    """
    from ase.data import atomic_numbers

    if isinstance(species, str) or len(species) == 0:
        raise InputError(f"species must be a sequence such as ('Ar', 'Kr'), got {species!r}")
    numbers = []
    for name in species:
        number = atomic_numbers.get(name) if isinstance(name, str) else int(name)
        if number is None or not 0 < number <= 118:
            raise InputError(f"species {name!r} is neither a chemical symbol nor a number 1 .. 118")
        numbers.append(number)
    if len(set(numbers)) < len(numbers):
        raise InputError(f"species {tuple(species)} holds an element twice")
    return tuple(numbers)


def _is_symbolic_zero(x: Any) -> bool:
    return isinstance(x, SymbolicZero)


def _separation(xyz: list[Array], centers: list[Array], j: Int[Array, "atoms"]) -> tuple[list[Array], Array]:
    apart = [take(x, j) - c for x, c in zip(xyz, centers, strict=True)]
    return apart, apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
