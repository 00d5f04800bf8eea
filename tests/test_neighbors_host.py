"""`neighbor_list`, `grow` and the flags: selected cases, batches, and errors."""

import dataclasses
import math

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pairs import brute_force, is_subset, pairs_of

from difmd._internal import cpu_layout
from difmd._internal.pairs import find_pairs
from difmd.errors import Flag, InputError, Status, describe, flags_of
from difmd.neighbors import check, grid, grow, host, is_stale, neighbor_list, rebuild, types, update
from difmd.neighbors.device import _argsort, _rebuild, _unpack
from difmd.neighbors.types import extended_positions
from difmd.system import from_ase, make_system

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * np.sqrt(2)
BCC = np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]]) * np.sqrt(4 / 3)
updated = jax.jit(update)


def random_system(n_atoms=20, cell=None, pbc=None, spread=4.0, seed=0):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, spread, (n_atoms, 3))
    return make_system(positions, np.full(n_atoms, 18), cell=cell, pbc=pbc)


def assert_exact(system, neighbors, reach):
    expected, _ = brute_force(system.positions, system.cell, system.pbc, reach)
    assert len(expected) and np.array_equal(pairs_of(neighbors), expected)
    assert not neighbors.overflow and not neighbors.too_small


CASES = {
    "no cell": (random_system(), 2.0, 0.3),
    "wire": (random_system(cell=[[1.5, 1.0, 0], [0, 1, 0], [0, 0, 1]], pbc=[True, False, False]), 3, 0.1),
    "slab": (random_system(cell=[[2, 0, 0], [1, 2, 0], [0, 0, 0]], pbc=[True, True, False]), 2.5, 0.0),
    "crystal": (random_system(cell=[[4, 0, 0], [4, 3, 0], [-2, 1, 3]]), 2.9, 0.1),
    "left-handed": (random_system(cell=[[0, 4, 0], [4, 0, 0], [0, 0, 4]]), 2.9, 0.1),
}


@pytest.mark.parametrize("counted", ["on the host", "on the device"])
@pytest.mark.parametrize("case", CASES)
def test_lists_are_exact(case, counted, monkeypatch):
    system, cutoff, skin = CASES[case]
    if counted == "on the device":
        monkeypatch.setattr(host, "_COUNT_BELOW", 0)
    neighbors = neighbor_list(system, cutoff=cutoff, skin=skin)
    assert (neighbors.cutoff, neighbors.skin) == (cutoff, skin)
    assert_exact(system, neighbors, cutoff + skin)


@pytest.mark.parametrize(
    ("cell", "shells"),
    [
        (np.eye(3), {1.1: 6, 1.5: 18, 1.8: 26, 2.1: 32, 3.1: 122}),
        (FCC, {1.1: 12, 1.5: 18, 1.8: 42, 2.1: 54}),
        (BCC, {1.1: 8, 1.2: 14, 1.7: 26, 2.1: 58}),
    ],
    ids=["cubic", "fcc", "bcc"],
)
def test_one_atom_cells_have_the_coordination_of_their_lattice(cell, shells):
    system = make_system([[0.3, -7.2, 5.0]], [18], cell=cell)
    reach = max(shells)
    neighbors = neighbor_list(system, cutoff=reach)
    assert int(neighbors.n_neighbors) == shells[reach]
    pairs = pairs_of(neighbors)
    assert not pairs[:, :2].any()
    distance = np.linalg.norm(pairs[:, 2:] @ cell, axis=1)
    assert {r: int(np.sum(distance < r)) for r in shells} == shells


def test_single_atom_without_a_cell_has_no_neighbours():
    neighbors = neighbor_list(random_system(1), cutoff=2.0)
    assert len(pairs_of(neighbors)) == 0 and int(neighbors.n_neighbors) == 0


