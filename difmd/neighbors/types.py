"""`Neighbors`: an exact full neighbour list in columns, over atoms and their periodic images.

Pairs are stored against an *extended* set of positions: the N atoms, brought into the cell, and every
image that lies within reach of it, in the order of the bins they lie in. A pair is then an index and
nothing else: no minimum-image rule enters, so cut-offs larger than the cell, one-atom cells and sheared
cells need no special case; and neighbours lie close together in memory, whatever the order of the atoms.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.gather import take
from difmd._internal.reductions import largest
from difmd.errors import Flag, Status
from difmd.system import System

# Where unused entries point: farther than any cut-off, near enough for finite squares.
_FAR = 1e6

# Extended positions that are worth the work of all cores.
_LONG = 100_000


class Grid(NamedTuple):
    """Bins that a list is searched with; all static.

    Attributes:
        bins: along each lattice vector, across the cell (or the atoms, where it is not periodic).
        reach: how many bins cutoff + skin spans.
        held: positions that a run of 2 reach + 1 bins along the third vector may hold.
    """

    bins: tuple[int, int, int]
    reach: tuple[int, int, int]
    held: int


class ReverseEdges(NamedTuple):
    """Undirected pairs, each two entries of a list; entry c · slots + k is the k-th neighbour of center c.

    Attributes:
        pair: pair that each entry belongs to, the last one for unused entries; int32 [columns, slots].
        entries: the two entries of each pair, 0 for pairs that are not there; int32 [2, pairs].
    """

    pair: Int[Array, "*batch columns slots"]
    entries: Int[Array, "*batch 2 pairs"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbors:
    """Every pair closer than `cutoff + skin`, each seen from both of its atoms.

    Columns belong to *centers*: the atoms in the order of their bins, and behind them a few that are none,
    so that the arrays suit the cache and the cores of a CPU.

    Attributes:
        indices: `indices[k, c]` is the k-th neighbour of center c, an index into the extended
            positions; unused entries hold the number of extended positions; int32 [slots, columns].
        centers: extended position of each center; int32 [columns].
        order: atom of each center, 0 where it is none; int32 [columns].
        rank: center of each atom, the inverse of `order`; int32 [atoms].
        parents: atom that each extended position is an image of; int32 [extended].
        images: lattice translation of each extended position; int32 [3, extended].
        wraps: cells by which each atom was moved into the cell; int32 [atoms, 3].
        reference_positions: positions at the last rebuild [Å]; [atoms, 3].
        reference_cell: cell at the last rebuild [Å]; [3, 3].
        n_neighbors: largest number of neighbours an atom has, which may exceed the slots; int32 [].
        n_extended: number of extended positions needed, which may exceed those there; int32 [].
        n_held: positions in the fullest run of bins, which may exceed `grid.held`; int32 [].
        too_small: the cell needs more images than `grid` allows for; bool [].
        reverse_edges: undirected pairs, updated with the list; None where they were not asked for.
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
    n_held: Int[Array, "*batch"]
    too_small: Bool[Array, "*batch"]
    reverse_edges: ReverseEdges | None = None
    cutoff: float = dataclasses.field(metadata={"static": True})
    skin: float = dataclasses.field(metadata={"static": True})
    periodic: tuple[bool, bool, bool] = dataclasses.field(metadata={"static": True})
    grid: Grid = dataclasses.field(metadata={"static": True})

    @property
    def capacity(self) -> int:
        """Slots per atom."""
        return self.indices.shape[-2]

    @property
    def overflow(self) -> Bool[Array, "*batch"]:
        """Whether a pair was left out for want of room; bool []."""
        (a, most_a), (b, most_b), (c, most_c) = self.counts
        return (a > most_a) | (b > most_b) | (c > most_c)

    @property
    def counts(self) -> list[tuple[Int[Array, "*batch"], int]]:
        """What was found, and the room there is for it: neighbours, extended positions, a run."""
        room = (self.capacity, self.parents.shape[-1], self.grid.held)
        return list(zip((self.n_neighbors, self.n_extended, self.n_held), room, strict=True))

    @property
    def ranges(self) -> tuple[int, int, int]:
        """Images allowed for each way along each lattice vector; 0 where it is not periodic."""
        a, b, c = (
            -(-reach // bins) if periodic else 0
            for bins, reach, periodic in zip(self.grid.bins, self.grid.reach, self.periodic, strict=True)
        )
        return a, b, c

    def replace(self, **changes: Any) -> Neighbors:
        """A copy with some fields replaced, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


def extended_positions(system: System, neighbors: Neighbors) -> list[Float[Array, "points"]]:
    """x, y and z of what `Neighbors.indices` and `centers` refer to [Å].

    The last two points are no atoms: the first of them stands for unused neighbours, the other for the
    centers of padding; both are out of everyone's reach.
    """
    axes = []
    # Integers below 2**24 are exact in float32, and no atom crosses that many cells.
    images = [image.astype(system.positions.dtype) for image in neighbors.images]
    for axis in range(3):
        own = take(system.positions[:, axis], neighbors.parents)
        for vector in range(3):
            if neighbors.periodic[vector]:
                own = own + images[vector] * system.cell[vector, axis]
        # XLA concatenates on one core, and pads on all, which takes longer to begin.
        if len(own) > _LONG:
            axes.append(jnp.pad(jnp.pad(own, (0, 1), constant_values=_FAR), (0, 1), constant_values=-_FAR))
        else:
            axes.append(jnp.concatenate([own, jnp.asarray([_FAR, -_FAR], own.dtype)]))
    return axes


def is_stale(system: System, neighbors: Neighbors) -> Bool[Array, ""]:
    """Whether an atom, or an image of it, has moved more than skin/2 since the last rebuild."""
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
    """Add what is wrong with `neighbors` for these positions to `status`.

    Args:
        system: the positions and cell now.
        neighbors: the list that is used for them.
        status: what was wrong before.
        step: number of the step.
        stale: whether to look at how far atoms have moved.
    """
    status = status.raise_flag(Flag.NEIGHBOR_OVERFLOW, neighbors.overflow, step)
    status = status.raise_flag(Flag.CELL_TOO_SMALL, neighbors.too_small, step)
    if not stale:
        return status
    return status.raise_flag(Flag.NEIGHBOR_STALE, is_stale(system, neighbors), step)
