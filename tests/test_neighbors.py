"""Neighbour lists against brute force: random cells, 200 or 1000 of them, under jit and on the host."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pairs import brute_force, is_subset, pairs_of

from difmd.neighbors import Neighbors, find_pairs, update
from difmd.neighbors.types import Grid
from difmd.system import System

CUTOFF, SKIN = 1.0, 0.25
REACH = CUTOFF + SKIN

# Shapes under jit are few: atoms with padding, slots, bins across the cell and how many of them a reach
# spans, and what a run may hold. Systems come in units of the cut-off, so that it can stay static while the
# cell varies.
SIZES = {
    "small": (6, 1600, (1, 1, 1), (4, 4, 4), 60),
    "middle": (40, 1000, (1, 1, 2), (2, 2, 4), 330),
    "large": (200, 900, (2, 3, 4), (2, 3, 4), 500),
}
# REACH over the smallest height of the cell; images have to reach a little further after a strain.
WIDEST = {"small": 3.75, "middle": 1.8, "large": 0.85}
PBC = list(itertools.product((False, True), repeat=3))

updated = jax.jit(update)


@functools.cache
def template(size: str, pbc: tuple[bool, bool, bool]) -> Neighbors:
    """An empty list with capacity for every image, stale for any system."""
    n_atoms, slots, bins, reach, held = SIZES[size]
    images = [(n + 2 * r) / n if periodic else 1 for n, r, periodic in zip(bins, reach, pbc, strict=True)]
    n_extended = int(n_atoms * np.prod(images))
    atoms, zero = jnp.zeros(n_atoms, jnp.int32), jnp.int32(0)
    return Neighbors(
        indices=jnp.full((slots, n_atoms), n_extended, jnp.int32),
        centers=atoms,
        order=atoms,
        rank=atoms,
        parents=jnp.zeros(n_extended, jnp.int32),
        images=jnp.zeros((3, n_extended), jnp.int32),
        wraps=jnp.zeros((n_atoms, 3), jnp.int32),
        reference_positions=jnp.full((n_atoms, 3), 1e9),
        reference_cell=jnp.zeros((3, 3)),
        n_neighbors=zero,
        n_extended=zero,
        n_in_run=zero,
        too_small=jnp.asarray(False),
        cutoff=CUTOFF,
        skin=SKIN,
        periodic=pbc,
        grid=Grid(bins, reach, held),
    )


class Spec(NamedTuple):
    """A random system, in a form that is short to print."""

    size: str
    n_atoms: int
    pbc: tuple[bool, bool, bool]
    angles: tuple[float, float, float]
    edges: tuple[float, float, float]
    share: float
    seed: int

    def build(self):
        """A cell sheared, rotated at random and of either handedness, with atoms far outside."""
        rng = np.random.default_rng(self.seed)
        padded = SIZES[self.size][0]
        n_atoms = 1 + self.n_atoms % padded
        cell = np.diag(self.edges)
        along = np.array([self.edges[1], self.edges[2], self.edges[2]])
        cell[1, 0], cell[2, 0], cell[2, 1] = np.tan(np.radians(self.angles)) * along
        cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
        flags = np.array(self.pbc)
        vectors = cell[flags] if flags.any() else cell
        height = 1 / np.linalg.norm(np.linalg.pinv(vectors), axis=0).max()
        cell *= REACH / (self.share * WIDEST[self.size] * height)
        fraction = rng.uniform(size=(padded, 3)) + rng.integers(-5, 6, (padded, 3)) * flags
        # Padding lies among the atoms.
        return cell, fraction @ cell, np.arange(padded) < n_atoms, rng


specs = st.builds(
    Spec,
    size=st.sampled_from(["small"] * 6 + ["middle"] * 3 + ["large"]),
    n_atoms=st.integers(0, 999),
    pbc=st.sampled_from(PBC),
    angles=st.tuples(*[st.floats(-60, 60)] * 3),
    edges=st.tuples(*[st.floats(1, 3)] * 3),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 2**32 - 1),
)


def system_of(positions, cell, pbc, real) -> System:
    return System(
        positions=jnp.asarray(positions),
        atomic_numbers=jnp.where(jnp.asarray(real), 18, 0).astype(jnp.int32),
        masses=jnp.ones(len(real)),
        cell=jnp.asarray(cell),
        pbc=jnp.asarray(pbc),
    )


def expect(neighbors, positions, cell, pbc, real):
    """The list contains exactly the pairs within REACH."""
    expected, nearest = brute_force(positions[real], cell, pbc, REACH)
    assume(nearest > 1e-9)  # a pair at the cut-off may be listed or not
    assert not neighbors.overflow and not neighbors.too_small
    found = pairs_of(neighbors)
    assert found.shape == expected.shape and (found == expected).all()
    assert int(neighbors.n_neighbors) == (np.bincount(expected[:, 0]).max() if len(expected) else 0)


def check_lists(spec):
    size, pbc = spec.size, spec.pbc
    cell, positions, real, rng = spec.build()
    first = updated(system_of(positions, cell, pbc, real), template(size, pbc))
    expect(first, positions, cell, pbc, real)

    i, j, shifts, distances = find_pairs(positions[real], cell, pbc, CUTOFF)
    expected, nearest = brute_force(positions[real], cell, pbc, CUTOFF)
    assume(nearest > 1e-9)
    found = np.column_stack([i, j, shifts])
    assert (found[np.lexsort(found.T[::-1])] == expected).all()
    apart = positions[real][j] - positions[real][i] + shifts @ cell
    np.testing.assert_allclose(np.linalg.norm(apart, axis=1), distances, atol=1e-9)

    # Within skin/2 the list is unchanged, and contains every pair that can interact.
    step = rng.normal(size=positions.shape)
    step *= 0.49 * SKIN * rng.uniform(size=(len(step), 1)) / np.linalg.norm(step, axis=1, keepdims=True)
    kept = updated(system_of(positions + step, cell, pbc, real), first)
    assert (kept.reference_positions == first.reference_positions).all()
    near, _ = brute_force((positions + step)[real], cell, pbc, CUTOFF)
    assert is_subset(near, pairs_of(kept))

    # One atom beyond skin/2: rebuilt exactly.
    moved = positions + step
    moved[0] = positions[0] + 0.51 * SKIN * np.sign(step[0] + 0.1)
    expect(updated(system_of(moved, cell, pbc, real), first), moved, cell, pbc, real)

    # A changed cell, with the atoms carried along.
    deform = np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))
    strained = updated(system_of(positions @ deform, cell @ deform, pbc, real), first)
    near, _ = brute_force((positions @ deform)[real], cell @ deform, pbc, CUTOFF)
    assert is_subset(near, pairs_of(strained)) and not strained.overflow
    if (strained.reference_cell != first.reference_cell).any():
        expect(strained, positions @ deform, cell @ deform, pbc, real)


def examples(n):
    """The same n cells every time."""
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@examples(30)
@given(specs)
def test_lists_equal_brute_force(spec):
    check_lists(spec)


@pytest.mark.slow
@examples(1000)
@given(specs)
def test_lists_of_many_cells_equal_brute_force(spec):
    check_lists(spec)