def test_a_batch_is_rebuilt_together_and_each_replica_is_exact():
    replicas = [random_system(cell=[4.0, 4.5, 5.0], spread=4.5, seed=seed) for seed in range(3)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *replicas)
    lists = neighbor_list(batch, cutoff=2.0, skin=0.2)
    take = lambda tree, r: jax.tree.map(lambda x: x[r], tree)  # noqa: E731
    for r, replica in enumerate(replicas):
        assert_exact(replica, take(lists, r), 2.2)

    follow = jax.jit(jax.vmap(update))
    kept = follow(batch.replace(positions=batch.positions + 0.05), lists)
    assert jnp.array_equal(kept.reference_positions, lists.reference_positions)
    # Only replica 1 moves far; all are rebuilt.
    jump = jnp.zeros_like(batch.positions).at[1, 0].set(1.0).at[0, 3].set(0.01)
    moved = batch.replace(positions=batch.positions + jump)
    after = follow(moved, lists)
    assert jnp.array_equal(after.reference_positions, moved.positions)
    for r in range(3):
        assert_exact(take(moved, r), take(after, r), 2.2)


def test_overflow_is_flagged_and_grow_repairs_it():
    system = random_system(cell=[4.0, 4.0, 4.0])
    full = neighbor_list(system, cutoff=2.0)
    small = neighbor_list(system, cutoff=2.0, capacity=1)
    assert small.capacity == 1 and bool(small.overflow)
    assert int(small.n_neighbors) == int(full.n_neighbors) > 1
    assert is_subset(pairs_of(small), pairs_of(full))
    status = check(system, small, Status.ok(), jnp.int32(3))
    assert flags_of(status) == Flag.NEIGHBOR_OVERFLOW and int(status.first_bad_step) == 3
    assert "slack" in describe(status) and "step 3" in describe(status)
    assert_exact(system, grow(system, small), 2.0)


@pytest.mark.parametrize("where", ["images", "runs"])
def test_overflow_of_images_and_of_runs_is_flagged(where):
    system = random_system(cell=[4.0, 4.0, 4.0])
    ample = neighbor_list(system, cutoff=1.5)
    if where == "images":
        room = int(ample.n_extended) - 1
        tight = ample.replace(parents=ample.parents[:room], images=ample.images[:, :room])
    else:
        tight = dataclasses.replace(ample, grid=ample.grid._replace(capacity=int(ample.n_in_run) - 1))
    tight = jax.jit(rebuild)(system, tight)
    assert bool(tight.overflow)
    assert int(tight.indices.max()) <= tight.parents.shape[-1]
    assert_exact(system, grow(system, tight), 1.5)


@pytest.mark.quick("False")
@pytest.mark.parametrize("batched", [False, True])
def test_blocks_of_a_large_system_give_the_same_list(batched, monkeypatch):
    """With a last block that overlaps the previous one, and columns that pad."""
    system = random_system(cell=[4.0, 4.0, 4.0])
    if batched:
        other = random_system(cell=[4.0, 4.0, 4.0], seed=1)
        system = jax.tree.map(lambda *x: jnp.stack(x), system, other)
    whole = neighbor_list(system, cutoff=1.5, skin=0.2)
    assert whole.indices.shape[-1] == 20
    with monkeypatch.context() as patch:
        patch.setattr(cpu_layout, "_SHORT", 0)
        padded = neighbor_list(system, cutoff=1.5, skin=0.2)
    assert padded.indices.shape[-1] > 20
    monkeypatch.setattr(cpu_layout, "SEARCHED", 9)
    plain, begun = cpu_layout.split, []
    monkeypatch.setattr(cpu_layout, "split", lambda *given: begun.append(plain(*given)) or begun[-1])
    # `rebuild` itself would reuse the trace with blocks of the usual size.
    untraced = lambda s, n: _rebuild.__wrapped__(s, n, None)  # noqa: E731
    build = jax.jit(jax.vmap(untraced) if batched else untraced)
    parts, parts_padded = build(system, whole), build(system, padded)
    (starts, length), others = begun
    assert starts.tolist() == [0, 7, 13] and length == 7 and len(others[0]) > 3
    for found in (parts, padded, parts_padded):
        np.testing.assert_array_equal(found.indices[..., :20], whole.indices)
        np.testing.assert_array_equal(found.n_neighbors, whole.n_neighbors)
        assert np.all(np.asarray(found.indices[..., 20:]) == whole.parents.shape[-1])
        np.testing.assert_array_equal(found.rank, whole.rank)


