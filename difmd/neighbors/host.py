"""Neighbour lists on the host: exact pairs by the library vesin, and lists with a measured capacity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from difmd._internal import cpu_layout
from difmd._internal.argument_checks import check_integer, check_type
from difmd._internal.lattice import complete_cell, heights, signed_volume
from difmd._internal.pairs import as_triple, find_pairs
from difmd._internal.replicas import n_shares
from difmd.errors import InputError, check_not_negative, check_positive
from difmd.neighbors.device import WORD, rebuild
from difmd.neighbors.reverse_edges import no_reverse_edges
from difmd.neighbors.types import Grid, Neighbors
from difmd.system import System, as_system, check_system

if TYPE_CHECKING:
    import ase

# Bins that cutoff + skin may span, across the runs and along them; the cheapest are taken. Finer bins make
# runs tighter, but more of them.
_RESOLUTIONS = ((0, 0), (0.5, 1), (1, 2), (1, 3), (1, 4), (2, 4), (2, 6))

# What a run costs besides its comparisons, in comparisons.
_RUN = 40

# Up to so many pairs, of about so many an atom, are counted on the host, which compiles nothing.
_COUNT_BELOW = 2_000_000
_MANY = 100

# With fewer neighbours than these the density says little: an open crystal has far fewer than a liquid.
_FEW = 24

# Where a box of atoms holds more than so many times the mean, the density of the whole says little, too.
_CROWDED = 1.25

# Capacity over what the positions need.
_SLACK = 1.1

# Columns of a list come in groups that a pair potential sums at a time.
_GROUP = 4

# A cell may shrink by so much before it needs a list of more images.
_SHRINK = 1.02


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
        reverse_edges: match the two entries of each pair now; otherwise networks do so at every evaluation.
        shrink: by how much the cell may become smaller along each vector, beyond the 2 % that it always may.

    Returns:
        A list that `update` keeps current under jit; overflow is flagged, never hidden.

    Raises:
        InputError: cutoff not positive, skin negative, slack below 1, positions not finite, a cell without
            volume, or replicas whose pbc differ; or as `rebuild`.
    """
    system = as_system(system)
    empty, _ = _sized(system, cutoff, skin, slack, capacity, like, reverse_edges, shrink)
    return _filled(system, empty, slack, capacity)


def allocate(
    system: System, *, cutoff: float, skin: float, capacity: int | None = None, reverse_edges: bool = False
) -> tuple[Neighbors, int]:
    """A list with room for these positions, for a run that begins with a `rebuild` (host).

    Where the density tells how much room that is, nothing is built, and nothing compiled.

    Args:
        system: as `neighbor_list`, as all that follow.
        cutoff: [Å].
        skin: [Å].
        capacity: slots per atom to begin with.
        reverse_edges: whether to match the two entries of each pair.

    Returns:
        The list, and how often it was grown, as it is where `capacity` does not do.

    Raises:
        InputError: as `neighbor_list`.
    """
    empty, is_sure = _sized(system, cutoff, skin, _SLACK, capacity, None, reverse_edges)
    if is_sure:
        if system.positions.ndim == 3:
            n_replicas = len(system.positions)
            empty = jax.tree.map(lambda x: np.broadcast_to(x, (n_replicas, *np.shape(x))), empty)
        return empty, 0
    n_growths = 0
    built = _filled(system, empty, _SLACK, capacity)
    while has_overflowed(built):
        built = grow(system, built)
        n_growths += 1
    return built, n_growths


