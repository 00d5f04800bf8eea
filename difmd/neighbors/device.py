"""Neighbour lists under jit: rebuild, and rebuild only when an atom has moved far enough.

Cost is O(N): images by comparison with the rim of the cell, candidates from bins at least
cutoff + skin wide (or all pairs when the system is small), accepted ones appended slot by slot.
"""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from difmd.batching import cond_any
from difmd.neighbors.lattice import complete_cell, heights, image_table, product
from difmd.neighbors.types import Neighbors, extended_positions, is_stale
from difmd.system import System

_WORD = 32


def update(system: System, neighbors: Neighbors) -> Neighbors:
    """Rebuild the list if it is stale for these positions, else return it as it is.

    Under `vmap` all replicas are rebuilt as soon as one needs it. No gradient flows through a list.

    Args:
        system: the positions and cell now.
        neighbors: a list of `neighbor_list`.

    Returns:
        A list that is exact for `system` unless its `overflow` or `too_small` is set.
    """
    system, neighbors = lax.stop_gradient((system, neighbors))
    return cond_any(is_stale(system, neighbors), rebuild, _keep, system, neighbors)


def _keep(system: System, neighbors: Neighbors) -> Neighbors:
    del system
    return neighbors


def rebuild(system: System, neighbors: Neighbors) -> Neighbors:
    """Build the list anew within the capacity of `neighbors`.

    Args:
        system: the positions and cell now.
        neighbors: gives the shapes and the static settings; its contents are not used.

    Returns:
        The new list.
    """
    system = lax.stop_gradient(system)
    reach = neighbors.cutoff + neighbors.skin
    real = system.atomic_numbers > 0
    complete = complete_cell(system.cell, neighbors.periodic)
    height = heights(complete)
    fraction = product(system.positions, jnp.linalg.inv(complete))
    periodic = jnp.asarray(neighbors.periodic)
    wraps = jnp.where(periodic, jnp.floor(fraction), 0)
    fraction = fraction - wraps
    parents, images, fractions, valid, needed = _extend(fraction, wraps, real, reach / height, neighbors)
    fresh = neighbors.replace(
        parents=parents,
        images=images,
        reference_positions=system.positions,
        reference_cell=system.cell,
        n_extended=needed,
        too_small=_is_too_small(reach / height, neighbors),
    )
    # Unused extended slots go out of reach, so that no comparison has to look at `valid`.
    positions = extended_positions(system, fresh)
    positions = positions.at[:-1].set(jnp.where(valid[:, None], positions[:-1], positions[-1]))
    centers = jnp.where(real[:, None], positions[: system.n_atoms], -positions[-1])
    if neighbors.grid is None:
        n_binned = jnp.int32(0)
        candidates: Array | None = None
    else:
        candidates, n_binned = _bin(fractions, valid, reach / height, system.n_atoms, neighbors)
    indices, count = _collect(positions, centers, candidates, reach**2, neighbors)
    return fresh.replace(indices=indices, n_neighbors=jnp.max(count), n_binned=n_binned)


def _is_too_small(margin: Float[Array, "3"], neighbors: Neighbors) -> Bool[Array, ""]:
    required = jnp.ceil(margin * (1 - 1e-6))
    allowed = jnp.asarray(neighbors.ranges, margin.dtype)
    return jnp.any(jnp.asarray(neighbors.periodic) & (required > allowed))


def _extend(
    fraction: Float[Array, "atoms 3"],
    wraps: Float[Array, "atoms 3"],
    real: Bool[Array, "atoms"],
    margin: Float[Array, "3"],
    neighbors: Neighbors,
) -> tuple[Array, Array, Array, Array, Array]:
    """The atoms in the cell and their images within `margin` of it.

    Returns:
        parents [extended], images [extended, 3], lattice coordinates [extended, 3], which of these are
        in use [extended], and how many are needed [].
    """
    n_atoms = fraction.shape[0]
    n_extended = neighbors.parents.shape[-1]
    table = jnp.asarray(image_table(neighbors.ranges))
    own = -wraps.astype(jnp.int32)
    room = n_extended - n_atoms
    if len(table) == 0:
        pad = jnp.zeros(room, jnp.int32)
        return (
            jnp.concatenate([jnp.arange(n_atoms, dtype=jnp.int32), pad]),
            jnp.concatenate([own, jnp.zeros((room, 3), jnp.int32)]),
            jnp.concatenate([fraction, jnp.zeros((room, 3), fraction.dtype)]),
            jnp.concatenate([real, pad.astype(bool)]),
            jnp.int32(n_atoms),
        )
    moved = fraction[None] + table[:, None].astype(fraction.dtype)
    # The tolerance covers the rounding of the lattice coordinates; an image too many does no harm.
    wide = (margin * (1 + 1e-5) + 1e-5)[None, None]
    inside = (moved >= -wide) & (moved <= 1 + wide) | ~jnp.asarray(neighbors.periodic)[None, None]
    keep = (jnp.all(inside, axis=-1) & real[None]).reshape(-1)
    (chosen,) = jnp.nonzero(keep, size=room, fill_value=0)
    used = jnp.arange(room) < jnp.sum(keep)
    image, parent = chosen // n_atoms, chosen % n_atoms
    return (
        jnp.concatenate([jnp.arange(n_atoms), parent]).astype(jnp.int32),
        jnp.concatenate([own, own[parent] + table[image]]),
        jnp.concatenate([fraction, moved[image, parent]]),
        jnp.concatenate([real, used]),
        (n_atoms + jnp.sum(keep)).astype(jnp.int32),
    )


