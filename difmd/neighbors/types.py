"""`Neighbors`: an exact full neighbour list in columns, over atoms and their periodic images.

Pairs refer to an *extended* set of positions: the atoms, wrapped into the cell, and every image within reach,
in the order of their bins. Any cut-off and cell is possible, and neighbours lie close together in memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.argument_checks import check_type, is_traced
from difmd._internal.gather import take
from difmd._internal.reductions import largest
from difmd._internal.summaries import concrete, fields_summary, summary
from difmd.errors import Flag, InputError, Status
from difmd.system import System, check_single

# Coordinate of unused entries: beyond any cut-off, with a finite square.
_FAR = 1e6

# From so many extended positions on, the work is shared by all cores.
_LONG = 100_000


class Grid(NamedTuple):
    """Bins along each lattice vector, across the cell or the atoms; static.

    `reach` is the number that cutoff + skin spans; a run of 2 reach + 1 bins along the third vector may hold
    `capacity` positions.
    """

    bins: tuple[int, int, int]
    reach: tuple[int, int, int]
    capacity: int


def as_ints(values: Any) -> tuple[int, int, int]:
    """Three Python integers."""
    a, b, c = (int(value) for value in values)
    return a, b, c


class ReverseEdges(NamedTuple):
    """Undirected pairs, each two entries of a list; entry c · slots + k is the k-th neighbour of center c.

    Attributes:
        pair: number of the pair of each entry, the last one for unused entries; int32 [columns, slots].
        entries: the two entries of each pair, 0 for unused pairs; int32 [2, pairs].
    """

    pair: Int[Array, "*batch columns slots"]
    entries: Int[Array, "*batch 2 pairs"]

    def __repr__(self) -> str:
        """Shapes of the arrays."""
        return fields_summary(self)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Neighbors:
    """Every pair closer than `cutoff + skin`, each seen from both of its atoms.

    Columns belong to *centers*: the atoms in the order of their bins, followed by padding to a length that
    suits the cache and the cores of a CPU.

    Attributes:
        indices: `indices[k, c]` is the k-th neighbour of center c, an index into the extended
            positions, whose number marks unused entries; int32 [slots, columns].
        centers: extended position of each center; int32 [columns].
        order: atom of each center, 0 where it pads; int32 [columns].
        rank: center of each atom, the inverse of `order`; int32 [atoms].
        parents: atom that each extended position is an image of; int32 [extended].
        images: lattice translation of each extended position; int32 [3, extended].
        wraps: lattice translation that wrapped each atom into the cell; int32 [atoms, 3].
        reference_positions: positions at the last rebuild [Å]; [atoms, 3].
        reference_cell: cell at the last rebuild [Å]; [3, 3].
        n_neighbors: largest number of neighbours of an atom, which may exceed the slots; int32 [].
        n_extended: number of extended positions needed, which may exceed the capacity; int32 [].
        n_in_run: positions in the fullest run of bins, which may exceed `grid.capacity`; int32 [].
        too_small: the cell needs more images than `grid` allows for; bool [].
        reverse_edges: undirected pairs, updated with the list; None unless requested.
        cutoff: [Å]; static.
        skin: [Å]; static.
        periodic: periodic directions; static.
        grid: bins; static.
    """

    indices: Int[Array, "*batch slots columns"]
    centers: Int[Array, "*batch columns"]
    order: Int[Array, "*batch columns"]
    rank: Int[Array, "*batch atoms"]
    parents: Int[Array, "*batch extended"]
    images: Int[Array, "*batch 3 extended"]
    wraps: Int[Array, "*batch atoms 3"]
    reference_positions: Float[Array, "*batch atoms 3"]
    reference_cell: Float[Array, "*batch 3 3"]
    n_neighbors: Int[Array, "*batch"]
    n_extended: Int[Array, "*batch"]
    n_in_run: Int[Array, "*batch"]
    too_small: Bool[Array, "*batch"]
    reverse_edges: ReverseEdges | None = None
    cutoff: float = dataclasses.field(metadata={"static": True})
    skin: float = dataclasses.field(metadata={"static": True})
    periodic: tuple[bool, bool, bool] = dataclasses.field(metadata={"static": True})
    grid: Grid = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        """Settings and capacities; without arrays, as in a tree of axes, the fields."""
        if np.ndim(self.indices) < 2:
            return fields_summary(self)
        *batch, n_atoms = np.shape(self.rank)
        rows: dict[str, Any] = {
            "cutoff": f"{self.cutoff:.6g} Å + skin {self.skin:.6g} Å",
            "periodic": self.periodic,
            "capacity": f"{self.capacity} neighbours per atom, {np.shape(self.parents)[-1]} positions",
        }
        most = concrete(self.n_neighbors)
        if most is not None:
            rows["largest number of neighbours"] = int(most.max(initial=0))
        replicas = "".join(f"{n} replicas of " for n in batch)
        return summary(f"Neighbors: {replicas}{n_atoms} atoms", rows)

    @property
    def capacity(self) -> int:
        """Slots per atom."""
        return self.indices.shape[-2]

    @property
    def overflow(self) -> Bool[Array, "*batch"]:
        """Whether a pair was left out because a capacity was exceeded; bool []."""
        (a, most_a), (b, most_b), (c, most_c) = self.counts
        return (a > most_a) | (b > most_b) | (c > most_c)

    @property
    def counts(self) -> list[tuple[Int[Array, "*batch"], int]]:
        """Counts and capacities of neighbours, extended positions, and positions of a run."""
        capacities = (self.capacity, self.parents.shape[-1], self.grid.capacity)
        return list(zip((self.n_neighbors, self.n_extended, self.n_in_run), capacities, strict=True))

    @property
    def ranges(self) -> tuple[int, int, int]:
        """Images allowed for in either direction along each lattice vector; 0 where it is not periodic."""
        sizes = zip(self.grid.bins, self.grid.reach, self.periodic, strict=True)
        return as_ints(-(-reach // bins) if periodic else 0 for bins, reach, periodic in sizes)

    def replace(self, **changes: Any) -> Neighbors:
        """A copy with some fields replaced, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


