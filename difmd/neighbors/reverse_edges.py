"""Reverse edges: the two entries of a list that are the same pair, seen from its two atoms."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from difmd._internal.gather import add_at, take
from difmd.neighbors.types import Neighbors, ReverseEdges

# Number of distinct lattice translations along a vector.
_SHIFTS = 1001


def find_reverse_edges(neighbors: Neighbors) -> ReverseEdges:
    """Match the entries of a list, which holds each pair twice, by sorting them; works under jit.

    The key of a pair consists of its two centers and the lattice translation between them as seen from the
    lower center; between an atom and its image, from the entry with the larger translation. The list must not
    have overflowed, and images lie up to 500 cells away.
    """
    n_slots, n_columns = neighbors.indices.shape
    n_extended = neighbors.parents.shape[0]
    indices = neighbors.indices.T.reshape(-1)
    is_used = indices < n_extended
    safe = jnp.where(is_used, indices, 0)
    here = jnp.repeat(jnp.arange(n_columns, dtype=jnp.int32), n_slots)
    there = take(take(neighbors.rank, neighbors.parents), safe)
    code = jnp.zeros(n_extended, jnp.int32)
    for vector in range(3):
        # Centers lie in the cell, neighbours in an image of it.
        image = neighbors.images[vector] + take(neighbors.wraps[:, vector], neighbors.parents)
        code = code * _SHIFTS + image
    code = take(code, safe)
    is_turned = (here > there) | ((here == there) & (code < 0))
    low = jnp.where(is_used, jnp.minimum(here, there), n_columns)
    keys = (low, jnp.maximum(here, there), jnp.where(is_turned, -code, code))
    entry = jnp.arange(len(indices), dtype=jnp.int32)
    *keys_in_order, order = lax.sort((*keys, entry), num_keys=3)
    differs = [key[1:] != key[:-1] for key in keys_in_order]
    begins = jnp.concatenate([jnp.ones(1, bool), differs[0] | differs[1] | differs[2]])
    # Rounding may list a pair from one side only where it is as long as the reach, beyond the cut-off: it has
    # no reverse edge.
    is_first = begins & ~jnp.concatenate([begins[1:], jnp.ones(1, bool)]) & take(is_used, order)
    is_second = jnp.concatenate([jnp.zeros(1, bool), is_first[:-1]])
    n_pairs = -(-len(indices) // 2)
    number = jnp.cumsum(is_first, dtype=jnp.int32) - 1
    pair = add_at(len(indices), order, jnp.where(is_first | is_second, number, n_pairs))
    sides = [
        add_at(n_pairs + 1, jnp.where(side, number, n_pairs), jnp.where(side, order, 0))
        for side in (is_first, is_second)
    ]
    return ReverseEdges(pair=pair.reshape(n_columns, n_slots), entries=jnp.stack(sides))


def no_reverse_edges(n_columns: int, n_slots: int) -> ReverseEdges:
    """Arrays of zeros in the shapes that `find_reverse_edges` returns, in NumPy (host)."""
    pair: Any = np.zeros((n_columns, n_slots), np.int32)
    entries: Any = np.zeros((2, -(-pair.size // 2) + 1), np.int32)
    return ReverseEdges(pair=pair, entries=entries)
