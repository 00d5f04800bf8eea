"""`Neighbors`: an exact full neighbour list in columns, over atoms and their periodic images.

Pairs are stored against an *extended* set of positions: the N atoms, brought into the cell, followed by
every image that lies within reach of it. A pair is then an index and nothing else: no minimum-image
rule enters, so cut-offs larger than the cell, one-atom cells and sheared cells need no special case.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from difmd.errors import Flag, Status
from difmd.neighbors.lattice import product
from difmd.system import System

# Where the entries that fill up a column point: farther than any cut-off, near enough for finite squares.
_FAR = 1e6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbors:
    """Every pair closer than `cutoff + skin`, each seen from both of its atoms.

    Attributes:
        indices: `indices[k, i]` is the k-th neighbour of atom i, an index into the extended
            positions; unused entries hold the number of extended positions; int32 [slots, atoms].
        parents: atom that each extended position is an image of; int32 [extended].
        images: lattice translation of each extended position; int32 [extended, 3].
        reference_positions: positions at the last rebuild [Å]; [atoms, 3].
        reference_cell: cell at the last rebuild [Å]; [3, 3].
        n_neighbors: largest number of neighbours an atom has, which may exceed the slots; int32 [].
        n_extended: number of extended positions needed, which may exceed those there; int32 [].
        n_binned: largest number of extended positions in a bin; int32 [].
        too_small: the cell needs more images than `ranges` allows for; bool [].
        cutoff: [Å]; static.
        skin: [Å]; static.
        periodic: periodic directions; static.
        ranges: images allowed for each way; static.
        grid: bins along the cell and capacity of a bin, or None to compare all pairs; static.
    """

    indices: Int[Array, "*batch slots atoms"]
    parents: Int[Array, "*batch extended"]
    images: Int[Array, "*batch extended 3"]
    reference_positions: Float[Array, "*batch atoms 3"]
    reference_cell: Float[Array, "*batch 3 3"]
    n_neighbors: Int[Array, "*batch"]
    n_extended: Int[Array, "*batch"]
    n_binned: Int[Array, "*batch"]
    too_small: Bool[Array, "*batch"]
    cutoff: float = dataclasses.field(metadata={"static": True})
    skin: float = dataclasses.field(metadata={"static": True})
    periodic: tuple[bool, bool, bool] = dataclasses.field(metadata={"static": True})
    ranges: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    grid: tuple[int, int, int, int] | None = dataclasses.field(metadata={"static": True})

    @property
    def capacity(self) -> int:
        """Slots per atom."""
        return self.indices.shape[-2]

    @property
    def overflow(self) -> Bool[Array, "*batch"]:
        """Whether a pair was left out for want of room; bool []."""
        full = (self.n_neighbors > self.capacity) | (self.n_extended > self.parents.shape[-1])
        if self.grid is not None:
            full = full | (self.n_binned > self.grid[3])
        return full

    def replace(self, **changes: Any) -> Neighbors:
        """A copy with some fields replaced, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


def extended_positions(system: System, neighbors: Neighbors) -> Float[Array, "points 3"]:
    """Positions that `Neighbors.indices` refers to [Å]; the last one is out of everyone's reach."""
    moved = system.positions[neighbors.parents]
    # Integers below 2**24 are exact in float32, and no atom crosses that many cells.
    moved = moved + product(neighbors.images.astype(moved.dtype), system.cell)
    return jnp.concatenate([moved, jnp.full((1, 3), _FAR, moved.dtype)])


def is_stale(system: System, neighbors: Neighbors) -> Bool[Array, ""]:
    """Whether an atom, or an image of it, has moved more than skin/2 since the last rebuild."""
    strain = system.cell - neighbors.reference_cell
    own_images = neighbors.images[: system.n_atoms].astype(strain.dtype)
    moved = system.positions - neighbors.reference_positions + product(own_images, strain)
    moved = jnp.where((system.atomic_numbers > 0)[:, None], moved, 0)
    farthest = jnp.sqrt(jnp.max(jnp.sum(moved**2, axis=-1)))
    ranges = jnp.asarray(neighbors.ranges, strain.dtype)
    of_images = jnp.sum(ranges * jnp.linalg.norm(strain, axis=-1))
    # A NaN compares False and is reported as non-finite, not as stale.
    return farthest + of_images > 0.5 * neighbors.skin


def check(system: System, neighbors: Neighbors, status: Status, step: Int[Array, ""]) -> Status:
    """Add what is wrong with `neighbors` for these positions to `status`."""
    status = status.raise_flag(Flag.NEIGHBOR_OVERFLOW, neighbors.overflow, step)
    status = status.raise_flag(Flag.CELL_TOO_SMALL, neighbors.too_small, step)
    return status.raise_flag(Flag.NEIGHBOR_STALE, is_stale(system, neighbors), step)