def extended_positions(system: System, neighbors: Neighbors) -> list[Float[Array, "points"]]:
    """Coordinates of the points that `Neighbors.indices` and `centers` refer to; pure and differentiable.

    The last two points stand for unused neighbours and for centers that pad, beyond any cut-off.

    Args:
        system: the positions and cell now.
        neighbors: a current list for it.

    Returns:
        x, y and z [Å]; each [extended + 2].
    """
    axes = []
    # Integers below 2**24 are exact in float32, and no atom crosses that many cells.
    images = [image.astype(system.positions.dtype) for image in neighbors.images]
    for axis in range(3):
        x = take(system.positions[:, axis], neighbors.parents)
        for vector in range(3):
            if neighbors.periodic[vector]:
                x = x + images[vector] * system.cell[vector, axis]
        # XLA concatenates on one core, and pads on all, which takes longer to begin.
        if len(x) > _LONG:
            axes.append(jnp.pad(jnp.pad(x, (0, 1), constant_values=_FAR), (0, 1), constant_values=-_FAR))
        else:
            axes.append(jnp.concatenate([x, jnp.asarray([_FAR, -_FAR], x.dtype)]))
    return axes


def check_belongs(system: System, neighbors: Neighbors, remedy: str = "build one with neighbor_list") -> None:
    """Refuse a list of another number of atoms, and outside jit one for other periodic directions."""
    check_single(system)
    check_type("neighbors", neighbors, Neighbors, remedy)
    if neighbors.reference_positions.shape != system.positions.shape:
        n_atoms = neighbors.reference_positions.shape[-2]
        counts = f"{n_atoms} atoms, but the system has {system.n_atoms}"
        raise InputError(f"the neighbour list is for {counts}: {remedy}")
    if not is_traced(system.pbc) and tuple(map(bool, np.asarray(system.pbc))) != neighbors.periodic:
        raise InputError(
            f"the neighbour list is for pbc = {list(neighbors.periodic)}, but the system has "
            f"{np.asarray(system.pbc).tolist()}: {remedy}"
        )


def is_stale(system: System, neighbors: Neighbors) -> Bool[Array, ""]:
    """Whether an atom, or an image of it, has moved more than skin/2 since the last rebuild.

    Args:
        system: the positions and cell now.
        neighbors: a list for it.

    Returns:
        bool [].

    Raises:
        InputError: a list of another system.
    """
    check_belongs(system, neighbors)
    strain = system.cell - neighbors.reference_cell
    moved = system.positions - neighbors.reference_positions
    carried = [
        sum(neighbors.wraps[:, vector].astype(strain.dtype) * strain[vector, axis] for vector in range(3))
        for axis in range(3)
    ]
    squares = sum((moved[:, axis] - carried[axis]) ** 2 for axis in range(3))
    farthest = jnp.sqrt(largest(jnp.where(system.atomic_numbers > 0, squares, 0)))
    ranges = jnp.asarray(neighbors.ranges, strain.dtype)
    of_images = jnp.sum(ranges * jnp.linalg.norm(strain, axis=-1))
    # A NaN compares False and is reported as non-finite, not as stale.
    return farthest + of_images > 0.5 * neighbors.skin


def check(
    system: System, neighbors: Neighbors, status: Status, step: Int[Array, ""], *, stale: bool = True
) -> Status:
    """Raise the flags of `neighbors` for these positions in `status`; works under jit.

    Args:
        system: the positions and cell now.
        neighbors: the list in use for them.
        status: the flags so far.
        step: number of the step.
        stale: whether to check the displacements.

    Returns:
        The `Status`, with flags for an overflow, a cell that is too small, and a stale list.

    Raises:
        InputError: a list of another system.
    """
    status = status.raise_flag(Flag.NEIGHBOR_OVERFLOW, neighbors.overflow, step)
    status = status.raise_flag(Flag.CELL_TOO_SMALL, neighbors.too_small, step)
    if not stale:
        return status
    return status.raise_flag(Flag.NEIGHBOR_STALE, is_stale(system, neighbors), step)
