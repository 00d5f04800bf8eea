"""Neighbour lists on the host: exact pairs by the library vesin, and lists with a measured capacity."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from difmd.errors import InputError
from difmd.neighbors.device import rebuild
from difmd.neighbors.lattice import complete_cell, heights, image_range, image_table
from difmd.neighbors.types import Neighbors
from difmd.system import System

# Up to so many extended positions all pairs are compared, 32 a word without a gather; bins, whose
# candidates have to be gathered, are slower there on a CPU.
_ALL_PAIRS_BELOW = 20_000

SKIN = 0.15
"""Default skin of a list that atoms move through, in units of the cut-off."""


def find_pairs(
    positions: Any, cell: Any, pbc: Any, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All pairs closer than `cutoff`, each from both sides, images counted one by one (host).

    Args:
        positions: [Å]; [atoms, 3].
        cell: rows are lattice vectors [Å]; [3, 3].
        pbc: [3].
        cutoff: [Å].

    Returns:
        senders i [pairs], receivers j [pairs], shifts S [pairs, 3] and distances [pairs], with
        r_ij = r_j − r_i + S·cell. A pair of an atom with its own image is included, with itself not.
    """
    from vesin import NeighborList

    periodic = _as_triple(pbc)
    full = complete_cell(np.asarray(cell, np.float64), periodic)
    search = NeighborList(cutoff=float(cutoff), full_list=True, sorted=True)
    i, j, shifts, distances = search.compute(
        points=np.asarray(positions, np.float64),
        box=full,
        periodic=np.asarray(periodic),
        quantities="ijSd",
    )
    return i.astype(np.int64), j.astype(np.int64), shifts.astype(np.int64), distances


def neighbor_list(
    system: System,
    *,
    cutoff: float,
    skin: float = 0.0,
    slack: float = 1.15,
    capacity: int | None = None,
    like: Neighbors | None = None,
) -> Neighbors:
    """Build an exact neighbour list, with room to spare for what follows (host).

    Args:
        system: one system, or a batch of replicas with a leading dimension; all then share one shape
            of list.
        cutoff: largest distance that matters to the potential [Å].
        skin: extra distance that lets atoms move skin/2 before the list is stale [Å].
        slack: capacity over what these positions need.
        capacity: slots per atom, instead of what these positions need times `slack`.
        like: another list for as many atoms, whose capacities are taken where they are larger, so that
            functions compiled for it serve again.

    Returns:
        A list that `update` keeps current under jit; overflow is flagged, never hidden.

    Raises:
        InputError: cutoff not positive, skin negative, slack below 1, positions not finite, or
            replicas whose pbc differ.
    """
    if not cutoff > 0 or not np.isfinite(cutoff):
        raise InputError(f"cutoff = {cutoff} Å must be positive and finite")
    if not skin >= 0:
        raise InputError(f"skin = {skin} Å must not be negative")
    if not slack >= 1:
        raise InputError(f"slack = {slack} must be at least 1")
    if capacity is not None and capacity < 1:
        raise InputError(f"capacity = {capacity} must be at least 1")
    batched = system.positions.ndim == 3
    replicas = (
        [jax.tree.map(lambda x, r=r: x[r], system) for r in range(len(system.positions))]
        if (batched)
        else [system]
    )
    pbcs = {_as_triple(replica.pbc) for replica in replicas}
    if len(pbcs) > 1:
        raise InputError(f"replicas of one batch must share pbc, got {sorted(pbcs)}")
    periodic = pbcs.pop()
    measured = [_measure(replica, cutoff + skin, periodic) for replica in replicas]
    n_pairs = max(m[0] for m in measured)
    n_ghosts = max(m[1] for m in measured)
    ranges = tuple(int(n) for n in np.max([m[2] for m in measured], axis=0))
    n_atoms = system.n_atoms
    slots = capacity or _whole_groups(slack * n_pairs)
    # Images enter and leave only at the rim, but all at once when a layer of a crystal crosses a face.
    n_extended = n_atoms + int(np.ceil(slack * n_ghosts)) + (8 if any(periodic) else 0)
    grid = None
    if n_extended > _ALL_PAIRS_BELOW:
        grids = [_grid(replica, cutoff + skin, periodic, slack) for replica in replicas]
        a, b, c, held = np.max(grids, axis=0)
        grid = (int(a), int(b), int(c), int(held))
    if like is not None:
        slots = max(slots, like.capacity)
        n_extended = max(n_extended, like.parents.shape[-1])
        ranges = tuple(max(pair) for pair in zip(ranges, like.ranges, strict=True))
        if grid is not None and like.grid is not None:
            grid = like.grid[:3] + (max(grid[3], like.grid[3]),)
    empty = Neighbors(
        indices=jnp.full((slots, n_atoms), n_extended, jnp.int32),
        parents=jnp.zeros(n_extended, jnp.int32),
        images=jnp.zeros((n_extended, 3), jnp.int32),
        reference_positions=replicas[0].positions,
        reference_cell=replicas[0].cell,
        n_neighbors=jnp.int32(0),
        n_extended=jnp.int32(0),
        n_binned=jnp.int32(0),
        too_small=jnp.asarray(False),
        cutoff=float(cutoff),
        skin=float(skin),
        periodic=periodic,
        ranges=(ranges[0], ranges[1], ranges[2]),
        grid=grid,
    )
    built = _rebuild(system, empty)
    if capacity is None:
        # Images crowd the bins at the rim in a way that is measured more easily than foreseen.
        while bool(jnp.any(built.overflow)):
            built = grow(system, built, slack=slack)
    return built