def test_open_crystals_get_no_more_slots_than_they_need():
    """The cost of a Tersoff potential grows as their square; a liquid of this density would get 16."""
    silicon = from_ase(ase.build.bulk("Si", "diamond", a=5.43, cubic=True) * (4, 4, 4))
    neighbors = neighbor_list(silicon, cutoff=3.0, skin=0.3)
    assert int(neighbors.n_neighbors) == 4 and neighbors.capacity <= 8
    assert grid.round_to_groups(1.1 * grid.liquid_neighbors(silicon, 3.3)) == 16


@pytest.mark.parametrize("largest", [0, 1, 300, 2**20, 2**31 - 2])
def test_sorting_is_stable_for_keys_of_any_number_of_words(largest):
    keys = np.random.default_rng(0).integers(0, largest + 1, 5000).astype(np.int32)
    expected = np.argsort(keys, kind="stable")
    np.testing.assert_array_equal(_argsort(jnp.asarray(keys), largest), expected)


@pytest.mark.parametrize("n_replicas", [1, 3, 64, 128, 512])
@pytest.mark.parametrize("n_atoms", [1, 256, 4000, 16_384, 32_768, 256_000])
def test_lengths_of_large_arrays_stay_off_multiples_of_four_kibibytes(n_atoms, n_replicas, monkeypatch):
    monkeypatch.setattr(cpu_layout, "n_cores", lambda: 2)
    n = cpu_layout.columns(n_atoms, n_replicas)
    if n_atoms * n_replicas < 2048 or n_replicas == 512:
        assert n == n_atoms
    else:
        assert n_atoms <= n <= n_atoms + 144 and 64 <= n * n_replicas % 512 <= 448


@pytest.mark.parametrize("n_cores", [1, 2, 6, 7, 29, 36, 48])
@pytest.mark.parametrize("n_atoms", [60_001, 1_000_003])
def test_cores_share_the_columns_of_a_large_system_equally(n_atoms, n_cores, monkeypatch):
    monkeypatch.setattr(cpu_layout, "n_cores", lambda: n_cores)
    n = cpu_layout.columns(n_atoms, 1)
    assert n % math.lcm(16, n_cores) == 0 and n_atoms <= n <= 1.02 * n_atoms and 64 <= n % 512 <= 448


@pytest.mark.parametrize("n", [1, 16_040, 16_041, 20_000, 64_161, 256_000, 1_000_000])
@pytest.mark.parametrize("size", [cpu_layout.SUMMED, cpu_layout.SEARCHED])
def test_blocks_are_equal_and_overlap_little(n, size, monkeypatch):
    monkeypatch.setattr(cpu_layout, "n_cores", lambda: 2)
    parts = cpu_layout.split(n, size)
    if n <= size:
        assert parts is None
        return
    starts, length = parts
    covered = np.concatenate([np.arange(start, start + length) for start in starts])
    np.testing.assert_array_equal(np.unique(covered), np.arange(n))
    assert length * (len(starts) - 1) < n  # only the last may overlap
    assert len(covered) <= 1.02 * n and length <= 1.01 * size and 64 <= length % 512 <= 448


def test_more_positions_than_a_word_can_count_are_refused():
    """Positions and words of comparisons share 32 bits."""
    masks = jnp.zeros((28, 4), jnp.uint32).at[-1].set(1)
    starts = jnp.zeros((28, 4), jnp.int32).at[-1].set(2**27 - 1)
    into = jnp.zeros((8, 4), jnp.int32)
    with jax.enable_x64(False):
        assert np.all(np.asarray(_unpack(masks, starts, into, jnp.int32(0), 2**27 - 1)) == 2**27 - 1)
    assert np.all(np.asarray(_unpack(masks, starts, into, jnp.int32(0), 2**27 - 1)) == 2**27 - 1)
    with pytest.raises(InputError, match="134217728 positions with 27 words"):
        _unpack(masks, starts, into, jnp.int32(0), 2**27)


