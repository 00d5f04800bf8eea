"""Padded batches: they hold what the frames hold, in few shapes, in an order that can be repeated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd import potentials
from difmd.data import Frame, make_batches, nearest_distances, statistics
from difmd.errors import InputError
from difmd.forces import evaluate
from difmd.neighbors import find_pairs, neighbor_list
from difmd.potentials import lennard_jones, mace, switched
from difmd.system import host_system, make_system
from difmd.training import predict

CUTOFF = 5.0
RNG = np.random.default_rng(5)


def frames(sizes, pbc=True):
    """Random crystals of two elements with labels of a potential of their own."""
    result = []
    for k, n in enumerate(sizes):
        cells = np.ceil(n / 4)
        cell = np.diag([4.1 * cells, 4.0, 4.2]) + 0.2 * np.tri(3, k=-1)
        grid = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
        grid = np.concatenate([(grid + [c, 0, 0]) / [cells, 1, 1] for c in range(int(cells))])[:n]
        positions = grid @ cell + RNG.normal(0, 0.1, (n, 3))
        numbers = RNG.choice([18, 36], n)
        has = k % 3
        result.append(
            Frame(
                system=host_system(positions, numbers, cell=cell if pbc else None),
                energy=float(RNG.normal()) if has != 1 else None,
                forces=RNG.normal(size=(n, 3)) if has != 2 else None,
                stress=np.eye(3) if has == 0 and pbc else None,
                source=f"frame {k}",
            )
        )
    return result


@pytest.mark.quick("lennard_jones-False")
@pytest.mark.parametrize("pbc", [True, False])
@pytest.mark.parametrize("make", ["lennard_jones", "mace"])
def test_batch_agrees_with_single_frames(make, pbc):
    """Whatever it is padded with, and whatever else is in the batch."""
    data = frames([4, 8, 1, 3], pbc)
    batches = make_batches(data, cutoff=CUTOFF, batch_size=3, max_shapes=2)
    assert len(batches.shapes) <= 2 and batches.n_frames == 4
    potential = {
        "lennard_jones": lambda: lennard_jones(
            ["Ar", "Kr"], sigma=[3.4, 3.6], epsilon=0.01, cutoff=CUTOFF, truncation=switched(4.0)
        ),
        "mace": lambda: mace(["Ar", "Kr"], cutoff=CUTOFF, n_features=2, l_max=2, radial_hidden=(4,)),
    }[make]()
    params = potential.init(jax.random.key(0))
    seen = []
    compiled = jax.jit(lambda batch: predict(potential, params, batch))
    alone = jax.jit(lambda system, neighbors: evaluate(potential, params, system, neighbors))
    for batch in batches:
        predictions = compiled(batch)
        for row, place in enumerate(batch.frames):
            if place < 0:
                continue
            seen.append(place)
            frame = data[place]
            system = make_system(frame.positions, frame.numbers, cell=frame.cell if pbc else None)
            expected = alone(system, neighbor_list(system, cutoff=CUTOFF))
            np.testing.assert_allclose(predictions.energy[row], expected.energy, rtol=1e-12, atol=1e-13)
            np.testing.assert_allclose(predictions.forces[row][: frame.n_atoms], expected.forces, atol=1e-12)
            assert not np.any(predictions.forces[row][frame.n_atoms :])
            if pbc:
                np.testing.assert_allclose(predictions.stress[row], expected.stress, atol=1e-12)
            labels = jax.tree.map(lambda x, row=row: x[row], batch.labels)
            assert labels.has_energy == (frame.energy is not None)
            assert labels.has_forces == (frame.forces is not None)
            assert labels.has_stress == (frame.stress is not None)
            if frame.energy is not None:
                assert labels.energy == frame.energy
            if frame.forces is not None:
                np.testing.assert_array_equal(labels.forces[: frame.n_atoms], frame.forces)
    assert sorted(seen) == list(range(4))


def test_padded_batches_count_each_frame_once():
    data = frames([4, 4, 4, 4, 4])
    batches = make_batches(data, cutoff=CUTOFF, batch_size=4, max_shapes=1)
    assert len(batches) == 2
    last = list(batches)[-1]
    assert last.frames.tolist() == [4, -1, -1, -1]
    for name in ("has_energy", "has_forces", "has_stress"):
        assert not getattr(last.labels, name)[1:].any()


def test_epochs_are_shuffled_and_reproducible():
    batches = make_batches(frames([4, 8] * 6), cutoff=CUTOFF, batch_size=4, max_shapes=1)

    def order(seed, epoch):
        return [batches.batch(selection).frames.tolist() for selection in batches.epoch(seed, epoch)]

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4) and order(0, 3) != order(1, 3)
    assert sorted(sum(order(0, 3), [])) == [*range(12)]


def test_few_shapes_with_little_padding():
    sizes = RNG.permutation([4] * 20 + [5] * 20 + [16] * 6 + [40] * 3)
    data = frames(sizes)
    single = make_batches(data, cutoff=CUTOFF, batch_size=2, max_shapes=1)
    few = make_batches(data, cutoff=CUTOFF, batch_size=2, max_shapes=3)
    assert [shape.n_atoms for shape in single.shapes] == [40]
    assert [shape.n_atoms for shape in few.shapes] == [5, 16, 40]
    assert sum(len(b.frames) for b in few._buckets) == 49


def test_references_are_subtracted_in_double_precision():
    (frame,) = frames([4])
    frame = frame.replace(energy=-80000.123456789, system=frame.system.replace(atomic_numbers=np.full(4, 18)))
    batches = make_batches([frame], cutoff=CUTOFF, batch_size=1, references={18: -20000.0}, dtype=np.float32)
    (batch,) = batches
    assert batch.labels.energy.dtype == np.float32
    assert batch.labels.energy[0] == pytest.approx(-0.123456789, abs=1e-7)
    with pytest.raises(InputError, match=r"frame 0: no reference energy for the elements \[18\]"):
        make_batches([frame], cutoff=CUTOFF, batch_size=1, references={36: 1.0})


def test_statistics_of_data():
    data = frames([4, 8, 12])
    stats = statistics(data, cutoff=CUTOFF)
    assert stats.species == (18, 36)
    forces = np.concatenate([f.forces.reshape(-1) for f in data if f.forces is not None])
    assert stats.scale == pytest.approx(np.sqrt(np.mean(forces**2)))
    counted = [neighbor_list(make_system(f.positions, f.numbers, cell=f.cell), cutoff=CUTOFF) for f in data]
    used = sum(int(np.sum(np.asarray(c.indices) < c.parents.shape[0])) for c in counted)
    assert stats.avg_num_neighbors == pytest.approx(used / 24)


def test_nearest_distances_of_data():
    data = frames([4, 8, 12])
    nearest = nearest_distances(data, species=(18, 36, 54), cutoff=CUTOFF)
    expected = np.full((3, 3), CUTOFF)
    for frame in data:
        i, j, _, distances = find_pairs(frame.positions, frame.cell, frame.pbc, CUTOFF)
        for a, b, r in zip(frame.numbers[i] // 18 - 1, frame.numbers[j] // 18 - 1, distances, strict=True):
            expected[a, b] = min(expected[a, b], r)
    np.testing.assert_array_equal(nearest, expected)
    assert nearest[2, 0] == CUTOFF and (nearest[:2, :2] < CUTOFF).all()
    np.testing.assert_array_equal(nearest, nearest.T)
    with pytest.raises(InputError, match="contains Kr"):
        nearest_distances(data, species=(18,), cutoff=CUTOFF)


def test_invalid_input_is_refused():
    data = frames([4])
    with pytest.raises(InputError, match="no frames"):
        make_batches([], cutoff=CUTOFF, batch_size=1)
    with pytest.raises(InputError, match="cutoff"):
        make_batches(data, cutoff=0.0, batch_size=1)
    with pytest.raises(InputError, match="batch_size = 0"):
        make_batches(data, cutoff=CUTOFF, batch_size=0)
    far = frames([1], pbc=False)
    with pytest.raises(InputError, match="no atom has a neighbour"):
        statistics(far, cutoff=CUTOFF)


@pytest.mark.slow
@pytest.mark.parametrize("make", ["mace", "nequip", "invariant"])
def test_float32_networks_are_independent_of_padding_and_order(make):
    """To 1e-6 of the root mean square force; energies of an untrained network are too small to compare."""
    rng = np.random.default_rng(3)
    settings = {
        "mace": {"n_features": 4, "l_max": 2},
        "nequip": {"n_features": 4, "n_layers": 2},
        "invariant": {"n_features": 8},
    }[make]
    network = getattr(potentials, make)(["Ar", "Kr"], cutoff=CUTOFF, scale=0.5, **settings)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), network.init(jax.random.key(0)))
    compiled = jax.jit(lambda batch: predict(network, params, batch))
    # Disordered, so that forces are no small differences of large numbers.
    data = [
        Frame(
            system=host_system(
                frame.positions + rng.normal(0, 0.3, (frame.n_atoms, 3)), frame.numbers, cell=frame.cell
            )
        )
        for frame in frames([8, 6, 8, 7])
    ]
    orders = [rng.permutation(frame.n_atoms) for frame in data]
    turned = [
        frame.replace(
            system=host_system(frame.positions[order], frame.numbers[order], cell=frame.cell)
        )
        for frame, order in zip(data, orders, strict=True)
    ]  # fmt: skip

    def predicted(frames, **settings):
        batches = make_batches(frames, cutoff=CUTOFF, dtype=np.float32, **settings)
        values = {}
        for batch in batches:
            done = compiled(batch)
            for row, place in enumerate(batch.frames):
                if place >= 0:
                    values[int(place)] = np.asarray(done.forces[row][: frames[place].n_atoms])
        return [values[k] for k in range(len(frames))]

    alone = predicted(data, batch_size=1, max_shapes=4)
    together = predicted(data, batch_size=4, max_shapes=1)
    other_order = predicted(turned, batch_size=2, max_shapes=1)
    expected = np.concatenate(alone)
    size = np.sqrt(np.mean(expected**2))
    assert expected.dtype == np.float32 and size > 0.01
    assert np.sqrt(np.mean((np.concatenate(together) - expected) ** 2)) < 1e-6 * size
    permuted = np.concatenate([forces[order] for forces, order in zip(alone, orders, strict=True)])
    assert np.sqrt(np.mean((np.concatenate(other_order) - permuted) ** 2)) < 1e-6 * size