def grow(system: System, neighbors: Neighbors, *, slack: float = 1.25, at_least: float = 1.0) -> Neighbors:
    """Rebuild a list with at least the capacity that its last build asked for (host).

    Args:
        system: one system, or the batch that `neighbors` belongs to.
        neighbors: a list that overflowed.
        slack: capacity over what is needed.
        at_least: grow every capacity by this factor at least, for an overflow that happened later than
            these positions.

    Returns:
        A list for `system`, with capacities that are nowhere smaller than before.
    """

    def enough(capacity: int, needed: Any) -> int:
        most = int(np.max(np.asarray(needed)))
        wanted = capacity if most <= capacity else int(np.ceil(slack * most))
        return max(wanted, int(np.ceil(at_least * capacity)))

    slots = _whole_groups(enough(neighbors.capacity, neighbors.n_neighbors))
    n_extended = enough(neighbors.parents.shape[-1], neighbors.n_extended)
    grid = neighbors.grid
    if grid is not None:
        grid = (*grid[:3], enough(grid[3], neighbors.n_binned))
    n_atoms = system.n_atoms
    empty = neighbors.replace(
        indices=jnp.full((slots, n_atoms), n_extended, jnp.int32),
        parents=jnp.zeros(n_extended, jnp.int32),
        images=jnp.zeros((n_extended, 3), jnp.int32),
        reference_positions=jnp.zeros_like(system.positions[..., :n_atoms, :]),
        grid=grid,
    )
    return _rebuild(system, empty)


def _rebuild(system: System, template: Neighbors) -> Neighbors:
    if system.positions.ndim == 2:
        return _rebuild_one(system, template)
    return _rebuild_batch(system, template)


_rebuild_one = jax.jit(rebuild)
# Only shapes and static fields of the template are read, so one serves the whole batch.
_rebuild_batch = jax.jit(jax.vmap(rebuild, in_axes=(0, None)))


def _whole_groups(slots: float) -> int:
    """Rounded up to the columns that a pair potential sums at a time."""
    return 8 * max(1, int(np.ceil(slots / 8)))


def _as_triple(pbc: Any) -> tuple[bool, bool, bool]:
    a, b, c = (bool(flag) for flag in np.broadcast_to(np.asarray(pbc), 3))
    return a, b, c


def _measure(
    system: System, reach: float, periodic: tuple[bool, bool, bool]
) -> tuple[int, int, tuple[int, int, int]]:
    """Largest number of neighbours, number of images in reach, and images each way."""
    real = np.asarray(system.atomic_numbers) > 0
    positions = np.asarray(system.positions, np.float64)[real]
    if not np.isfinite(positions).all():
        raise InputError("positions are not finite: no neighbour list can be built")
    i, _, _, _ = find_pairs(positions, system.cell, periodic, reach)
    most = int(np.bincount(i).max()) if len(i) else 0
    full = complete_cell(np.asarray(system.cell, np.float64), periodic)
    height = heights(full)
    ranges = image_range(height, reach, periodic)
    fraction = positions @ np.linalg.inv(full)
    fraction = np.where(periodic, fraction - np.floor(fraction), 0.5)
    margin = reach / height
    n_ghosts = 0
    for image in image_table(ranges):
        moved = fraction + image
        inside = (moved >= -margin) & (moved <= 1 + margin) | ~np.asarray(periodic)
        n_ghosts += int(inside.all(axis=1).sum())
    return most, n_ghosts, ranges


def _grid(
    system: System, reach: float, periodic: tuple[bool, bool, bool], slack: float
) -> tuple[int, int, int, int]:
    """Bins along each direction, at least `reach` wide, and how many positions a bin must hold."""
    real = np.asarray(system.atomic_numbers) > 0
    full = complete_cell(np.asarray(system.cell, np.float64), periodic)
    height = heights(full)
    fraction = np.asarray(system.positions, np.float64)[real] @ np.linalg.inv(full)
    span = np.where(periodic, 1.0, np.ptp(fraction, axis=0))
    bins = np.maximum(1, np.floor(span * height / reach)).astype(int)
    low = np.where(periodic, 0.0, fraction.min(axis=0))
    wrapped = np.where(periodic, fraction - np.floor(fraction), fraction) - low
    width = np.maximum(np.where(span > 0, span, 1.0) / bins, reach / height)
    index = np.minimum((wrapped / width).astype(int), bins - 1)
    flat = np.ravel_multi_index(tuple(index.T), tuple(bins))
    held = int(np.ceil(slack * np.bincount(flat).max())) + 4
    return int(bins[0]), int(bins[1]), int(bins[2]), held