def _filled(system: System, empty: Neighbors, slack: float, capacity: int | None) -> Neighbors:
    """An empty list built, and grown unless its capacity was given; see `neighbor_list`."""
    built = rebuild_on_host(system, empty)
    if capacity is None:
        # A list that lacks images or runs does not see all neighbours, so that one more round may be needed.
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
    """An empty list of one system or replica, and whether it surely has room for all; see `neighbor_list`."""
    check_system(system)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(system)):
        raise InputError(
            "neighbor_list cannot run under jit, grad or vmap, as the sizes of a list depend on the "
            "positions: build the list outside and keep it current with difmd.neighbors.update"
        )
    check_positive("cutoff", cutoff, "Å")
    check_not_negative("skin", skin, "Å")
    for name, factor in (("slack", slack), ("shrink", shrink)):
        check_positive(name, factor, "a factor")
        if factor < 1:
            raise InputError(f"{name} = {factor} must be at least 1")
    if capacity is not None:
        check_integer("capacity", capacity)
    if like is not None:
        check_type("like", like, Neighbors, "give what neighbor_list returned")
    batched = system.positions.ndim == 3
    # On the host, where taking a replica out costs nothing.
    host = jax.tree.map(np.asarray, system)
    n_replicas = len(host.positions) if batched else 1
    replicas = [jax.tree.map(lambda x, r=r: x[r], host) if batched else host for r in range(n_replicas)]
    pbcs = {as_triple(replica.pbc) for replica in replicas}
    if len(pbcs) > 1:
        raise InputError(f"replicas of one batch must share pbc, got {sorted(pbcs)}")
    periodic = pbcs.pop()
    for replica in replicas:
        cell = np.asarray(replica.cell, np.float64)
        if not abs(signed_volume(complete_cell(cell, periodic))) > 0:
            raise InputError(f"cell is singular: the periodic vectors of {cell.tolist()} span no volume")
    reach = cutoff + skin
    grid = _grid(replicas, shrink * reach, periodic, like)
    occupied = [_occupancy(replica, reach, periodic, grid) for replica in replicas]
    most_extended, longest, crowding = (max(numbers) for numbers in zip(*occupied, strict=True))
    # Atoms cross the faces of the cell one by one, but all at once when a layer of a crystal does.
    n_extended = _rounded(slack * most_extended + 8)
    held = _whole_words(slack * longest)
    if all(periodic):
        # What follows from the density alone, where it will do, so that a run that goes on does not compile
        # for an atom more or less.
        images = math.prod((n + 2 * g) / n for n, g in zip(grid.bins, grid.reach, strict=True))
        expected = math.ceil(slack * system.n_atoms * images) + 8
        n_extended = expected if 1.02 * most_extended + 8 <= expected else n_extended
        held = grid.held if 1.03 * longest + 1 <= grid.held else held
    grid = grid._replace(held=max(grid.held, held))
    usual = max(_usual_neighbors(replica, reach) for replica in replicas) if all(periodic) else 0
    if capacity is not None:
        slots = capacity
    elif skin > 0 and usual > _FEW:
        # Where that is not enough, the first build tells.
        slots = _whole_groups(slack * usual)
    elif system.n_atoms * (usual or _MANY) <= _COUNT_BELOW:
        most = max(_most_neighbors(replica, reach, periodic) for replica in replicas)
        slots = _whole_groups(slack * most)
    else:
        # All pairs of a large system would fill the memory: the first build counts them.
        slots = _GROUP
    if like is not None:
        slots = max(slots, like.capacity)
        n_extended = max(n_extended, like.parents.shape[-1])
        if (grid.bins, grid.reach) == (like.grid.bins, like.grid.reach):
            grid = grid._replace(held=max(grid.held, like.grid.held))
    # As many replicas lie end to end as `run_replicas` runs together.
    columns = cpu_layout.columns(system.n_atoms, n_replicas // n_shares(n_replicas, system.n_atoms))
    empty = Neighbors(
        **_empty(replicas[0], columns, slots, n_extended, reverse_edges),
        cutoff=float(cutoff),
        skin=float(skin),
        periodic=periodic,
        grid=grid,
    )
    return empty, capacity is None and skin > 0 and usual > _FEW and crowding < _CROWDED


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
    n_extended = _rounded(enough(neighbors.parents.shape[-1], neighbors.n_extended))
    grid = neighbors.grid._replace(held=_whole_words(enough(neighbors.grid.held, neighbors.n_held)))
    one = system if system.positions.ndim == 2 else jax.tree.map(lambda x: x[0], system)
    empty = _empty(one, neighbors.centers.shape[-1], slots, n_extended, neighbors.reverse_edges is not None)
    return rebuild_on_host(system, neighbors.replace(**empty, grid=grid))


def capacity_of(neighbors: Neighbors) -> dict[str, Any]:
    """The room that a list has, as JSON takes it, for `with_capacity` (host)."""
    return {
        "slots": neighbors.capacity, "extended": neighbors.parents.shape[-1], "grid": list(neighbors.grid)
    }  # fmt: skip


def with_capacity(system: System, neighbors: Neighbors, room: dict[str, Any]) -> Neighbors:
    """A list for a run that begins with a `rebuild`, with the room that another one had (host).

    Args:
        system: one system, or a batch.
        neighbors: a list for it.
        room: of `capacity_of`.
    """
    bins, reach, held = room["grid"]
    batched = system.positions.ndim == 3
    one = jax.tree.map(lambda x: x[0], system) if batched else system
    empty = _empty(
        one, neighbors.centers.shape[-1], room["slots"], room["extended"], neighbors.reverse_edges is not None
    )
    if batched:
        n = len(system.positions)
        empty = jax.tree.map(lambda x: np.broadcast_to(x, (n, *np.shape(x))), empty)
    return neighbors.replace(**empty, grid=Grid(_as_ints(np.array(bins)), _as_ints(np.array(reach)), held))


def has_overflowed(neighbors: Neighbors) -> bool:
    """Whether a list, or one of a batch, has left out a pair for want of room (host)."""
    return any(np.max(np.asarray(count)) > room for count, room in neighbors.counts)


def _empty(system: System, columns: int, slots: int, n_extended: int, reverse_edges: bool) -> dict[str, Any]:
    """The arrays of a list whose contents do not matter, in NumPy, which compiles nothing."""
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
        "reference_positions": np.zeros_like(system.positions),
        "reference_cell": system.cell,
        "n_neighbors": np.int32(0),
        "n_extended": np.int32(0),
        "n_held": np.int32(0),
        "too_small": np.bool_(False),
        "reverse_edges": no_reverse_edges(columns, slots) if reverse_edges else None,
    }


