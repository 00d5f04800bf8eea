"""Neighbour lists on the host: building lists with sufficient capacities, and growing them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from difmd._internal import cpu_layout
from difmd._internal.argument_checks import check_integer, check_type, is_traced
from difmd._internal.lattice import complete_cell, signed_volume
from difmd._internal.pairs import as_triple
from difmd._internal.replicas import n_shares
from difmd.errors import InputError, check_not_negative, check_positive
from difmd.neighbors.device import rebuild
from difmd.neighbors.grid import (
    choose_grid,
    liquid_neighbors,
    most_neighbors,
    occupancy,
    round_to_groups,
    round_to_words,
    rounded,
)
from difmd.neighbors.reverse_edges import no_reverse_edges
from difmd.neighbors.types import Grid, Neighbors, as_ints
from difmd.system import System, as_system, check_system

if TYPE_CHECKING:
    import ase

# Up to this number of pairs, assuming so many per atom, pairs are counted on the host without compilation.
_COUNT_BELOW = 2_000_000
_PAIRS_PER_ATOM = 100

# With fewer neighbours the density is a poor estimate: an open crystal has far fewer than a liquid.
_FEW = 24

# The mean density is a poor estimate, too, where the fullest box of atoms exceeds the mean by this factor.
_CROWDED = 1.25

# Capacity relative to the need of the positions.
_SLACK = 1.1


def neighbor_list(
    system: System | ase.Atoms,
    *,
    cutoff: float,
    skin: float = 0.0,
    slack: float = _SLACK,
    capacity: int | None = None,
    like: Neighbors | None = None,
    reverse_edges: bool = False,
    shrink: float = 1.0,
) -> Neighbors:
    """Build an exact neighbour list with spare capacity (host).

    Args:
        system: one system, or replicas with a leading dimension, which then share the shapes of the list.
        cutoff: cut-off of the potential [Å].
        skin: extra distance that lets atoms move skin/2 before the list is stale [Å].
        slack: capacity relative to the need of these positions.
        capacity: slots per atom, instead of the need of these positions times `slack`.
        like: a list for as many atoms, whose larger capacities are adopted, so that functions compiled for
            it are reused.
        reverse_edges: match the two entries of each pair now; otherwise networks do so at every evaluation.
        shrink: factor by which the cell may shrink along each vector, beyond 2 %.

    Returns:
        A list that `update` keeps current under jit; an overflow is always flagged.

    Raises:
        InputError: cutoff not positive, skin negative, slack or shrink below 1, positions not finite, a cell
            without volume, replicas whose pbc differ, `like` of other atoms, or arrays under jit; or as
            `rebuild`.
    """
    system = as_system(system)
    for name, factor in (("slack", slack), ("shrink", shrink)):
        check_positive(name, factor, "a factor")
        if factor < 1:
            raise InputError(f"{name} = {factor} must be at least 1")
    if like is not None:
        check_type("like", like, Neighbors, "give a list that neighbor_list returned")
        _check_n_atoms("like", system, like)
    empty, _ = _sized(system, cutoff, skin, slack, capacity, like, reverse_edges, shrink)
    return _filled(system, empty, slack, capacity)


def allocate(
    system: System, *, cutoff: float, skin: float, capacity: int | None = None, reverse_edges: bool = False
) -> tuple[Neighbors, int]:
    """A list for a run that begins with a `rebuild`, and how often it was grown to suffice (host)."""
    empty, is_sure = _sized(system, cutoff, skin, _SLACK, capacity, None, reverse_edges)
    if is_sure:  # nothing is built or compiled
        return _repeated(empty, system), 0
    n_growths = 0
    built = _filled(system, empty, _SLACK, capacity)
    while has_overflowed(built):
        built = grow(system, built)
        n_growths += 1
    return built, n_growths


def _filled(system: System, empty: Neighbors, slack: float, capacity: int | None) -> Neighbors:
    """Build an empty list, and grow it unless its capacity was given; see `neighbor_list`."""
    built = rebuild_on_host(system, empty)
    if capacity is None:
        # A list with too few images or runs misses neighbours, so that another round may be needed.
        for _ in range(4):
            if not has_overflowed(built):
                break
            built = grow(system, built, slack=slack)
    return built


def _sized(
    system: System,
    cutoff: float,
    skin: float,
    slack: float,
    capacity: int | None,
    like: Neighbors | None,
    reverse_edges: bool,
    shrink: float = 1.0,
) -> tuple[Neighbors, bool]:
    """An empty list of one system or replica, and whether its capacity surely suffices."""
    _check_arguments(system, cutoff, skin, capacity)
    batched = system.positions.ndim == 3
    # On the host, where selecting a replica is free.
    host = jax.tree.map(np.asarray, system)
    n_replicas = len(host.positions) if batched else 1
    replicas = [jax.tree.map(lambda x, r=r: x[r], host) if batched else host for r in range(n_replicas)]
    periodic = _shared_pbc(replicas)
    reach = cutoff + skin
    grid = choose_grid(replicas, shrink * reach, periodic, like)
    occupied = [occupancy(replica, reach, periodic, grid) for replica in replicas]
    most_extended, longest, crowding = (max(numbers) for numbers in zip(*occupied, strict=True))
    # Atoms cross the faces of the cell one by one, but all at once when a layer of a crystal does.
    n_extended = rounded(slack * most_extended + 8)
    in_run = round_to_words(slack * longest)
    if all(periodic):
        # Capacities from the density alone where they suffice, so that the continuation of a run is not
        # compiled anew for an atom more or less.
        images = math.prod((n + 2 * g) / n for n, g in zip(grid.bins, grid.reach, strict=True))
        expected = math.ceil(slack * system.n_atoms * images) + 8
        n_extended = expected if 1.02 * most_extended + 8 <= expected else n_extended
        in_run = grid.capacity if 1.03 * longest + 1 <= grid.capacity else in_run
    grid = grid._replace(capacity=max(grid.capacity, in_run))
    usual = max(liquid_neighbors(replica, reach) for replica in replicas) if all(periodic) else 0
    if capacity is not None:
        slots = capacity
    elif skin > 0 and usual > _FEW:
        # The first build reveals where that is not enough.
        slots = round_to_groups(slack * usual)
    elif system.n_atoms * (usual or _PAIRS_PER_ATOM) <= _COUNT_BELOW:
        most = max(most_neighbors(replica, reach, periodic) for replica in replicas)
        slots = round_to_groups(slack * most)
    else:
        # All pairs of a large system would fill the memory: the first build counts them.
        slots = round_to_groups(0)
    if like is not None:
        slots = max(slots, like.capacity)
        n_extended = max(n_extended, like.parents.shape[-1])
        if (grid.bins, grid.reach) == (like.grid.bins, like.grid.reach):
            grid = grid._replace(capacity=max(grid.capacity, like.grid.capacity))
    # As many replicas lie end to end as `run_replicas` runs together.
    columns = cpu_layout.columns(system.n_atoms, n_replicas // n_shares(n_replicas, system.n_atoms))
    empty = Neighbors(
        **_empty(host, columns, slots, n_extended, reverse_edges),
        cutoff=float(cutoff),
        skin=float(skin),
        periodic=periodic,
        grid=grid,
    )
    return empty, capacity is None and skin > 0 and usual > _FEW and crowding < _CROWDED


def _check_arguments(system: System, cutoff: float, skin: float, capacity: int | None) -> None:
    check_system(system)
    if is_traced(system):
        raise InputError(
            "neighbor_list cannot run under jit, grad or vmap, as the sizes of a list depend on the "
            "positions: build the list outside and keep it current with difmd.neighbors.update"
        )
    check_positive("cutoff", cutoff, "Å")
    check_not_negative("skin", skin, "Å")
    if capacity is not None:
        check_integer("capacity", capacity)


def _check_n_atoms(name: str, system: System, neighbors: Neighbors) -> None:
    n_atoms = neighbors.rank.shape[-1]
    if n_atoms != system.n_atoms:
        raise InputError(
            f"{name} is a list for {n_atoms} atoms, but the system has {system.n_atoms}: give a list of this "
            "system"
        )


def _shared_pbc(replicas: list[System]) -> tuple[bool, bool, bool]:
    """Periodic directions of all replicas, whose cells must have a volume."""
    pbcs = {as_triple(replica.pbc) for replica in replicas}
    if len(pbcs) > 1:
        raise InputError(f"replicas of one batch must share pbc, got {sorted(pbcs)}")
    periodic = pbcs.pop()
    for replica in replicas:
        cell = np.asarray(replica.cell, np.float64)
        if not abs(signed_volume(complete_cell(cell, periodic))) > 0:
            raise InputError(f"cell is singular: the periodic vectors of {cell.tolist()} span no volume")
    return periodic


def grow(system: System, neighbors: Neighbors, *, slack: float = 1.25, at_least: float = 1.0) -> Neighbors:
    """Rebuild a list with at least the capacities that its last build required (host).

    Args:
        system: one system, or the batch that `neighbors` belongs to.
        neighbors: a list that overflowed.
        slack: capacity relative to the need.
        at_least: least factor of growth of every capacity, for an overflow later than these positions.

    Returns:
        A list for `system` whose capacities are nowhere smaller than before.

    Raises:
        InputError: a list of another system; or as `rebuild`.
    """
    check_system(system)
    check_type("neighbors", neighbors, Neighbors, "give a list that neighbor_list returned")
    _check_n_atoms("neighbors", system, neighbors)

    def enough(capacity: int, needed: Any) -> int:
        most = int(np.max(np.asarray(needed)))
        target = capacity if most <= capacity else int(np.ceil(slack * most))
        return max(target, int(np.ceil(at_least * capacity)))

    slots = round_to_groups(enough(neighbors.capacity, neighbors.n_neighbors))
    n_extended = rounded(enough(neighbors.parents.shape[-1], neighbors.n_extended))
    in_run = round_to_words(enough(neighbors.grid.capacity, neighbors.n_in_run))
    columns, with_reverse = neighbors.centers.shape[-1], neighbors.reverse_edges is not None
    empty = _empty(system, columns, slots, n_extended, with_reverse)
    return rebuild_on_host(system, neighbors.replace(**empty, grid=neighbors.grid._replace(capacity=in_run)))


def capacity_of(neighbors: Neighbors) -> dict[str, Any]:
    """The capacities of a list as JSON stores them, for `with_capacity` (host)."""
    n_extended = neighbors.parents.shape[-1]
    return {"slots": neighbors.capacity, "extended": n_extended, "grid": list(neighbors.grid)}


def with_capacity(system: System, neighbors: Neighbors, capacities: dict[str, Any]) -> Neighbors:
    """A list with capacities from `capacity_of`, for a run that begins with a `rebuild` (host)."""
    bins, reach, in_run = capacities["grid"]
    columns, slots, extended = neighbors.centers.shape[-1], capacities["slots"], capacities["extended"]
    empty = _empty(system, columns, slots, extended, neighbors.reverse_edges is not None)
    return neighbors.replace(**_repeated(empty, system), grid=Grid(as_ints(bins), as_ints(reach), in_run))


def _repeated(empty: Any, system: System) -> Any:
    """Arrays of a list with the leading dimension of the replicas of `system`, if there is one."""
    return jax.tree.map(lambda x: np.broadcast_to(x, (*system.positions.shape[:-2], *np.shape(x))), empty)


def has_overflowed(neighbors: Neighbors) -> bool:
    """Whether a list, or one of a batch, lacks a pair because a capacity was exceeded (host).

    Args:
        neighbors: a list, or a batch of lists.

    Returns:
        Whether a capacity was exceeded.
    """
    return any(np.max(np.asarray(count)) > capacity for count, capacity in neighbors.counts)


def _empty(system: System, columns: int, slots: int, n_extended: int, reverse_edges: bool) -> dict[str, Any]:
    """Arrays of a list of one system or replica with arbitrary contents, in NumPy, which compiles nothing."""
    n_atoms = system.n_atoms
    centers = np.zeros(columns, np.int32)
    return {
        "indices": np.zeros((slots, columns), np.int32),
        "centers": centers,
        "order": centers,
        "rank": np.zeros(n_atoms, np.int32),
        "parents": np.zeros(n_extended, np.int32),
        "images": np.zeros((3, n_extended), np.int32),
        "wraps": np.zeros((n_atoms, 3), np.int32),
        "reference_positions": np.zeros((n_atoms, 3), system.positions.dtype),
        "reference_cell": np.zeros((3, 3), system.cell.dtype),
        "n_neighbors": np.int32(0),
        "n_extended": np.int32(0),
        "n_in_run": np.int32(0),
        "too_small": np.bool_(False),
        "reverse_edges": no_reverse_edges(columns, slots) if reverse_edges else None,
    }


def rebuild_on_host(system: System, template: Neighbors) -> Neighbors:
    """`rebuild` for one system or a batch, compiled once for all callers (host)."""
    if system.positions.ndim == 2:
        return rebuild(system, template)
    slots, columns = template.indices.shape[-2:]
    empty = _empty(system, columns, slots, template.parents.shape[-1], template.reverse_edges is not None)
    return _rebuild_batch(system, template.replace(**empty))


# Only shapes and static fields of the template are read, so it is shared by the batch.
_rebuild_batch = jax.jit(jax.vmap(rebuild, in_axes=(0, None)))
