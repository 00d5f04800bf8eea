"""The pair potential behind the examination: its derivatives, and recovery of a pair potential."""

import numpy as np
import pytest
from pairs import brute_force

from difmd.data import Frame
from difmd.data.examination.geometry import displacement, find_pairs_once, nearest_ratios
from difmd.data.examination.pair_model import fit_pair_model, predict
from difmd.system import host_system

CELL = np.array([[9.0, 0, 0], [1.0, 9.5, 0], [-1.5, 0.5, 10.0]])
NUMBERS = np.array([29, 47] * 16)


def make(seed, positions=None, cell=CELL, periodic=True):
    rng = np.random.default_rng(seed)
    if positions is None:
        corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
        cells = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
        positions = (cells + corners).reshape(-1, 3) / 2 @ cell + rng.normal(0, 0.15, (32, 3))
    return Frame(system=host_system(positions, NUMBERS, cell=cell, pbc=periodic))


def morse(frame):
    """Forces of a Morse potential, D = 0.3 eV, r₀ = 2.9 Å, that is nothing from 5.5 Å on."""
    pairs = find_pairs_once(frame, 5.5)
    stretched = np.exp(-1.3 * (pairs.distances - 2.9))
    slope = 0.3 * 2 * 1.3 * (stretched - stretched**2) * (1 - (pairs.distances / 5.5) ** 2) ** 2
    pull = (slope / pairs.distances)[:, None] * pairs.vectors
    forces = np.zeros((frame.n_atoms, 3))
    np.add.at(forces, pairs.i, pull)
    np.add.at(forces, pairs.j, -pull)
    return frame.replace(forces=forces)


@pytest.fixture(scope="module")
def model():
    return fit_pair_model([morse(make(seed)) for seed in range(20)])


def energy(model, frame):
    return predict(model, frame, find_pairs_once(frame, model.cutoff)).energy


def test_fit_recovers_the_forces_of_a_pair_potential(model):
    assert model.correlation > 0.995 and set(model.kinds) == {(29, 29), (29, 47), (47, 47)}
    frame = morse(make(99))
    guess = predict(model, frame, find_pairs_once(frame, model.cutoff))
    assert np.std(guess.forces - frame.forces) < 0.1 * np.std(frame.forces)


def test_derivatives(model):
    frame = make(50)
    guess = predict(model, frame, find_pairs_once(frame, model.cutoff))
    h = 1e-4
    numerical = np.zeros((32, 3))
    laplacian = 0.0
    for atom, axis in np.ndindex(32, 3):
        step = np.zeros((32, 3))
        step[atom, axis] = h
        up, down = (energy(model, make(0, frame.positions + s)) for s in (step, -step))
        numerical[atom, axis] = (down - up) / (2 * h)
        laplacian += (up + down - 2 * guess.energy) / h**2
    np.testing.assert_allclose(guess.forces, numerical, atol=1e-6)
    assert guess.laplacian == pytest.approx(laplacian, rel=1e-4)
    virial = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[i, j] = h
        up, down = (
            energy(model, make(0, frame.positions @ (np.eye(3) + s).T, CELL @ (np.eye(3) + s).T))
            for s in (strain, -strain)
        )
        virial[i, j] = (up - down) / (2 * h)
    np.testing.assert_allclose(guess.virial, virial, atol=1e-5)


def test_too_few_forces_give_no_model():
    assert fit_pair_model([]) is None
    assert fit_pair_model([make(0)]) is None
    far = Frame(system=host_system(40.0 * np.eye(3), [6, 6, 6]), forces=np.zeros((3, 3)))
    assert fit_pair_model([far] * 20) is None


@pytest.mark.parametrize("periodic", [True, False])
def test_each_pair_occurs_once(periodic):
    frame = make(3, periodic=periodic)
    pairs = find_pairs_once(frame, 6.0)
    both, _ = brute_force(frame.positions, CELL, [periodic] * 3, 6.0)
    assert 2 * len(pairs.i) == len(both)
    np.testing.assert_allclose(np.linalg.norm(pairs.vectors, axis=1), pairs.distances, rtol=1e-12)
    small = Frame(system=host_system(np.zeros((1, 3)), [29], cell=[2.5, 3.0, 9.0]))
    # An atom and its images: each direction once.
    assert sorted(np.round(find_pairs_once(small, 3.5).distances, 3)) == [2.5, 3.0]
    ratios, (i, j, distance) = nearest_ratios(small)
    assert (i, j, distance) == (0, 0, 2.5) and ratios[0] == pytest.approx(2.5 / 2.64)


def test_displacements():
    frame = make(1)
    shift = np.random.default_rng(5).normal(0, 0.1, (32, 3))
    other = make(0, frame.positions + shift + np.array([1, -2, 0]) @ CELL)
    moved, rotation = displacement(frame, other)
    np.testing.assert_allclose(moved, shift, atol=1e-12)
    np.testing.assert_array_equal(rotation, np.eye(3))
    assert displacement(frame, make(0, frame.positions, CELL * 1.001)) is None
    # A molecule is turned back, and its forces with it; a mirror image is not.
    first = make(1, periodic=False)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    second = make(0, first.positions @ turn + 3.0, periodic=False)
    moved, rotation = displacement(first, second)
    assert np.abs(moved).max() < 1e-12
    np.testing.assert_allclose(turn @ rotation, np.eye(3), atol=1e-12)
    mirror = make(0, first.positions * [1, 1, -1], periodic=False)
    assert np.abs(displacement(first, mirror)[0]).max() > 0.5
