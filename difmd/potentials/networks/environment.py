"""`Environment`: atoms and their neighbours in rows, the input of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.gather import take
from difmd.neighbors import Neighbors, extended_positions
from difmd.neighbors.reverse_edges import find_reverse_edges
from difmd.neighbors.types import ReverseEdges
from difmd.potentials.species import types_of
from difmd.system import System


class Environment(NamedTuple):
    """Centers of a list, in its order, and the neighbours of each in a row of slots.

    Sums over neighbours are then contractions over a dense axis, and nothing is scattered.

    Attributes:
        types: index of each center's species in the potential; int [centers].
        is_atom: whether a center is an atom, not padding; bool [centers].
        senders: center of each neighbour or of its parent; 0 in unused slots; int [centers, slots].
        vectors: x, y and z of r_ij = r_j − r_i [Å]; out of reach in unused slots; float [centers, slots].
        distances: |r_ij| [Å]; [centers, slots].
        reverse_edges: the two entries of each pair.
        lengths: distance of each pair [Å], held above `nearest`; out of reach for unused pairs; [pairs].
    """

    types: Int[Array, "centers"]
    is_atom: Bool[Array, "centers"]
    senders: Int[Array, "centers slots"]
    vectors: tuple[
        Float[Array, "centers slots"], Float[Array, "centers slots"], Float[Array, "centers slots"]
    ]
    distances: Float[Array, "centers slots"]
    reverse_edges: ReverseEdges
    lengths: Float[Array, "pairs"]


def environment(
    system: System,
    neighbors: Neighbors,
    *,
    numbers: Sequence[int],
    cutoff: float,
    nearest: np.ndarray | None = None,
) -> tuple[Environment, Int[Array, "atoms"]]:
    """The environment of every center of a list.

    Args:
        system: the configuration.
        neighbors: a current list for it.
        numbers: atomic numbers of the potential, in its order.
        cutoff: [Å]; neighbours beyond it are put at twice that distance, where all functions are zero and
            have finite derivatives.
        nearest: lower limits [Å] of `lengths` for pairs of species, see `held_above`; None: `lengths` are the
            distances. [species, species].

    Returns:
        The `Environment`, and the center that each atom is.
    """
    xyz = extended_positions(system, neighbors)
    n_extended = neighbors.parents.shape[0]
    indices = neighbors.indices.T
    apart = [take(x, indices) - take(x, neighbors.centers)[:, None] for x in xyz]
    squared = apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
    is_near = (indices < n_extended) & (squared < cutoff**2)
    away = jnp.asarray(2 * cutoff, squared.dtype)
    x, y, z = (jnp.where(is_near, a, away if axis == 2 else 0) for axis, a in enumerate(apart))
    distances = jnp.sqrt(jnp.where(is_near, squared, away**2))
    reverse_edges = (
        find_reverse_edges(neighbors) if neighbors.reverse_edges is None else neighbors.reverse_edges
    )
    # The two entries of an unused pair are the same.
    is_pair = reverse_edges.entries[0] != reverse_edges.entries[1]
    lengths = jnp.where(is_pair, take(distances.reshape(-1), reverse_edges.entries[0]), away)
    # The two extended positions that are not atoms map to center 0, whose contribution is zero there.
    center_of = jnp.concatenate([take(neighbors.rank, neighbors.parents), jnp.zeros(2, jnp.int32)])
    types = take(types_of(numbers, system.atomic_numbers), neighbors.order)
    senders = jnp.where(is_near, take(center_of, indices), 0)
    if nearest is not None:
        first = reverse_edges.entries[0]
        here, there = take(types, first // indices.shape[1]), take(types, take(senders.reshape(-1), first))
        table = jnp.asarray(nearest, lengths.dtype).reshape(-1)
        lengths = held_above(lengths, take(table, here * len(numbers) + there))
    env = Environment(
        types=types,
        is_atom=neighbors.centers < n_extended,
        senders=senders,
        vectors=(x, y, z),
        distances=distances,
        reverse_edges=reverse_edges,
        lengths=lengths,
    )
    return env, neighbors.rank


def held_above(r: Float[Array, "pairs"], nearest: Float[Array, "pairs"]) -> Float[Array, "pairs"]:
    """Distances above `nearest` unchanged; those below approach 0.95 of it and stay there.

    Between a and 0.9 a it is a − w (x − x³ + x⁴/2) with x = (a − r)/w and w = 0.1 a, whose slope and
    curvature are continuous at both ends.
    """
    width = 0.1 * nearest
    x = jnp.clip((nearest - r) / width, 0, 1)
    return jnp.where(r < nearest, nearest - width * (x - x**3 + 0.5 * x**4), r)
