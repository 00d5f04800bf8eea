"""HDF5 files, sound and broken."""

import sys

import numpy as np
import pytest
from labelled import CELL, check, configuration

from difmd.data import read
from difmd.errors import InputError


def write_hdf5(path):
    h5py = pytest.importorskip("h5py")
    configurations = [configuration(seed) for seed in range(3)]
    with h5py.File(path, "w") as file:
        group = file.create_group("set/water")
        group["atomic_numbers"] = configurations[0][0].numbers
        group["positions"] = [atoms.positions for atoms, _ in configurations]
        group["cell"] = CELL
        for name in ("energy", "forces", "stress", "dipole", "charges"):
            group[name] = np.array([labels[name] for _, labels in configurations])
        group.attrs["config_type"] = "liquid"
    return h5py


def test_hdf5(tmp_path):
    write_hdf5(tmp_path / "a.h5")
    check(read(tmp_path / "a.h5"))


def test_broken_hdf5(tmp_path):
    h5py = write_hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["set/water/energy"]
        file["set/water/energy"] = np.zeros(2)
    with pytest.raises(InputError, match=r"group set/water: energy has shape \[2\], not \[3 frames"):
        read(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_text("no")
    with pytest.raises(InputError, match=r"b.h5: HDF5 cannot open it"):
        read(tmp_path / "b.h5")


def test_hdf5_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").write_text("no")
    with pytest.raises(InputError, match="h5py is needed for HDF5 files: pip install h5py"):
        read(tmp_path / "a.h5")
