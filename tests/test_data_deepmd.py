"""DeePMD folders, sound and broken."""

import shutil

import numpy as np
import pytest
from labelled import CELL, check, configuration

from difmd.data import read
from difmd.errors import InputError


def write_deepmd(folder, seeds, number=0):
    folder.mkdir(exist_ok=True)
    (folder / "type.raw").write_text("0\n1\n1\n2\n")
    (folder / "type_map.raw").write_text("O\nH\nC\n")
    part = folder / f"set.{number:03d}"
    part.mkdir()
    configurations = [configuration(seed) for seed in seeds]
    volume = configurations[0][0].get_volume()
    np.save(part / "coord.npy", [atoms.positions.ravel() for atoms, _ in configurations])
    np.save(part / "box.npy", [CELL.ravel() for _ in configurations])
    np.save(part / "energy.npy", [labels["energy"] for _, labels in configurations])
    np.save(part / "force.npy", [labels["forces"].ravel() for _, labels in configurations])
    np.save(part / "virial.npy", [-labels["stress"].ravel() * volume for _, labels in configurations])


def test_deepmd(tmp_path):
    folder = tmp_path / "water"
    write_deepmd(folder, [0, 1])
    write_deepmd(folder, [2], number=1)
    frames = read(folder)
    assert frames[2].source == "water, set.001, frame 0 (counted from 0)"
    places = [f.replace(source=f"frame {i} (counted from 0)") for i, f in enumerate(frames)]
    check(places, kind="", names=("energy", "forces", "stress"))
    # Several systems below one folder.
    write_deepmd(tmp_path / "ice", [0])
    assert [f.source.split(",")[0].split("/")[-1] for f in read(tmp_path)] == [
        "ice",
        "water",
        "water",
        "water",
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "type_map.raw").unlink(), "type_map.raw is missing: write the symbol"),
        (lambda f: (f / "type_map.raw").write_text("O Xx C"), "'Xx' is not a chemical symbol"),
        (lambda f: (f / "type_map.raw").write_text("O H"), "type 2 is not among the 2"),
        (lambda f: shutil.rmtree(f / "set.000"), r"contains no folder set\.\*"),
        (lambda f: (f / "set.000/coord.npy").unlink(), "coord.npy is missing"),
        (lambda f: (f / "set.000/box.npy").unlink(), "box.npy is missing: add it, or an empty file nopbc"),
        (
            lambda f: np.save(f / "set.000/force.npy", np.zeros((2, 9))),
            r"force.npy has shape \[2, 9\], not \[2, 12\]",
        ),
        (
            lambda f: np.save(f / "set.000/energy.npy", np.zeros(3)),
            r"energy.npy has shape \[3\], not \[2, 1\]",
        ),
        (lambda f: np.save(f / "set.000/energy.npy", np.array([{}, 1])), "energy.npy cannot be read"),
    ],
)
def test_broken_deepmd(tmp_path, spoil, message):
    write_deepmd(tmp_path / "a", [0, 1])
    spoil(tmp_path / "a")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a")


def test_deepmd_without_a_cell_and_with_mixed_types(tmp_path):
    folder = tmp_path / "a"
    write_deepmd(folder, [0, 1])
    (folder / "set.000/box.npy").unlink()
    (folder / "nopbc").touch()
    np.save(folder / "set.000/real_atom_types.npy", [[0, 1, 1, 2], [2, 1, -1, 0]])
    with pytest.warns(UserWarning, match="virial of 2 frames ignored"):
        first, second = read(folder)
    # There is no stress without a volume.
    assert not first.pbc.any() and first.labels == ("energy", "forces")
    assert list(second.numbers) == [6, 1, 8] and second.forces.shape == (3, 3)
