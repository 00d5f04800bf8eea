"""Energies summed over the slots of a neighbour list, with explicit forces.

The pairs of a list are visited a slot at a time: the k-th neighbour of all atoms at once. XLA vectorises the
element-wise body of a scan over slots on CPU, but not a gather followed by a reduction; forces summed over
a full list need no scatter. Such potentials therefore have an explicit derivative, which `slot_potential`
registers as the derivative rule of JAX.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

from difmd._internal import cpu_layout
from difmd._internal.gather import take
from difmd._internal.lattice import complete_cell, invert, product
from difmd._internal.replicas import of_all_replicas
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors, extended_positions
from difmd.potentials.base import Params, Potential
from difmd.potentials.species import Species, as_species, nan_if_unknown, types_of
from difmd.system import System

# Slots fused into one loop: the sums then pass through memory once per four slots. With eight the loop runs
# out of registers in float64.
_UNROLL = 4

# Twice as many in loops so short that waking a second core costs as much as their work. With more sums than
# forces need, that gains little and takes longer to compile.
_SHORT = 16_500
_FEW = 3

# Components of a symmetric tensor that are summed: xx, yy, zz, yz, xz, xy.
_VIRIAL = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class Sites(NamedTuple):
    """Atoms and lists of pairs; integers only, so nothing here is differentiated.

    Attributes:
        types: index of each atom's species in the tables; [atoms].
        most: number of slots in use, the same for all replicas.
        indices: see `Neighbors`, as for the following fields.
    """

    types: Int[Array, "atoms"]
    most: Int[Array, ""]
    indices: Int[Array, "slots columns"]
    centers: Int[Array, "columns"]
    order: Int[Array, "columns"]
    rank: Int[Array, "atoms"]
    parents: Int[Array, "extended"]
    images: Int[Array, "3 extended"]


class Row(NamedTuple):
    """One row of a deep table for each pair; `row.at(k)` is its k-th number."""

    values: Float[Array, "all"]
    start: Int[Array, "*pairs"] | int

    def at(self, k: Int[Array, "..."]) -> Float[Array, "..."]:
        """Number `k` of the row of each pair; `k` is one index for each pair or for all."""
        return take(self.values, self.start + k)


Energies: TypeAlias = Callable[[Params, list[Array], Sites], Array]
"""`energies(params, xyz, sites)` → energy of each center [eV], [columns]; `xyz` are extended positions."""

Derivative: TypeAlias = Callable[..., tuple[list[Array], list[Array] | None]]
"""`derivative(params, xyz, sites, with_virial=)` → forces on the centers, 3 × [columns], and the virial as
6 × [columns] in the order xx, yy, zz, yz, xz, xy."""


def slot_potential(
    energies: Energies,
    derivative: Derivative,
    *,
    init: Callable[[Array], Params],
    species: Species,
    cutoff: float,
) -> Potential:
    """A potential from energies of the centers of a list and their derivative, both differentiable by JAX."""
    check_positive("cutoff", cutoff, "Å")
    numbers = as_species(species)

    def energy_of(system: System, neighbors: Neighbors) -> tuple[Callable[..., Array], Sites]:
        periodic = neighbors.periodic

        def extend(r: Array, cell: Array, sites: Sites) -> list[Array]:
            current = neighbors.replace(parents=sites.parents, images=sites.images)
            return extended_positions(system.replace(positions=r, cell=cell), current)

        @jax.custom_jvp
        def energy(params: Params, r: Array, cell: Array, sites: Sites) -> Array:
            return jnp.sum(energies(params, extend(r, cell, sites), sites))

        def energy_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
            params, r, cell, sites = primals
            params_dot, r_dot, cell_dot, _ = tangents
            positions = extend(r, cell, sites)
            moves = not isinstance(r_dot, SymbolicZero)
            strains = not isinstance(cell_dot, SymbolicZero)
            value = energy(params, r, cell, sites)
            change = jnp.zeros_like(value)
            if moves or strains:
                centers, virial = derivative(params, positions, sites, with_virial=strains)
                forces = jnp.stack([take(f, sites.rank) for f in centers], axis=-1)
                if moves:
                    change = change - jnp.sum(forces * r_dot)
                if strains:
                    assert virial is not None
                    xx, yy, zz, yz, xz, xy = (jnp.sum(s) for s in virial)
                    tensor = jnp.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3)
                    # A change of the cell alone is a strain of everything, minus that of the atoms.
                    rows = jnp.asarray(periodic)[:, None]
                    complete = complete_cell(cell, periodic)
                    strain = product(invert(complete), jnp.where(rows, cell_dot, 0))
                    change = change + jnp.sum(tensor * strain) + jnp.sum(forces * product(r, strain))
            leaves, tree = jax.tree.flatten(params)
            dots = jax.tree.leaves(params_dot, is_leaf=lambda x: isinstance(x, SymbolicZero))
            if any(not isinstance(dot, SymbolicZero) for dot in dots):
                filled = [
                    jnp.zeros_like(x) if isinstance(dot, SymbolicZero) else dot
                    for x, dot in zip(leaves, dots, strict=True)
                ]
                tangent = jax.tree.unflatten(tree, filled)
                _, through = jax.jvp(lambda p: jnp.sum(energies(p, positions, sites)), (params,), (tangent,))
                change = change + through
            return value, change

        energy.defjvp(energy_jvp, symbolic_zeros=True)
        return energy, sites_of(numbers, system, neighbors)

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        energy, sites = energy_of(system, neighbors)
        return nan_if_unknown(numbers, system) * energy(params, system.positions, system.cell, sites)

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        _, sites = energy_of(system, neighbors)
        of_centers = energies(params, extended_positions(system, neighbors), sites)
        return nan_if_unknown(numbers, system) * take(of_centers, sites.rank)

    return Potential(init=init, apply=apply, atomic=atomic, cutoff=float(cutoff), species=frozenset(numbers))


def sites_of(numbers: Sequence[int], system: System, neighbors: Neighbors) -> Sites:
    """The `Sites` of a system and its list."""
    types, most = types_of(numbers, system.atomic_numbers), of_all_replicas(neighbors.n_neighbors)
    lists = ("indices", "centers", "order", "rank", "parents", "images")
    return Sites(types, most, *(getattr(neighbors, name) for name in lists))


def sum_over_slots(
    term: Callable[[Any, Int[Array, "columns"]], list[Array]],
    center_data: Any,
    sites: Sites,
    *,
    unroll: int | None = None,
) -> list[Float[Array, "columns"]]:
    """Σ_k term(center_data, extended index of the k-th neighbour of every center), element-wise.

    `center_data` is a pytree of [columns]. `unroll` is the number of slots per loop iteration; its default is
    tuned for the forces of a pair potential.
    """
    term = jax.checkpoint(term)
    # Slots beyond those in use are skipped, where a condition costs less than the work.
    skips = jax.default_backend() == "cpu"
    n_slots, n_columns = sites.indices.shape

    def sums(start: Array | int, size: int) -> list[Array]:
        """Sums of `size` centers from `start` on."""
        some = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), center_data)

        def add(total: list[Array], k: Array) -> list[Array]:
            # Taken here and not by the scan, which would transpose the lists of replicas.
            j = lax.dynamic_slice(sites.indices, (k, start), (1, size))[0]
            return [s + t for s, t in zip(total, term(some, j), strict=True)]

        def fused(total: list[Array], first: Array, number: int) -> list[Array]:
            return functools.reduce(add, [first + k for k in range(number)], total)

        shapes = jax.eval_shape(term, some, jnp.zeros(size, jnp.int32))
        total = [jnp.zeros(x.shape, x.dtype) for x in shapes]
        many = _UNROLL * (2 if n_columns < _SHORT and len(total) <= _FEW else 1)
        many = max(1, min(many if unroll is None else unroll, n_slots))

        def visit(total: list[Array], first: Array, number: int) -> list[Array]:
            some_slots = functools.partial(fused, number=number)
            if not skips:
                return some_slots(total, first)
            return lax.cond(first < sites.most, some_slots, lambda total, _: total, total, first)

        firsts = np.arange(0, n_slots - many + 1, many, dtype=np.int32)
        total, _ = lax.scan(
            lambda total, first: (visit(total, first, many), None), total, jnp.asarray(firsts)
        )
        rest = n_slots % many
        return visit(total, jnp.int32(n_slots - rest), rest) if rest else total

    # Up to two blocks are summed at once.
    parts = cpu_layout.split(n_columns, cpu_layout.SUMMED) if n_columns > 2 * cpu_layout.SUMMED else None
    if parts is None:
        return sums(jnp.int32(0), n_columns)
    starts, length = parts
    _, blocks = lax.scan(lambda _, start: (None, sums(start, length)), None, jnp.asarray(starts))
    rest = n_columns - length * (len(starts) - 1)
    return [jnp.concatenate([x[:-1].reshape(-1), x[-1, length - rest :]]) for x in blocks]


def separation(
    xyz: list[Float[Array, "points"]], centers: list[Float[Array, "columns"]], j: Int[Array, "columns"]
) -> tuple[list[Float[Array, "columns"]], Float[Array, "columns"]]:
    """r_ij = r_j − r_i by component [Å], and its square."""
    apart = [take(x, j) - c for x, c in zip(xyz, centers, strict=True)]
    return apart, apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2


def virial_terms(
    pull: Sequence[Float[Array, "*pairs"]], apart: Sequence[Float[Array, "*pairs"]], *, counted: int = 2
) -> list[Float[Array, "*pairs"]]:
    """Virial [eV] from ∂U/∂r_ij [eV/Å] and r_ij [Å] of a pair that is summed `counted` times."""
    return [pull[a] * apart[b] / counted for a, b in _VIRIAL]


def types_of_pairs(n_types: int, sites: Sites) -> tuple[Any, Callable[[Array], Any]]:
    """Types of the centers, and a function from indices to types of neighbours; None for one type."""
    if n_types == 1:
        return None, lambda j: None
    # The last two extended positions are not atoms and out of reach; their type is arbitrary.
    extended = jnp.concatenate([take(sites.types, sites.parents), jnp.zeros(2, jnp.int32)])
    return take(sites.types, sites.order), lambda j: take(extended, j)


def entry(table: Float[Array, "species species *deep"], i: Any, j: Any) -> Any:
    """The entry of a table for pairs of types i and j, a `Row` of a deep table."""
    if table.ndim == 2:
        return table[0, 0] if i is None else take(table.reshape(-1), i * len(table) + j)
    depth = int(np.prod(table.shape[2:]))
    start = 0 if i is None else (i * len(table) + j) * depth
    return Row(table.reshape(-1), start)


def checked_tables(tables: Any, n_types: int, dtype: Any) -> Any:
    """Tables, a pytree of [species, species, …], in the precision of the positions."""
    cast = jax.tree.map(lambda x: jnp.asarray(x, dtype), tables)
    for leaf in jax.tree.leaves(cast):
        if leaf.shape[:2] != (n_types, n_types):
            raise InputError(
                f"params make a table of {list(leaf.shape[:2])} for {n_types} species: "
                "give one entry per species, as `init` does"
            )
    return cast