def test_a_cell_without_volume_is_refused():
    system = random_system(cell=[4.0, 4.0, 4.0])
    flat = system.replace(cell=jnp.asarray([[4.0, 0, 0], [0, 4, 0], [4, 4, 0]]))
    with pytest.raises(InputError, match="cell is singular"):
        neighbor_list(flat, cutoff=1.5)


def test_indices_stay_in_bounds_after_any_overflow():
    """Gathers rely on it, as the flag is read only afterwards."""
    system = random_system(cell=[4.0, 4.0, 4.0])
    ample = neighbor_list(system, cutoff=1.5)
    build = jax.jit(rebuild)
    for room in (21, 40, 60, 90, int(ample.n_extended) - 1):
        tight = build(system, ample.replace(parents=ample.parents[:room], images=ample.images[:, :room]))
        assert bool(tight.overflow)
        assert 0 <= int(tight.indices.min()) and int(tight.indices.max()) <= room
        assert 0 <= int(tight.centers.min()) and int(tight.centers.max()) <= room + 1
        np.testing.assert_array_equal(np.sort(tight.order), np.arange(20))


def test_bins_do_not_depend_on_positions():
    """The order of sums depends on the bins, and a continued run must reproduce an uninterrupted one."""
    one = random_system(n_atoms=60, cell=[9.0, 9.0, 9.0], spread=9.0, seed=1)
    other = one.replace(positions=0.2 * one.positions)
    for pbc in (True, False):
        grids = [
            neighbor_list(system.replace(pbc=jnp.full(3, pbc)), cutoff=2.0, skin=0.3).grid
            for system in (one, other)
        ]
        assert grids[0][:2] == grids[1][:2]


def test_compression_overflows_and_a_smaller_cell_is_too_small():
    system = random_system(cell=[4.0, 4.0, 4.0])
    neighbors = neighbor_list(system, cutoff=3.9)
    assert neighbors.ranges == (1, 1, 1)
    squeezed = system.replace(positions=0.95 * system.positions, cell=0.95 * system.cell)
    found = updated(squeezed, neighbors)
    assert bool(found.too_small)
    flags = flags_of(check(squeezed, found, Status.ok(), jnp.int32(0)))
    assert Flag.CELL_TOO_SMALL in flags
    assert_exact(squeezed, neighbor_list(squeezed, cutoff=3.9), 3.9)


@pytest.mark.parametrize(
    ("move", "strain", "stale"),
    [
        (0.0, 0.0, False),
        (0.14, 0.0, False),
        (0.16, 0.0, True),
        (0.0, 0.01, False),
        (0.0, 0.05, True),
        (np.nan, 0.0, False),
    ],
)
def test_stale_exactly_when_an_atom_moved_more_than_half_the_skin(move, strain, stale):
    system = random_system(cell=[4.0, 4.0, 4.0])
    neighbors = neighbor_list(system, cutoff=2.0, skin=0.3)
    moved = system.replace(positions=system.positions.at[4, 1].add(move), cell=system.cell * (1 + strain))
    assert bool(is_stale(moved, neighbors)) == stale
    flags = flags_of(check(moved, neighbors, Status.ok(), jnp.int32(0)))
    assert flags == (Flag.NEIGHBOR_STALE if stale else Flag(0))


def test_padding_never_makes_a_list_stale():
    system = random_system(cell=[4.0, 4.0, 4.0])
    system = system.replace(atomic_numbers=system.atomic_numbers.at[4].set(0))
    neighbors = neighbor_list(system, cutoff=2.0, skin=0.3)
    moved = system.replace(positions=system.positions.at[4].add(3.0))
    assert not is_stale(moved, neighbors) and 4 not in pairs_of(neighbors)[:, :2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutoff": 0.0}, "cutoff = 0.0"),
        ({"cutoff": np.nan}, "cutoff = nan"),
        ({"cutoff": np.inf}, "cutoff = inf"),
        ({"cutoff": 2.0, "skin": -0.1}, "skin = -0.1"),
        ({"cutoff": 2.0, "slack": 0.9}, "slack = 0.9"),
        ({"cutoff": 2.0, "capacity": 0}, "capacity = 0"),
    ],
)
def test_invalid_arguments(options, message):
    with pytest.raises(InputError, match=message):
        neighbor_list(random_system(), **options)


