"""Neighbour lists under jit: `rebuild`, and `update`, which rebuilds once an atom has moved far enough.

Atoms are sorted into bins finer than the reach, and bins beyond the faces of the cell repeat those inside.
The neighbourhood of an atom then consists of a few *runs*: bins along the third lattice vector, whose
positions are contiguous in memory and compared with vector instructions. The cost is O(N).
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt

from difmd._internal import cpu_layout
from difmd._internal.gather import add_at, take, take_runs
from difmd._internal.lattice import complete_cell, heights, invert, product
from difmd._internal.reductions import cumulative, full_rows, largest
from difmd._internal.replicas import cond_any
from difmd.errors import InputError
from difmd.neighbors.reverse_edges import find_reverse_edges
from difmd.neighbors.types import Grid, Neighbors, as_ints, check_belongs, extended_positions, is_stale
from difmd.system import System

WORD = 32
"""Comparisons per word."""

# Slots filled per iteration of a loop; with more of them its state passes through memory less often.
_UNROLL = 4


def update(system: System, neighbors: Neighbors) -> Neighbors:
    """Rebuild the list if it is stale for these positions, else return it unchanged; works under jit.

    Under `vmap` all replicas are rebuilt as soon as one needs it. No gradient flows through a list.

    Args:
        system: the positions and cell now.
        neighbors: a list made by `neighbor_list` for this system.

    Returns:
        A list that is exact for `system` unless its `overflow` or `too_small` is set.

    Raises:
        InputError: as `rebuild`.
    """
    system, neighbors = lax.stop_gradient((system, neighbors))
    return cond_any(is_stale(system, neighbors), rebuild, _keep, system, neighbors)


def _keep(system: System, neighbors: Neighbors) -> Neighbors:
    return neighbors


def rebuild(system: System, neighbors: Neighbors, reach: Float[Array, ""] | float | None = None) -> Neighbors:
    """Build the list anew within the capacity of `neighbors`; works under jit.

    Args:
        system: the positions and cell now.
        neighbors: provides the shapes and the static settings; its contents are not used.
        reach: largest distance of listed pairs [Å], at most cutoff + skin, the default. With a shorter reach
            the caller has to bound how far atoms move.

    Returns:
        The new list.

    Raises:
        InputError: a list of another system, or tens of millions of positions, too many for 32 bits.
    """
    check_belongs(system, neighbors)
    return _rebuild(system, neighbors, reach)


# Traced once for all callers.
@jax.jit
def _rebuild(system: System, neighbors: Neighbors, reach: Float[Array, ""] | float | None) -> Neighbors:
    system = lax.stop_gradient(system)
    reach = neighbors.cutoff + neighbors.skin if reach is None else reach
    real = system.atomic_numbers > 0
    complete = complete_cell(system.cell, neighbors.periodic)
    margin = reach / heights(complete)
    fraction = product(system.positions, invert(complete))
    wraps = jnp.where(jnp.asarray(neighbors.periodic), jnp.floor(fraction), 0)
    bins = _bins(fraction - wraps, real, margin, neighbors)
    sorted_ = _sort(bins, real, neighbors)
    wraps = wraps.astype(jnp.int32)
    fresh = neighbors.replace(
        centers=sorted_.centers,
        order=sorted_.order,
        rank=add_at(len(bins), sorted_.order[: len(bins)], jnp.arange(len(bins), dtype=jnp.int32)),
        parents=sorted_.parents,
        images=sorted_.images - take(wraps, sorted_.parents).T,
        wraps=wraps,
        reference_positions=system.positions,
        reference_cell=system.cell,
        n_extended=sorted_.start[-1],
        too_small=_is_too_small(margin, neighbors),
    )
    indices, count, longest = _search(extended_positions(system, fresh), sorted_, reach**2, neighbors)
    most = largest(count).astype(jnp.int32)
    rebuilt = fresh.replace(indices=indices, n_neighbors=most, n_in_run=longest.astype(jnp.int32))
    if neighbors.reverse_edges is None:
        return rebuilt
    return rebuilt.replace(reverse_edges=find_reverse_edges(rebuilt))


def _is_too_small(margin: Float[Array, "3"], neighbors: Neighbors) -> Bool[Array, ""]:
    spanned = margin * jnp.asarray(neighbors.grid.bins, margin.dtype) * (1 - 1e-6)
    too_far = spanned > jnp.asarray(neighbors.grid.reach, margin.dtype)
    return jnp.any(jnp.asarray(neighbors.periodic) & too_far)


def _padded(grid: Grid) -> tuple[int, int, int]:
    """Number of bins along each vector, including those beyond the faces."""
    return as_ints(bins + 2 * reach for bins, reach in zip(grid.bins, grid.reach, strict=True))


def _flat(index: list[Array], grid: Grid) -> Array:
    """Flat index of a bin from its indices along each vector, the third running fastest."""
    _, rows, columns = _padded(grid)
    return (index[0] * rows + index[1]) * columns + index[2]


def _bins(
    fraction: Float[Array, "atoms 3"],
    real: Bool[Array, "atoms"],
    margin: Float[Array, "3"],
    neighbors: Neighbors,
) -> Int[Array, "atoms"]:
    """Flat index of the bin of each atom; padding gets an index past the last bin."""
    grid = neighbors.grid
    index = []
    for axis in range(3):
        x, bins, reach = fraction[:, axis], grid.bins[axis], grid.reach[axis]
        if not neighbors.periodic[axis]:
            low = jnp.min(jnp.where(real, x, jnp.inf))
            high = jnp.max(jnp.where(real, x, -jnp.inf))
            width = jnp.maximum((high - low) / bins, margin[axis] / reach) * (1 + 1e-6)
            x = (x - low) / (width * bins)
        # Clamping keeps close positions in close bins.
        index.append(reach + jnp.clip(jnp.floor(x * bins).astype(jnp.int32), 0, bins - 1))
    return jnp.where(real, _flat(index, grid), int(np.prod(_padded(grid))))


class _Sorted(NamedTuple):
    """The extended positions by bin; `start` holds the first of each bin, and their number."""

    order: Int[Array, "columns"]
    centers: Int[Array, "columns"]
    bins: Int[Array, "columns"]
    parents: Int[Array, "extended"]
    images: Int[Array, "3 extended"]
    start: Int[Array, "starts"]


def _sort(bins: Int[Array, "atoms"], real: Bool[Array, "atoms"], neighbors: Neighbors) -> _Sorted:
    grid = neighbors.grid
    n_atoms, n_extended = len(bins), neighbors.parents.shape[-1]
    n_bins = int(np.prod(_padded(grid)))
    order = _argsort(bins, n_bins)
    ordered = take(bins, order)
    atoms = jnp.arange(n_atoms, dtype=jnp.int32)
    # Sums of a single length, which XLA compiles once; integers in float32 are exact up to 2²⁴.
    length = full_rows(max(n_bins, n_extended, n_atoms) + 1)
    dtype = jnp.float32 if length < 2**24 else jnp.int32
    count = add_at(length, ordered, jnp.ones(n_atoms, dtype))
    # First of the sorted atoms in each bin.
    first_atom = (cumulative(count) - count).astype(jnp.int32)
    source, images_of_bins = _source(neighbors)
    repeated = jnp.where(source < 0, 0, take(count, jnp.maximum(source, 0)))
    repeated = jnp.pad(repeated, (0, length - n_bins))
    start = (cumulative(repeated) - repeated).astype(jnp.int32)[: n_bins + 1]
    # A position belongs to the last bin that begins at or before it.
    begun = add_at(length, jnp.minimum(start[:-1], n_extended), jnp.ones(n_bins, dtype))
    bin_of = jnp.minimum(cumulative(begun)[:n_extended].astype(jnp.int32) - 1, n_bins - 1)
    within = jnp.arange(n_extended, dtype=jnp.int32) - take(start, bin_of)
    place = take(first_atom, jnp.maximum(take(source, bin_of), 0)) + within
    parents = take(order, jnp.clip(place, 0, n_atoms - 1))
    images = jnp.stack([take(image, bin_of) for image in images_of_bins])
    slots = take(start, ordered) + atoms - take(first_atom, ordered)
    # Past the extended positions: one that stands for unused neighbours, one for padding.
    centers = jnp.where((ordered < n_bins) & (slots < n_extended), slots, n_extended + 1)
    order, centers, ordered = (
        jnp.concatenate([x, jnp.full(neighbors.centers.shape[-1] - n_atoms, filling, jnp.int32)])
        for x, filling in ((order, 0), (centers, n_extended + 1), (ordered, n_bins))
    )
    return _Sorted(order, centers, ordered, parents, images, start)


def _source(neighbors: Neighbors) -> tuple[Int[Array, "bins"], list[Int[Array, "bins"]]]:
    """The bin inside the cell that each bin repeats, −1 for none, and its lattice translation."""
    grid, padded = neighbors.grid, _padded(neighbors.grid)
    inside, images = [], []
    is_nothing: Any = False
    for axis in range(3):
        count, reach = grid.bins[axis], grid.reach[axis]
        place = np.expand_dims(np.arange(padded[axis], dtype=np.int32), [a for a in range(3) if a != axis])
        image = (place - reach) // count
        inside.append(jnp.asarray(place - image * count))
        images.append(jnp.broadcast_to(jnp.asarray(image), padded).reshape(-1))
        if not neighbors.periodic[axis]:
            is_nothing = is_nothing | jnp.asarray(image != 0)
    return jnp.where(is_nothing, -1, _flat(inside, grid)).reshape(-1), images


def _argsort(keys: Int[Array, "n"], highest: int) -> Int[Array, "n"]:
    """Stable order of keys 0 … `highest`, by words of an index and some bits of its key, the lowest first.

    On CPU XLA sorts one array several times faster than two.
    """
    n = len(keys)
    bits = max(1, (n - 1).bit_length())
    atoms = jnp.arange(n, dtype=jnp.uint32)
    order = jnp.arange(n, dtype=jnp.int32)
    step = WORD - bits
    for low in range(0, max(1, highest.bit_length()), step):
        digit = take(keys, order).astype(jnp.uint32) >> low
        words = jnp.sort((digit << bits) | atoms)
        order = take(order, (words & ((1 << bits) - 1)).astype(jnp.int32))
    return order


def _search(
    positions: list[Float[Array, "points"]],
    sorted_: _Sorted,
    reach_squared: Array | float,
    neighbors: Neighbors,
) -> tuple[Int[Array, "slots columns"], Float[Array, "columns"], Float[Array, ""]]:
    """Indices of the positions within reach, the number of neighbours of each center, the longest run."""

    def fill(into: Array, start: Array | int, size: int) -> tuple[Array, Array, Array]:
        """Fill the columns of `size` centers from `start` on."""
        bins, centers = (lax.dynamic_slice_in_dim(x, start, size) for x in (sorted_.bins, sorted_.centers))
        masks, first, count, longest = _compare(positions, sorted_, bins, centers, reach_squared, neighbors)
        return _unpack(masks, first, into, start, neighbors.parents.shape[-1]), count, longest

    _, width = _words(neighbors.grid)
    # A run may be read past the end of the last bin.
    positions = [jnp.concatenate([axis, jnp.full(width, axis[-2])]) for axis in positions]
    n_columns = len(sorted_.bins)
    indices = jnp.zeros((neighbors.capacity, n_columns), jnp.int32)
    parts = cpu_layout.split(n_columns, cpu_layout.SEARCHED)
    if parts is None:
        return fill(indices, jnp.int32(0), n_columns)
    starts, length = parts

    def step(state: tuple[Array, Array, Array], start: Array) -> tuple[Any, None]:
        indices, counts, longest = state
        indices, count, most = fill(indices, start, length)
        return (indices, lax.dynamic_update_slice(counts, count, (start,)), jnp.maximum(longest, most)), None

    zeros = jnp.zeros(n_columns, _count_dtype(positions[0]))
    return lax.scan(step, (indices, zeros, zeros[0]), jnp.asarray(starts))[0]


def _count_dtype(x: Float[Array, "points"]) -> Any:
    """The dtype of counts: that of `x` where it represents them exactly, so that maxima share kernels."""
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32


def _words(grid: Grid) -> tuple[int, int]:
    """Number of words for the comparisons of a run, and comparisons in each."""
    n_words = -(-grid.capacity // WORD)
    return n_words, 8 * -(-grid.capacity // (8 * n_words))


def _compare(
    positions: list[Float[Array, "points"]],
    sorted_: _Sorted,
    bins: Int[Array, "centers"],
    centers: Int[Array, "centers"],
    reach_squared: Array | float,
    neighbors: Neighbors,
) -> tuple[
    UInt[Array, "words centers"], Int[Array, "words centers"], Float[Array, "centers"], Float[Array, ""]
]:
    """Bit masks of the positions within reach, up to 32 comparisons of a run in a word, and a final word.

    Also the extended position of the first bit of each mask, the number of neighbours of each center, and the
    length of the longest run. `positions` are padded at the end.
    """
    grid, n_centers = neighbors.grid, len(bins)
    _, rows, columns = _padded(grid)
    n_bins = len(sorted_.start) - 1
    n_words, width = _words(grid)
    x, y, z = positions
    xi, yi, zi = (take(axis, centers)[:, None] for axis in (x, y, z))
    bit = jnp.asarray(np.arange(width, dtype=np.int32))[None]
    flag = jnp.asarray(1 << np.arange(width, dtype=np.uint32), jnp.uint32)[None]
    # They are followed by the two points that are not atoms, and padding to read past the end.
    n_extended = len(x) - width - 2
    real = centers < n_extended

    def compare(sums: tuple[Array, Array], word: tuple[Array, ...]) -> tuple[Any, tuple[Array, Array]]:
        (count, longest), (offset, skipped, is_end) = sums, word
        middle = bins + offset
        first = take(sorted_.start, jnp.clip(middle - grid.reach[2], 0, n_bins)) + skipped
        last = take(sorted_.start, jnp.clip(middle + grid.reach[2] + 1, 0, n_bins))
        start = jnp.minimum(first, len(x) - width)
        dx, dy, dz = (take_runs(axis, start, width) - center for axis, center in ((x, xi), (y, yi), (z, zi)))
        squared = dx**2 + dy**2 + dz**2
        length = jnp.where(real, last - first, -skipped)
        # After an overflow a run may end past the capacity.
        stored = jnp.minimum(length, n_extended - first)
        hit = (squared < reach_squared) & (bit < stored[:, None]) & (bit != (centers - first)[:, None])
        mask = jnp.sum(jnp.where(hit, flag, 0), axis=1, dtype=jnp.uint32)
        count = count + lax.population_count(mask).astype(count.dtype)
        word = (jnp.where(is_end, 1, mask), jnp.where(is_end, n_extended, first))
        return (count, jnp.maximum(longest, (length + skipped).astype(longest.dtype))), word

    around = [range(-n, n + 1) for n in grid.reach[:2]]
    offsets = [(a * rows + b) * columns for a, b in itertools.product(*around)]
    pieces = list(itertools.product(offsets, range(0, width * n_words, width)))
    # The final word passes through the same loop, which saves arrays and kernels; its comparisons are unused.
    table = np.asarray([*pieces, (0, width * n_words)], np.int32)
    is_end = np.arange(len(table)) == len(table) - 1
    words = (jnp.asarray(table[:, 0]), jnp.asarray(table[:, 1]), jnp.asarray(is_end))
    zeros = jnp.zeros(n_centers, _count_dtype(x))
    (count, longest), (masks, starts) = lax.scan(compare, (zeros, zeros), words)
    return masks, starts, count, largest(longest)


def _unpack(
    masks: UInt[Array, "words centers"],
    starts: Int[Array, "words centers"],
    into: Int[Array, "slots columns"],
    column: Array | int,
    n_extended: int,
) -> Int[Array, "slots columns"]:
    """Extended positions of the set bits, written `into` the columns of these centers from `column` on.

    The bit of the final word is never cleared, so that a finished center remains there.
    """
    n_words, n_centers = masks.shape
    bits = (n_words - 1).bit_length()
    if n_extended >= 1 << (WORD - bits):
        raise InputError(
            f"{n_extended} positions with {n_words - 1} words of comparisons each are too many for one list: "
            "use fewer atoms"
        )
    centers = jnp.arange(n_centers, dtype=jnp.int32)

    def link(after: Array, word: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        # The start of a word and its successor are packed into one integer, as gathers dominate the cost.
        number, mask, start = word
        return jnp.where(mask != 0, number, after), (start.astype(jnp.uint32) << bits) | after

    end = jnp.full(n_centers, n_words - 1, jnp.uint32)
    first, links = lax.scan(link, end, (jnp.arange(n_words, dtype=jnp.uint32), masks, starts), reverse=True)
    masks, links = masks.reshape(-1), links.reshape(-1)

    def load(word: Array) -> tuple[Array, Array]:
        at = word.astype(jnp.int32) * n_centers + centers
        return take(masks, at), take(links, at)

    def step(state: tuple[Array, Array, Array], slot: Array) -> tuple[Any, None]:
        mask, link, into = state
        rest = mask & (mask - 1)
        bit = lax.population_count((mask ^ rest) - 1)
        index = ((link >> bits) + bit).astype(jnp.int32)
        loaded = load(link & ((1 << bits) - 1))
        done = rest == 0
        into = lax.dynamic_update_slice(into, index[None], (slot, column))
        return (jnp.where(done, loaded[0], rest), jnp.where(done, loaded[1], link), into), None

    slots = jnp.arange(len(into), dtype=jnp.int32)
    return lax.scan(step, (*load(first), into), slots, unroll=_UNROLL)[0][2]