def _bin(
    fractions: Float[Array, "extended 3"],
    valid: Bool[Array, "extended"],
    margin: Float[Array, "3"],
    n_atoms: int,
    neighbors: Neighbors,
) -> tuple[Int[Array, "candidates atoms"], Int[Array, ""]]:
    """Candidates of each atom: what lies in its bin and the 26 around it."""
    assert neighbors.grid is not None
    n_extended = len(fractions)
    bins, held = np.asarray(neighbors.grid[:3], np.int32), neighbors.grid[3]
    periodic = jnp.asarray(neighbors.periodic)
    low = jnp.min(jnp.where(valid[:, None], fractions, jnp.inf), axis=0)
    high = jnp.max(jnp.where(valid[:, None], fractions, -jnp.inf), axis=0)
    origin = jnp.where(periodic, 0, low)
    span = jnp.where(periodic, 1, high - low)
    width = jnp.maximum(span / jnp.asarray(bins, fractions.dtype), margin)
    # One more bin each way holds the images. Clamping keeps near positions in near bins.
    index = jnp.floor((fractions - origin[None]) / width[None]).astype(jnp.int32) + 1
    index = jnp.clip(index, 0, jnp.asarray(bins + 1)[None])
    shape = bins + 2
    rows, columns = int(shape[1]), int(shape[2])
    flat = (index[:, 0] * rows + index[:, 1]) * columns + index[:, 2]
    n_bins = int(np.prod(shape))
    flat = jnp.where(valid, flat, n_bins)
    order = jnp.argsort(flat, stable=True)
    ordered = flat[order]
    start = jnp.searchsorted(ordered, jnp.arange(n_bins + 1, dtype=jnp.int32)).astype(jnp.int32)
    rank = jnp.arange(n_extended, dtype=jnp.int32) - start[ordered]
    table = jnp.full((n_bins + 1, held + 1), n_extended, jnp.int32)
    table = table.at[ordered, jnp.minimum(rank, held)].set(order.astype(jnp.int32))
    table = table.at[n_bins].set(n_extended)[:, :held]
    occupied = jnp.max(start[1:] - start[:-1])
    around = jnp.asarray(list(itertools.product((-1, 0, 1), repeat=3)), jnp.int32)
    nearby = index[:n_atoms, None] + around[None]
    outside = jnp.any((nearby < 0) | (nearby >= jnp.asarray(shape)[None, None]), axis=-1)
    nearby_flat = (nearby[..., 0] * rows + nearby[..., 1]) * columns + nearby[..., 2]
    nearby_flat = jnp.where(outside, n_bins, nearby_flat)
    candidates = table[nearby_flat].reshape(n_atoms, -1)
    return candidates.T, occupied.astype(jnp.int32)


def _collect(
    positions: Float[Array, "points 3"],
    centers: Float[Array, "atoms 3"],
    candidates: Int[Array, "candidates atoms"] | None,
    reach_squared: float,
    neighbors: Neighbors,
) -> tuple[Int[Array, "slots atoms"], Int[Array, "atoms"]]:
    """Keep the candidates that are near enough, in their order, in the column of their atom.

    Comparisons go into bit masks, 32 candidates a word; each slot then takes the next set bit of its
    atom. Only accepted pairs are written: a scatter a candidate costs more
    than the comparison itself.
    """
    n_atoms = len(centers)
    n_extended = len(positions) - 1
    x, y, z = positions.T
    xi, yi, zi = centers.T
    atoms = jnp.arange(n_atoms, dtype=jnp.int32)
    if candidates is None:
        candidates = jnp.arange(n_extended, dtype=jnp.int32)[:, None]
    n_words = -(-len(candidates) // _WORD)
    padding = ((0, n_words * _WORD - len(candidates)), (0, 0))
    candidates = jnp.pad(candidates, padding, constant_values=n_extended)

    def compare(count: Array, group: Int[Array, "32 *atoms"]) -> tuple[Array, Array]:
        word = jnp.zeros(n_atoms, jnp.uint32)
        for bit in range(_WORD):
            j = group[bit]
            distance_squared = (x[j] - xi) ** 2 + (y[j] - yi) ** 2 + (z[j] - zi) ** 2
            hit = (distance_squared < reach_squared) & (j != atoms)
            word = word | (hit.astype(jnp.uint32) << bit)
        return count + lax.population_count(word).astype(jnp.int32), word

    groups = candidates.reshape(n_words, _WORD, -1)
    count, words = lax.scan(compare, jnp.zeros(n_atoms, jnp.int32), groups)
    # Behind the last word stands one that is never empty, where a finished atom stays.
    words = jnp.concatenate([words, jnp.ones((1, n_atoms), jnp.uint32)])

    def find_next(after: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        w, word = at
        here = jnp.where(word != 0, w, after)
        return here, here

    order = jnp.arange(n_words + 1, dtype=jnp.int32)
    last = jnp.full(n_atoms, n_words, jnp.int32)
    first, following = lax.scan(find_next, last, (order, words), reverse=True)
    own = atoms if candidates.shape[1] == n_atoms else jnp.zeros_like(atoms)

    def take(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        w, rest = state
        lowest = rest & (~rest + 1)
        bit = lax.population_count(lowest - 1).astype(jnp.int32)
        position = jnp.minimum(w * _WORD + bit, len(candidates) - 1)
        index = jnp.where(w < n_words, candidates[position, own], n_extended)
        rest = rest ^ lowest
        ahead = following[jnp.minimum(w + 1, n_words), atoms]
        w = jnp.where(rest == 0, ahead, w)
        rest = jnp.where(rest == 0, words[ahead, atoms], rest)
        return (w, rest), index

    start = (first, words[first, atoms])
    _, indices = lax.scan(take, start, None, length=neighbors.capacity)
    return indices, count
