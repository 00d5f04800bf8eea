"""Radial distribution functions against crystals and an ideal gas."""

import ase.build
import jax
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.observables import radial_distribution
from difmd.system import host_system
from difmd.trajectory import Frames, Trajectory


def test_shells_of_a_crystal():
    """Rock salt: 6 unlike at a/2, 12 like at a/√2, also where the distance exceeds half of the cell."""
    salt = difmd.from_ase(ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    unlike = radial_distribution([salt], first=11, second=17, r_max=4.5, n_bins=450)
    assert unlike.coordination[-1] == pytest.approx(6) and unlike.n_frames == 1
    assert unlike.peak(2, 4) == pytest.approx(2.82, abs=0.01)
    like = radial_distribution([salt], first=11, second=11, r_max=4.5, n_bins=450)
    assert like.coordination[-1] == pytest.approx(12)
    assert like.peak(3, 4.4) == pytest.approx(5.64 / np.sqrt(2), abs=0.01)
    assert np.isnan(like.stderr).all()
    by_symbol = radial_distribution(difmd.to_ase(salt), first="Na", second="Cl", r_max=4.5, n_bins=450)
    np.testing.assert_array_equal(by_symbol.g, unlike.g)
    assert "maximum: g(2.8" in repr(unlike)


def test_an_ideal_gas_has_no_structure():
    rng = np.random.default_rng(0)
    cell = np.array([[9.0, 0, 0], [1.0, 8.0, 0], [-1.0, 2.0, 10.0]])
    numbers = np.array([1] * 40 + [8] * 60 + [0] * 3)
    gas = [host_system(rng.uniform(size=(103, 3)) @ cell, numbers, cell=cell) for _ in range(60)]
    found = radial_distribution(gas, first=1, second=8, r_max=7.0, n_bins=14)
    # 2400 atoms in the middle; 21 atoms in the fourth shell.
    assert np.abs(found.g[3:] - 1).max() < 0.1
    assert np.all(np.abs(found.g - 1)[3:] < 6 * found.stderr[3:])
    assert np.all(found.stderr[3:] < 0.05)
    density = 60 / abs(np.linalg.det(cell))
    assert found.coordination[-1] == pytest.approx(4 / 3 * np.pi * 343 * density, rel=0.02)


def test_a_peak_lies_between_bins():
    r = np.arange(0.02, 6, 0.04)
    g = 3 * np.exp(-((r - 2.731) ** 2) / 0.02) + 1.2 * np.exp(-((r - 4.5) ** 2) / 0.2)
    found = difmd.observables.RadialDistribution(r, g, g, g, 1)
    assert found.peak(2, 3.5) == pytest.approx(2.731, abs=0.005)
    assert found.peak(3.5, 5.5) == pytest.approx(4.5, abs=0.005)
    # Counts of a broad peak scatter by a tenth.
    noisy = g * (1 + 0.1 * np.random.default_rng(0).normal(size=g.shape))
    assert found._replace(g=noisy).peak(3.5, 5.5) == pytest.approx(4.5, abs=0.04)
    with pytest.raises(InputError, match="no peak between 7 and 8"):
        found.peak(7, 8)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"r_max": -1.0}, "r_max"),
        ({"n_bins": 0}, "n_bins = 0"),
        ({"second": 3}, "configuration 0 has no atoms of atomic number 3"),
        ({"first": 3}, "configuration 0 has no atoms of atomic number 3"),
        ({"systems": []}, "there are no configurations"),
        ({"systems": [host_system([[0.0, 0, 0]], [11])]}, "configuration 0 is not periodic"),
    ],
)
def test_bad_input(change, match):
    salt = host_system([[0.0, 0, 0], [2, 2, 2]], [11, 17], cell=[4.0] * 3)
    wanted = {"systems": [salt], "first": 11, "second": 17, **change}
    with pytest.raises(InputError, match=match):
        radial_distribution(wanted.pop("systems"), **wanted)


def test_replicas_of_a_trajectory_are_averaged_in_each_frame():
    rng = np.random.default_rng(1)
    one = difmd.make_system(rng.uniform(0, 6, (20, 3)), [18] * 20, cell=[6.0] * 3)
    frames = rng.uniform(0, 6, (3, 2, 20, 3))
    systems = jax.tree.map(lambda x: np.stack([x, x]), one)
    run = Trajectory(system=systems, frames=Frames(frames, 0 * frames), steps=np.arange(3), dt=1.0)
    kwargs = {"first": "Ar", "second": "Ar", "r_max": 4.0, "n_bins": 8}
    averaged = radial_distribution(run, **kwargs)
    each = [one.replace(positions=x) for x in frames.reshape(6, 20, 3)]
    alone = radial_distribution(each, **kwargs)
    assert averaged.n_frames == 3 and alone.n_frames == 6
    np.testing.assert_allclose(averaged.g, alone.g, rtol=1e-12)
    np.testing.assert_allclose(averaged.coordination, alone.coordination, rtol=1e-12)