def rebuild_on_host(system: System, template: Neighbors) -> Neighbors:
    """`rebuild` for one system or a batch, compiled once for all that calls it (host).

    Args:
        system: one system, or a batch of replicas.
        template: gives the capacity; a list of one system or of the batch.
    """
    if system.positions.ndim == 2:
        return rebuild(system, template)
    # Shapes alone matter; nothing is fetched from a device.
    one = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), system)
    slots, columns = template.indices.shape[-2:]
    empty = _empty(one, columns, slots, template.parents.shape[-1], template.reverse_edges is not None)
    return _rebuild_batch(system, template.replace(**empty))


# Only shapes and static fields of the template are read, so one serves the whole batch.
_rebuild_batch = jax.jit(jax.vmap(rebuild, in_axes=(0, None)))


def _rounded(capacity: float) -> int:
    """Rounded up by at most an eighth, so that runs of one size mostly share what was compiled."""
    unit = max(1, 2 ** (int(np.ceil(capacity)).bit_length() - 4))
    return unit * int(np.ceil(capacity / unit))


def _whole_groups(slots: float) -> int:
    """Rounded likewise, and to the columns that a pair potential sums at a time."""
    return _GROUP * max(1, int(np.ceil(_rounded(slots) / _GROUP)))


def _whole_words(held: float) -> int:
    """Rounded up to what a comparison of runs takes in anyway."""
    words = max(1, int(np.ceil(held / WORD)))
    return 8 * words * max(1, int(np.ceil(held / (8 * words))))


def _most_neighbors(system: System, reach: float, periodic: tuple[bool, bool, bool]) -> int:
    real = np.asarray(system.atomic_numbers) > 0
    i, _, _, _ = find_pairs(np.asarray(system.positions, np.float64)[real], system.cell, periodic, reach)
    return int(np.bincount(i).max()) if len(i) else 0


def _usual_neighbors(system: System, reach: float) -> int:
    """What the fullest atom of a liquid of this density has; a crystal that will melt has fewer."""
    volume = abs(np.linalg.det(np.asarray(system.cell, np.float64)))
    n_atoms = int(np.sum(np.asarray(system.atomic_numbers) > 0))
    mean = n_atoms / volume * 4 / 3 * np.pi * reach**3
    return int(np.ceil(mean + np.sqrt(mean)))


