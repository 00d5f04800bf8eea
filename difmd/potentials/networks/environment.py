"""`Environment`: atoms and their neighbours in rows, the input of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.gather import take
from difmd.neighbors import Neighbors, extended_positions
from difmd.neighbors.reverse_edges import find_reverse_edges
from difmd.neighbors.types import ReverseEdges
from difmd.potentials.species import types_of
from difmd.system import System

_Slots: TypeAlias = Float[Array, "centers slots"]


class Environment(NamedTuple):
    """Centers of a list, in its order, and the neighbours of each in a row of slots.

    Sums over neighbours are contractions over a dense axis, without a scatter.

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
    vectors: tuple[_Slots, _Slots, _Slots]
    distances: _Slots
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
    """The environment of every center of a list, and the center of each atom.

    Neighbours beyond the cut-off are moved to twice that distance, where all functions are zero and have
    finite derivatives. `nearest` are lower limits of `lengths`, see `held_above`; [species, species].
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
    listed = neighbors.reverse_edges
    reverse_edges = find_reverse_edges(neighbors) if listed is None else listed
    # The two entries of an unused pair are the same.
    is_pair = reverse_edges.entries[0] != reverse_edges.entries[1]
    first = reverse_edges.entries[0]
    lengths = jnp.where(is_pair, take(distances.reshape(-1), first), away)
    # The two extended positions that are not atoms map to center 0, whose contribution is zero there.
    center_of = jnp.concatenate([take(neighbors.rank, neighbors.parents), jnp.zeros(2, jnp.int32)])
    types = take(types_of(numbers, system.atomic_numbers), neighbors.order)
    senders = jnp.where(is_near, take(center_of, indices), 0)
    if nearest is not None:
        here, there = take(types, first // indices.shape[1]), take(types, take(senders.reshape(-1), first))
        table = jnp.asarray(nearest, lengths.dtype).reshape(-1)
        lengths = held_above(lengths, take(table, here * len(numbers) + there))
    is_atom = neighbors.centers < n_extended
    env = Environment(types, is_atom, senders, (x, y, z), distances, reverse_edges, lengths)
    return env, neighbors.rank


def held_above(r: Float[Array, "pairs"], nearest: Float[Array, "pairs"]) -> Float[Array, "pairs"]:
    """Distances above `nearest` unchanged; those below approach 0.95 of it and stay there.

    Between a and 0.9 a it is a − w (x − x³ + x⁴/2) with x = (a − r)/w and w = 0.1 a, whose slope and
    curvature are continuous at both ends.
    """
    width = 0.1 * nearest
    x = jnp.clip((nearest - r) / width, 0, 1)
    return jnp.where(r < nearest, nearest - width * (x - x**3 + 0.5 * x**4), r)