def test_positions_that_are_not_finite_and_replicas_of_different_pbc_are_refused():
    system = random_system(cell=[4.0, 4.0, 4.0])
    with pytest.raises(InputError, match="not finite"):
        neighbor_list(system.replace(positions=system.positions.at[2].set(jnp.nan)), cutoff=2.0)
    other = system.replace(pbc=jnp.array([True, True, False]))
    batch = jax.tree.map(lambda *x: jnp.stack(x), system, other)
    with pytest.raises(InputError, match="must share pbc"):
        neighbor_list(batch, cutoff=2.0)


def test_padding_points_follow_long_and_short_arrays(monkeypatch):
    system = random_system(cell=[4.0, 4.0, 4.0])
    neighbors = neighbor_list(system, cutoff=1.5)
    short = extended_positions(system, neighbors)
    monkeypatch.setattr(types, "_LONG", 0)
    for long, axis in zip(extended_positions(system, neighbors), short, strict=True):
        np.testing.assert_array_equal(long, axis)
        assert axis[-2] == 1e6 and axis[-1] == -1e6


@pytest.mark.slow
@pytest.mark.parametrize("pbc", [[False] * 3, [True, False, False], [False, True, False]])
@pytest.mark.parametrize("size", [5.0, 500.0, 5e6])
def test_pairs_of_atoms_in_a_plane_and_on_a_line(pbc, size):
    """At any distance: without an extent there are no bins."""
    rng = np.random.default_rng(0)
    x = size * rng.uniform(size=(40, 3))
    x[:20] = x[20:] + 0.4
    for squeeze in ([0, 1, 1], [0, 0, 1], [1e-9, 1, 1]):
        points = x * np.asarray(squeeze)
        cell = np.diag([2 * size, 3 * size, size])
        i, j, _, distance = find_pairs(points, cell, pbc, cutoff=1.0)
        apart = points[None] - points[:, None]
        period = np.where(pbc, np.diag(cell), np.inf)
        apart -= np.where(pbc, np.round(apart / period) * np.where(pbc, period, 0), 0)
        square = np.sum(apart**2, axis=-1)
        expected = np.argwhere((square < 1) & ~np.eye(40, dtype=bool))
        np.testing.assert_array_equal(np.sort(i * 40 + j), np.sort(expected @ [40, 1]))


def test_lists_of_another_system_are_refused():
    system = random_system(cell=[4.0, 4.0, 4.0])
    neighbors = neighbor_list(system, cutoff=1.5, skin=0.2)
    larger = random_system(21, cell=[4.0, 4.0, 4.0])
    slab = system.replace(pbc=np.array([True, True, False]))
    both = jax.tree.map(lambda x: np.stack([x, x]), system)
    for function in (update, rebuild, is_stale):
        for wrong, match in (
            (larger, "is for 20 atoms, but the system has 21"),
            (slab, r"for pbc = \[True, True, True\], but the system has \[True, True, False\]"),
            (both, "system holds 2 replicas"),
        ):
            with pytest.raises(InputError, match=match):
                function(wrong, neighbors)
        with pytest.raises(InputError, match="is for 20 atoms"):
            jax.jit(function)(larger, neighbors)
    with pytest.raises(InputError, match="neighbors is a list for 20 atoms, but the system has 21"):
        grow(larger, neighbors)
    with pytest.raises(InputError, match="like is a list for 20 atoms"):
        neighbor_list(larger, cutoff=1.5, like=neighbors)


def test_a_list_prints_its_capacity():
    text = repr(neighbor_list(random_system(cell=[4.0, 4.0, 4.0]), cutoff=1.5, skin=0.2))
    assert text.startswith("Neighbors: 20 atoms\n  cutoff: 1.5 Å + skin 0.2 Å") and text.count("\n") < 6
