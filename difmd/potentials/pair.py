"""Pair potentials: a scalar function of r² becomes a potential with fast forces.

The energy is ½ Σ_i Σ_k φ(r²_ik) over the columns k of a full neighbour list. Its derivative is written
out, F_i = Σ_k 2 φ'(r²_ik) r_ik, so that a force needs no scatter: XLA vectorises the element-wise body
of a scan over columns on CPU, which it does not do for a gather followed by a reduction.
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

PairFunction: TypeAlias = Callable[[Any, Array], Array]
"""`phi(pair_params, r_squared) -> energy`, element-wise."""

# Columns fused into one loop: the sums then pass through memory once in eight columns.
_UNROLL = 8

_VIRIAL = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class _Geometry(NamedTuple):
    """What the columns of pairs are made of; integers only, so nothing here is differentiated."""

    types: Int[Array, "atoms"]
    parents: Int[Array, "extended"]
    images: Int[Array, "extended 3"]
    indices: Int[Array, "slots atoms"]


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

    def columns(params: Params, geometry: _Geometry, dtype: Any) -> Callable[[Array], Any]:
        table = tables_of(params, dtype)
        if n_types == 1:
            single = jax.tree.map(lambda x: x[0, 0], table)
            return lambda j: single
        flat = jax.tree.map(lambda x: x.reshape(-1), table)
        # The last extended position is no atom; its type is arbitrary, as it is out of reach.
        extended = jnp.append(geometry.types[geometry.parents], 0)
        row = geometry.types * n_types
        return lambda j: jax.tree.map(lambda x: x[row + extended[j]], flat)

    def atomic_energies(params: Params, positions: Array, geometry: _Geometry) -> Array:
        pair_of = columns(params, geometry, positions.dtype)
        xyz, centers = _split(positions, len(geometry.types))

        @jax.checkpoint
        def column(j: Array) -> Array:
            _, r_squared = _separation(xyz, centers, j)
            return 0.5 * within(pair_of(j), r_squared)

        start = jnp.zeros_like(centers[0])
        total, _ = lax.scan(lambda sum_, j: (sum_ + column(j), None), start, geometry.indices, unroll=_UNROLL)
        return total

    def forces_and_virial(
        params: Params, positions: Array, geometry: _Geometry, *, with_virial: bool
    ) -> tuple[Array, Array | None]:
        pair_of = columns(params, geometry, positions.dtype)
        xyz, centers = _split(positions, len(geometry.types))
        start = [jnp.zeros_like(centers[0])] * (9 if with_virial else 3)

        @jax.checkpoint
        def column(j: Array) -> list[Array]:
            apart, r_squared = _separation(xyz, centers, j)
            pair = pair_of(j)
            _, slope = jax.jvp(lambda s: within(pair, s), (r_squared,), (jnp.ones_like(r_squared),))
            pull = 2 * slope
            terms = [pull * d for d in apart]
            if with_virial:
                # Each pair is seen twice.
                terms += [0.5 * pull * apart[a] * apart[b] for a, b in _VIRIAL]
            return terms

        def add(sums: list[Array], j: Array) -> tuple[list[Array], None]:
            return [s + t for s, t in zip(sums, column(j), strict=True)], None

        sums, _ = lax.scan(add, start, geometry.indices, unroll=_UNROLL)
        forces = jnp.stack(sums[:3], axis=-1)
        if not with_virial:
            return forces, None
        xx, yy, zz, yz, xz, xy = (jnp.sum(s) for s in sums[3:])
        return forces, jnp.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3)

    def energy_of(
        params: Params, system: System, neighbors: Neighbors
    ) -> tuple[Callable[..., Array], _Geometry]:
        periodic = neighbors.periodic

        def extend(r: Array, cell: Array, geometry: _Geometry) -> Array:
            moved = system.replace(positions=r, cell=cell)
            return extended_positions(
                moved, neighbors.replace(parents=geometry.parents, images=geometry.images)
            )

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
            parents=neighbors.parents,
            images=neighbors.images,
            indices=neighbors.indices,
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


def _split(positions: Float[Array, "points 3"], n_atoms: int) -> tuple[list[Array], list[Array]]:
    """Coordinates as three separate arrays, of all extended positions and of the atoms."""
    xyz = [positions[:, axis] for axis in range(3)]
    return xyz, [x[:n_atoms] for x in xyz]


def _separation(xyz: list[Array], centers: list[Array], j: Int[Array, "atoms"]) -> tuple[list[Array], Array]:
    apart = [x[j] - c for x, c in zip(xyz, centers, strict=True)]
    return apart, apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