def _lattice_coordinates(
    system: System, periodic: tuple[bool, bool, bool]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lattice coordinates of the atoms from the origin of the bins, what they span, heights of the cell."""
    real = np.asarray(system.atomic_numbers) > 0
    positions = np.asarray(system.positions, np.float64)[real]
    if not np.isfinite(positions).all():
        raise InputError("positions are not finite: no neighbour list can be built")
    full = complete_cell(np.asarray(system.cell, np.float64), periodic)
    fraction = positions @ np.linalg.inv(full)
    fraction = fraction - np.where(periodic, np.floor(fraction), fraction.min(axis=0, initial=np.inf))
    span = np.where(periodic, 1.0, fraction.max(axis=0, initial=0.0))
    return fraction, span, heights(full)


def _grid(
    replicas: list[System], reach: float, periodic: tuple[bool, bool, bool], like: Neighbors | None
) -> Grid:
    """Bins that suit all replicas; those of `like` if they do.

    They depend on the cell and the number of atoms alone. The order of sums depends on them, and a run that
    goes on from a state must not be able to tell.
    """
    height = np.min(
        [heights(complete_cell(np.asarray(r.cell, np.float64), periodic)) for r in replicas], axis=0
    )
    if like is not None and like.periodic == periodic:
        old = _with_reach(like.grid.bins, height, reach, periodic, like.grid.reach)
        if old.reach == like.grid.reach:
            return like.grid
    n_atoms = replicas[0].n_atoms
    best, lowest = None, math.inf
    for across, along in _RESOLUTIONS:
        resolution = np.array([across, across, along])
        # Where nothing says how far the atoms reach, there are as many bins as a cube of them would fill.
        fixed = np.ceil(resolution * np.cbrt(n_atoms))
        bins = np.where(periodic, np.floor(height * resolution / (_SHRINK * reach)), fixed)
        grid = _with_reach(np.maximum(1, bins), height, reach, periodic, (across, across, along))
        padded = math.prod(n + 2 * g for n, g in zip(grid.bins, grid.reach, strict=True))
        images = math.prod((n + 2 * g) / n for n, g, p in zip(*grid[:2], periodic, strict=True) if p)
        # Sparse systems get wide bins, so that there are not many more of them than positions.
        if best is not None and padded > max(4096, 4 * n_atoms * images):
            continue
        held = n_atoms * images * (2 * grid.reach[2] + 1) / padded
        # The fullest of many runs of a liquid.
        longest = _whole_words(held + 3 * math.sqrt(held))
        runs = (2 * grid.reach[0] + 1) * (2 * grid.reach[1] + 1)
        cost = n_atoms * runs * (longest + _RUN) + padded + n_atoms * images
        if cost < lowest:
            best, lowest = grid._replace(held=longest), cost
    assert best is not None
    return best


def _with_reach(
    bins: Any, height: np.ndarray, reach: float, periodic: tuple[bool, bool, bool], otherwise: Any
) -> Grid:
    """A grid of these bins, which a reach spans as far as it must; `otherwise` where nothing is periodic."""
    # Less a rounding error, so that a whole number stays one.
    needed = np.ceil(_SHRINK * reach * np.asarray(bins, float) / height - 1e-9)
    spanned = np.where(periodic, needed, otherwise)
    return Grid(_as_ints(np.asarray(bins)), _as_ints(np.maximum(1, spanned)), 1)


def _as_ints(values: np.ndarray) -> tuple[int, int, int]:
    a, b, c = (int(value) for value in values)
    return a, b, c


def _occupancy(
    system: System, reach: float, periodic: tuple[bool, bool, bool], grid: Grid
) -> tuple[int, int, float]:
    """Extended positions, and those in the fullest run, as `rebuild` finds them; and how crowded atoms are.

    That is the number of positions in the fullest box of what an atom is compared with, over the mean.
    """
    fraction, span, height = _lattice_coordinates(system, periodic)
    bins, spanned = np.array(grid.bins), np.array(grid.reach)
    width = np.where(periodic, 1 / bins, np.maximum(span / bins, reach / height / spanned))
    index = np.minimum((fraction / width).astype(int), bins - 1)
    count = np.bincount(np.ravel_multi_index(tuple(index.T), tuple(bins)), minlength=int(np.prod(bins)))
    count = count.reshape(bins)
    for axis in range(3):
        pad = [(0, 0)] * 3
        pad[axis] = (spanned[axis], spanned[axis])
        count = np.pad(count, pad, mode="wrap" if periodic[axis] else "constant")
    runs = _moving_sums(count, 2 * spanned[2] + 1, axis=2)
    boxes = _moving_sums(_moving_sums(runs, 2 * spanned[1] + 1, axis=1), 2 * spanned[0] + 1, axis=0)
    return int(count.sum()), int(runs.max()), float(boxes.max() / max(boxes.mean(), 1e-9))


def _moving_sums(x: np.ndarray, width: int, *, axis: int) -> np.ndarray:
    """Sums of `width` neighbours along an axis."""
    x = np.moveaxis(x, axis, 0)
    before = np.concatenate([np.zeros((1, *x.shape[1:]), x.dtype), np.cumsum(x, axis=0)])
    return np.moveaxis(before[width:] - before[:-width], 0, axis)
