"""Undirected pairs of a list: which two entries are one pair, seen from its two atoms."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from difmd.neighbors.types import Neighbors, Twins
from difmd.take import add_at, take

# Lattice translations along a vector that are told from each other.
_SHIFTS = 1001


def find_twins(neighbors: Neighbors) -> Twins:
    """Match the entries of a list, which holds each pair twice, by sorting them.

    A pair is known by its two centers and the lattice translation between them as the lower of them sees it;
    between an atom and its own image, as the entry sees it whose translation comes later.

    Args:
        neighbors: a list that has not overflowed, with images up to 500 cells away.

    Returns:
        `Twins` with room for half as many pairs as there are entries, and one for the unused.
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
    order = lax.sort((*keys, entry), num_keys=3)[-1]
    # Twins come one after the other, and unused entries last.
    n_pairs = -(-len(indices) // 2)
    pair = add_at(len(indices), order, entry // 2)
    is_found = take(is_used.astype(jnp.int32), order) > 0
    entries = jnp.pad(jnp.where(is_found, order, 0), (0, 2 * n_pairs + 2 - len(indices)))
    return Twins(
        pair=jnp.where(is_used, pair, n_pairs).reshape(n_columns, n_slots),
        entries=entries.reshape(-1, 2).T,
    )
