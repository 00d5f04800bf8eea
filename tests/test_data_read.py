"""`difmd.data.read`: files of ASE, names of labels, and files that hold none."""

import ase
import ase.io
import jax
import numpy as np
import pytest
from ase.db import connect
from labelled import CELL, STRESS, check, configuration, text_of, with_calculator

from difmd import lennard_jones, make_system, neighbor_list, units
from difmd.data import Frame, Keys, read, stream
from difmd.errors import InputError


@pytest.fixture
def images():
    return [with_calculator(seed) for seed in range(3)]


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz", "a.traj", "a.db"])
def test_files_written_by_ase(tmp_path, images, name):
    path = tmp_path / name
    if name.endswith(".db"):
        with connect(path) as database:
            for atoms in images:
                database.write(atoms, config_type="liquid")
    else:
        ase.io.write(path, images, format="extxyz" if "xyz" in name else None)
    check(read(path))
    assert [frame.energy for frame in stream(path)] == [-10.0, -11.0, -12.0]


def test_labels_with_other_names(tmp_path):
    images = []
    for seed in range(3):
        atoms, labels = configuration(seed)
        atoms.info |= {
            "REF_energy": labels["energy"],
            "virials": -labels["stress"].ravel() * 253.0,
            "group": "a",
        }
        atoms.arrays |= {"REF_forces": labels["forces"], "q": labels["charges"]}
        atoms.info["mu"] = labels["dipole"]
        images.append(atoms)
    assert abs(images[0].get_volume() - 247.0) < 10
    ase.io.write(tmp_path / "a.xyz", images)
    frames = read(tmp_path / "a.xyz", keys=Keys(dipole="mu", charges="q"))
    scale = 253.0 / images[0].get_volume()
    check([f.replace(stress=f.stress / scale) for f in frames], kind="a")
    assert read(tmp_path / "a.xyz")[0].labels == ("energy", "forces", "stress")


def test_free_energy_has_priority(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [with_calculator(s, free_energy=-1.5) for s in range(2)])
    assert [frame.energy for frame in read(tmp_path / "a.xyz")] == [-1.5, -1.5]
    assert read(tmp_path / "a.xyz", keys=Keys(energy="energy"))[0].energy == -10.0


def test_different_names_of_energies_warn(tmp_path):
    second, labels = configuration(1)
    second.info["REF_energy"] = labels["energy"]
    ase.io.write(tmp_path / "a.xyz", [with_calculator(0), second])
    with pytest.warns(UserWarning, match=r"different names .*energy in 1, REF_energy in 1"):
        read(tmp_path / "a.xyz")


def test_vasprun(tmp_path):
    def vectors(name, rows):
        lines = "".join(f"<v>{' '.join(f'{x:.8f}' for x in row)}</v>" for row in rows)
        return f'<varray name="{name}">{lines}</varray>'

    text = "<modeling><kpoints/><atominfo><array name='atoms'><set>"
    text += "".join(f"<rc><c>{s}</c><c>1</c></rc>" for s in "OHHC") + "</set></array></atominfo>"
    for seed in range(3):
        atoms, labels = configuration(seed)
        crystal = f"<crystal>{vectors('basis', CELL)}</crystal>"
        places = crystal + vectors("positions", atoms.get_scaled_positions())
        if seed == 0:
            text += f"<structure name='initialpos'>{places}</structure>"
        energy = (
            f"<i name='e_fr_energy'>{labels['energy']}</i><i name='e_0_energy'>{labels['energy'] + 1}</i>"
        )
        energy += f"<i name='e_wo_entrp'>{labels['energy'] + 2}</i>"
        text += f"<calculation><scstep><energy>{energy}</energy></scstep><structure>{places}</structure>"
        # VASP gives kbar with compression positive.
        text += vectors("forces", labels["forces"]) + vectors("stress", -labels["stress"] / units.GPA * 10)
        text += f"<energy>{energy}</energy></calculation>"
    (tmp_path / "vasprun.xml").write_text(text + "</modeling>")
    frames = read(tmp_path / "vasprun.xml")
    for seed, frame in enumerate(frames):
        np.testing.assert_allclose(frame.stress, STRESS * (1 + seed), rtol=1e-5)
    check(
        [f.replace(stress=STRESS * (1 + s)) for s, f in enumerate(frames)],
        kind="",
        names=("energy", "forces", "stress"),
    )


