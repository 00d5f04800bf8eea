"""Reverse edges: every entry of a list has one, and both ways to find them agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd.neighbors import neighbor_list, rebuild
from difmd.neighbors.packed import packed, pairs_of
from difmd.neighbors.reverse_edges import find_reverse_edges
from difmd.system import make_system

CELL = np.array([[4.2, 0.0, 0.0], [1.1, 3.9, 0.0], [-0.7, 0.6, 4.6]])


def crowd(n, seed, pbc=True, spread=1.0):
    """Atoms in a sheared cell, some of them cells away, as after a long run."""
    rng = np.random.default_rng(seed)
    fractions = rng.uniform(0, 1, (n, 3)) + (rng.integers(-3, 4, (n, 3)) if pbc is True else 0)
    return make_system(spread * fractions @ CELL, [6] * n, cell=spread * CELL, pbc=pbc)


def vectors(system, neighbors):
    """r_ij of each entry, NaN where unused; [columns, slots, 3]."""
    positions = np.asarray(system.positions)[np.asarray(neighbors.parents)]
    extended = positions + np.asarray(neighbors.images).T @ np.asarray(system.cell)
    n_extended = len(extended)
    extended = np.concatenate([extended, np.full((2, 3), np.nan)])
    indices = np.asarray(neighbors.indices).T
    assert indices.max() <= n_extended
    return extended[indices] - extended[np.asarray(neighbors.centers)][:, None]


@pytest.mark.quick("periodic-2", "slab-7", "free-40", "periodic-1")
@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("pbc", [True, [True, False, True], False], ids=["periodic", "slab", "free"])
def test_each_entry_has_one_reverse_edge(n, pbc):
    system = crowd(n, seed=n, pbc=pbc, spread=1.0 if n < 10 else 2.0)
    neighbors = neighbor_list(system, cutoff=5.0, skin=0.4)
    assert_reverse_edges(system, neighbors, jax.jit(find_reverse_edges)(neighbors))


def assert_reverse_edges(system, neighbors, reverse_edges):
    apart = vectors(system, neighbors).reshape(-1, 3)
    is_used = np.isfinite(apart[:, 0])
    first, second = np.asarray(reverse_edges.entries)
    pair = np.asarray(reverse_edges.pair).reshape(-1)
    n_pairs = is_used.sum() // 2
    there = first != second
    assert there.sum() == n_pairs
    np.testing.assert_allclose(apart[first[there]], -apart[second[there]], atol=1e-12)
    for side in (first, second):
        np.testing.assert_array_equal(pair[side[there]], np.flatnonzero(there))
    assert (pair[~is_used] == len(first) - 1).all() and not there[-1]
    assert sorted([*first[there], *second[there]]) == sorted(np.flatnonzero(is_used))


@pytest.mark.quick("True-7", "pbc1-2", "False-1")
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("pbc", [True, [False, True, False], False])
def test_packed_lists_contain_the_same_pairs(n, pbc):
    system = jax.tree.map(np.asarray, crowd(n, seed=10 + n, pbc=pbc))
    found = pairs_of(system, 5.0)
    periodic = tuple(map(bool, system.pbc))
    padded = np.concatenate([system.positions, np.zeros((2, 3))])
    neighbors = packed(
        found,
        padded,
        system.cell,
        pbc=periodic,
        cutoff=5.0,
        slots=found.n_neighbors + 3,
        n_extended=len(found.parents) + 5,
        n_pairs=len(found.senders) // 2 + 2,
    )
    whole = system.replace(positions=padded)
    assert_reverse_edges(whole, neighbors, neighbors.reverse_edges)
    expected = neighbor_list(system, cutoff=5.0)
    ours, theirs = (
        np.sort(lengths[np.isfinite(lengths)])
        for lengths in (
            np.linalg.norm(vectors(whole, neighbors), axis=-1),
            np.linalg.norm(vectors(system, expected), axis=-1),
        )
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    again = find_reverse_edges(jax.tree.map(jnp.asarray, neighbors))
    ours, theirs = (
        {tuple(sorted(pair)) for pair in np.asarray(t.entries).T.tolist()}
        for t in (neighbors.reverse_edges, again)
    )
    assert ours == theirs


def test_a_pair_listed_from_one_side_has_no_reverse_edge():
    """At the reach of a list the two sides may round differently."""
    system = crowd(7, seed=4)
    neighbors = neighbor_list(system, cutoff=5.0, skin=0.4)
    used = np.argwhere(np.asarray(neighbors.indices) < neighbors.parents.shape[0])
    slot, column = used[len(used) // 2]
    lacking = neighbors.replace(indices=neighbors.indices.at[slot, column].set(neighbors.parents.shape[0]))
    reverse_edges = find_reverse_edges(lacking)
    apart = vectors(system, lacking).reshape(-1, 3)
    first, second = np.asarray(reverse_edges.entries)
    there = first != second
    assert there.sum() == len(used) // 2 - 1
    np.testing.assert_allclose(apart[first[there]], -apart[second[there]], atol=1e-12)
    pair = np.asarray(reverse_edges.pair).reshape(-1)
    single = set(np.flatnonzero(np.isfinite(apart[:, 0]))) - {*first[there], *second[there]}
    assert len(single) == 1 and pair[single.pop()] == len(first) - 1


def test_a_rebuild_keeps_reverse_edges_up_to_date():
    system = crowd(12, seed=3, spread=1.5)
    neighbors = neighbor_list(system, cutoff=4.0, skin=0.3, slack=1.5)
    neighbors = neighbors.replace(reverse_edges=find_reverse_edges(neighbors))
    moved = system.replace(positions=system.positions + np.random.default_rng(1).normal(0, 0.5, (12, 3)))
    fresh = jax.jit(rebuild)(moved, neighbors)
    assert_reverse_edges(moved, fresh, fresh.reverse_edges)
    assert not np.array_equal(fresh.reverse_edges.entries, neighbors.reverse_edges.entries)