def test_virials_of_slabs_are_ignored_with_a_warning(tmp_path):
    atoms, labels = configuration(0)
    atoms.info |= {"energy": labels["energy"], "virial": labels["stress"].ravel()}
    atoms.pbc = [True, True, False]
    ase.io.write(tmp_path / "a.xyz", [atoms, atoms])
    with pytest.warns(UserWarning, match="virial of 2 frames ignored: without three periodic"):
        frames = read(tmp_path / "a.xyz")
    assert [frame.labels for frame in frames] == [("energy",)] * 2


def test_missing_empty_and_unknown_files(tmp_path):
    text_of(tmp_path)
    with pytest.raises(InputError, match=r"no file .*god.xyz: did you mean good.xyz\?"):
        read(tmp_path / "god.xyz")
    with pytest.raises(InputError, match=r"nowhere does not exist either"):
        read(tmp_path / "nowhere" / "a.xyz")
    (tmp_path / "empty.xyz").touch()
    with pytest.raises(InputError, match="empty.xyz is empty: 0 bytes"):
        read(tmp_path / "empty.xyz")
    (tmp_path / "blank.xyz").write_text("\n")
    with pytest.raises(InputError, match="blank.xyz contains no valid frame: it is empty"):
        read(tmp_path / "blank.xyz")
    (tmp_path / "notes.dat").write_text("hello\n")
    with pytest.raises(InputError, match=r"notes.dat: frame 0 .*ASE cannot read it"):
        read(tmp_path / "notes.dat")
    with pytest.raises(
        InputError, match=r"is a folder without a DeePMD system .* give one of its files: blank.xyz"
    ):
        read(tmp_path)


def test_file_without_labels_is_refused(tmp_path):
    atoms, _ = configuration(0)
    atoms.info["my_energy"] = 1.0
    ase.io.write(tmp_path / "a.xyz", atoms)
    with pytest.raises(InputError, match=r"none of 1 frames has .* they contain my_energy: name the labels"):
        read(tmp_path / "a.xyz")
    assert read(tmp_path / "a.xyz", keys=Keys(energy="my_energy"))[0].energy == 1.0
    with pytest.raises(
        InputError, match=r"Keys\(forces='my_energi'\) is in none of 1 frames; available are my_energy"
    ):
        read(tmp_path / "a.xyz", keys=Keys(energy="my_energy", forces="my_energi"))


def test_file_of_invalid_frames_only(tmp_path):
    text = text_of(tmp_path, 1).replace("energy=-10.0", "energy=nan")
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(
        InputError, match=r"no valid frame: all 1 frames are invalid, the first: a.xyz, frame 0"
    ):
        read(tmp_path / "a.xyz", skip_bad=True)


def test_labels_may_differ_between_frames(tmp_path):
    bare, _ = configuration(1)
    ase.io.write(tmp_path / "a.xyz", [with_calculator(0), bare])
    first, second = read(tmp_path / "a.xyz")
    assert first.energy == -10.0 and second.labels == () and second.kind == ""


def test_progress_is_shown_on_request(tmp_path, capsys):
    path = tmp_path / "good.xyz"
    text_of(tmp_path, 3)
    read(path)
    assert capsys.readouterr().out == ""
    path.write_text(path.read_text() * 50)
    assert len(read(path, progress=True)) == 150
    assert "reading good.xyz" in capsys.readouterr().out


def test_frame_is_accepted_by_neighbor_list(tmp_path):
    ase.io.write(tmp_path / "a.xyz", with_calculator(0))
    (frame,) = read(tmp_path / "a.xyz")
    assert isinstance(frame, Frame) and frame.volume == pytest.approx(abs(np.linalg.det(CELL)))
    neighbors = neighbor_list(frame.system, cutoff=4.0)
    potential = lennard_jones(["O", "H", "C"], sigma=1.0, epsilon=1.0, cutoff=4.0)
    params = potential.init(jax.random.key(0))
    energy = jax.jit(potential.apply)(params, frame.system, neighbors)
    system = make_system(frame.positions, frame.numbers, cell=CELL)
    assert energy == pytest.approx(float(potential.apply(params, system, neighbors)), rel=1e-12)
