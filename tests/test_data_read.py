"""`difmd.data.read`: every format, names and units of labels, and every refusal."""

import gzip
import shutil
import sys

import ase
import ase.io
import jax
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.stress import full_3x3_to_voigt_6_stress

from difmd import lennard_jones, make_system, neighbor_list, units
from difmd.data import Frame, Keys, Units, read, stream
from difmd.data.label_units import HARTREE, factors_of
from difmd.errors import InputError
from difmd.units import BOHR

CELL = np.array([[6.0, 0, 0], [1, 6, 0], [0, 1, 7]])
STRESS = np.array([[0.01, 0.002, 0.003], [0.002, -0.02, 0.004], [0.003, 0.004, 0.03]])


def configuration(seed, **changes):
    """Atoms and labels of one periodic configuration."""
    rng = np.random.default_rng(seed)
    labels = {"energy": -10.0 - seed, "forces": rng.normal(size=(4, 3)), "stress": STRESS * (1 + seed)}
    labels |= {"dipole": rng.normal(size=3), "charges": rng.normal(size=4)}
    scaled = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]) + rng.uniform(0, 0.1, (4, 3))
    atoms = ase.Atoms("OHHC", scaled_positions=scaled, cell=CELL, pbc=True)
    return atoms, labels | changes


def with_calculator(seed, **changes):
    atoms, labels = configuration(seed, **changes)
    results = labels | {"stress": full_3x3_to_voigt_6_stress(labels["stress"])}
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["config_type"] = "liquid"
    return atoms


@pytest.fixture
def images():
    return [with_calculator(seed) for seed in range(3)]


def check(frames, *, kind="liquid", names=("energy", "forces", "stress", "dipole", "charges")):
    assert len(frames) == 3
    for seed, frame in enumerate(frames):
        atoms, labels = configuration(seed)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(frame.cell, CELL, atol=1e-12)
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        assert frame.pbc.all() and frame.kind == kind
        assert frame.labels == names
        for name in names:
            np.testing.assert_allclose(getattr(frame, name), labels[name], atol=1e-6, err_msg=name)
        assert isinstance(frame.positions, np.ndarray) and frame.positions.dtype == np.float64
        assert f"frame {seed} (counted from 0" in frame.source


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.xyz.gz", "a.traj", "a.db"])
def test_files_that_ase_writes(tmp_path, images, name):
    path = tmp_path / name
    if name.endswith(".db"):
        with connect(path) as database:
            for atoms in images:
                database.write(atoms, config_type="liquid")
    else:
        ase.io.write(path, images, format="extxyz" if "xyz" in name else None)
    check(read(path))
    assert [frame.energy for frame in stream(path)] == [-10.0, -11.0, -12.0]


def test_labels_under_other_names(tmp_path):
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


def test_free_energy_is_taken_first(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [with_calculator(s, free_energy=-1.5) for s in range(2)])
    assert [frame.energy for frame in read(tmp_path / "a.xyz")] == [-1.5, -1.5]
    assert read(tmp_path / "a.xyz", keys=Keys(energy="energy"))[0].energy == -10.0


def test_energies_of_two_names_are_remarked(tmp_path):
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


def test_virials_of_slabs_are_left_out_with_a_word(tmp_path):
    atoms, labels = configuration(0)
    atoms.info |= {"energy": labels["energy"], "virial": labels["stress"].ravel()}
    atoms.pbc = [True, True, False]
    ase.io.write(tmp_path / "a.xyz", [atoms, atoms])
    with pytest.warns(UserWarning, match="virial of 2 frames left out: they are not periodic in all"):
        frames = read(tmp_path / "a.xyz")
    assert [frame.labels for frame in frames] == [("energy",)] * 2


def write_deepmd(folder, seeds, number=0):
    folder.mkdir(exist_ok=True)
    (folder / "type.raw").write_text("0\n1\n1\n2\n")
    (folder / "type_map.raw").write_text("O\nH\nC\n")
    part = folder / f"set.{number:03d}"
    part.mkdir()
    found = [configuration(seed) for seed in seeds]
    volume = found[0][0].get_volume()
    np.save(part / "coord.npy", [atoms.positions.ravel() for atoms, _ in found])
    np.save(part / "box.npy", [CELL.ravel() for _ in found])
    np.save(part / "energy.npy", [labels["energy"] for _, labels in found])
    np.save(part / "force.npy", [labels["forces"].ravel() for _, labels in found])
    np.save(part / "virial.npy", [-labels["stress"].ravel() * volume for _, labels in found])


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
        (lambda f: (f / "type_map.raw").write_text("O Xx C"), "'Xx' is no chemical symbol"),
        (lambda f: (f / "type_map.raw").write_text("O H"), "type 2 is not among the 2"),
        (lambda f: shutil.rmtree(f / "set.000"), r"holds no folder set\.\*"),
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
    with pytest.warns(UserWarning, match="virial of 2 frames left out"):
        first, second = read(folder)
    # There is no stress without a volume.
    assert not first.pbc.any() and first.labels == ("energy", "forces")
    assert list(second.numbers) == [6, 1, 8] and second.forces.shape == (3, 3)


def write_hdf5(path):
    h5py = pytest.importorskip("h5py")
    found = [configuration(seed) for seed in range(3)]
    with h5py.File(path, "w") as file:
        group = file.create_group("set/water")
        group["atomic_numbers"] = found[0][0].numbers
        group["positions"] = [atoms.positions for atoms, _ in found]
        group["cell"] = CELL
        for name in ("energy", "forces", "stress", "dipole", "charges"):
            group[name] = np.array([labels[name] for _, labels in found])
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


def test_units(tmp_path, images):
    for atoms in images:
        results = atoms.calc.results
        atoms.calc.results = results | {
            "energy": results["energy"] / HARTREE,
            "forces": results["forces"] * BOHR / HARTREE,
            "stress": -results["stress"] / units.GPA,
            "dipole": results["dipole"] / BOHR,
        }
        atoms.set_cell(atoms.cell / BOHR, scale_atoms=True)
        # The calculator remembers for which atoms its results are.
        atoms.calc.atoms = atoms.copy()
    ase.io.write(tmp_path / "a.xyz", images)
    given = Units(energy="Hartree", length="Bohr", stress=-units.GPA, dipole="au")
    check(read(tmp_path / "a.xyz", units=given))


@pytest.mark.parametrize(
    ("given", "field", "factor"),
    [
        (Units(), "stress", 1.0),
        (Units(energy="kcal/mol"), "forces", units.KCAL_PER_MOL),
        (Units(energy="kcal/mol"), "energy", 0.0433641),
        (Units(energy="Ry", length="Bohr"), "forces", 25.71104),
        (Units(energy="Ha", length="Bohr"), "stress", 183.6316),
        (Units(forces="Hartree/Bohr"), "forces", 51.42207),
        (Units(stress="kbar"), "stress", 6.241509e-4),
        (Units(stress="GPA"), "stress", 6.241509e-3),
        (Units(stress="Hartree/Bohr^3"), "stress", 183.6316),
        (Units(length="nm"), "length", 10.0),
        (Units(dipole="Debye"), "dipole", 0.2081943),
        (Units(dipole="e*Bohr"), "dipole", BOHR),
        (Units(energy="kJ/mol"), "virial", 0.01036427),
        (Units(energy=2.0), "forces", 2.0),
    ],
)
def test_factors(given, field, factor):
    assert getattr(factors_of(given), field) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Units(energy="eVs"), r"Units\(energy='eVs'\) is not known: use one of eV, meV, kcal/mol"),
        (Units(stress="GP"), r"Units\(stress='GP'\) is not known: use one of GPa"),
        (Units(length=0.0), r"Units\(length=0.0\) must be finite and not zero"),
        (Units(energy=float("nan")), r"Units\(energy=nan\) must be finite"),
    ],
)
def test_unknown_units(given, message):
    with pytest.raises(InputError, match=message):
        factors_of(given)


def text_of(tmp_path, n=3):
    ase.io.write(tmp_path / "good.xyz", [with_calculator(seed) for seed in range(n)])
    return (tmp_path / "good.xyz").read_text()


def nth_line(text, number, change):
    lines = text.splitlines()
    lines[number] = change(lines[number])
    return "\n".join(lines) + "\n"


def field(column, value):
    def change(line):
        words = line.split()
        words[column] = value
        return " ".join(words)

    return change


# Lines 6 and 7 of a file are the header of frame 1, whose atoms are lines 8 to 11.
SPOILED = {
    "nan position": (lambda t: nth_line(t, 9, field(2, "nan")), r"frame 1 .*positions\[1, 1\] = nan"),
    "nan force": (
        lambda t: nth_line(t, 10, field(5, "nan")),
        r"frame 1 .*: forces of atom 2 is nan: the calc",
    ),
    "infinite energy": (lambda t: t.replace("energy=-11.0", "energy=inf"), r"frame 1 .*: energy is inf"),
    "text energy": (
        lambda t: t.replace("energy=-11.0", "energy=none"),
        r"frame 1 .*: energy = 'none' is not a number",
    ),
    "two energies": (
        lambda t: t.replace("energy=-11.0", 'energy="1 2"'),
        r"frame 1 .*energy has shape \[2\]",
    ),
    "short dipole": (
        lambda t: nth_line(t, 7, lambda line: line.split(" dipole=")[0] + ' dipole="1 2"'),
        r"frame 1 .*dipole has shape \[2\], not \[3\]",
    ),
    "unknown element": (
        lambda t: nth_line(t, 8, field(0, "Qq")),
        r"frame 1 .*'Qq' is not known; is it a chemical",
    ),
    "no element": (lambda t: nth_line(t, 8, field(0, "X")), r"frame 1 .*atom 0 is of no element"),
    "colliding": (
        lambda t: nth_line(t, 9, lambda line: " ".join(line.split()[:1] + t.splitlines()[8].split()[1:])),
        r"frame 1 .*atoms 0 and 1 coincide",
    ),
    "missing column": (lambda t: nth_line(t, 9, lambda line: line[:40]), r"frame 1 \(counted from 0\): \w+"),
    "flat cell": (
        lambda t: nth_line(t, 7, lambda line: 'Lattice="1 0 0 1 0 0 0 0 1" ' + line.split('" ', 1)[1]),
        r"frame 1 .*cell is singular",
    ),
    "conflict": (
        lambda t: t.replace("energy=-11.0", "energy=-11.0 REF_energy=3"),
        r"frame 1 .*energy and REF_energy differ: say which one is meant with Keys\(energy='REF_energy'\)",
    ),
    "six stresses": (
        lambda t: nth_line(t, 7, lambda line: line + ' REF_virial="1 2 3 4 5"').replace(" stress=", " s="),
        r"frame 1 .*virial has shape \[5\]: it takes 3×3 numbers",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_bad_frame(tmp_path, case):
    spoil, message = SPOILED[case]
    text = text_of(tmp_path)
    path = tmp_path / "bad.xyz"
    path.write_text(spoil(text))
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert "bad.xyz" in str(caught.value) and "skip_bad=True" in str(caught.value)
    with pytest.raises(InputError, match=message):
        list(stream(path))
    with pytest.warns(UserWarning, match=r"1 frames left out, 2 kept: .*frame 1 \(counted"):
        kept = read(path, skip_bad=True)
    assert [frame.energy for frame in kept] == [-10.0, -12.0]


CUT = {
    "within a frame": (lambda t: t[: t.rindex("\n", 0, -1) - 40], r"frame 2 .*: the file ends within it"),
    "atoms missing": (
        lambda t: "\n".join(t.splitlines()[:-2]) + "\n",
        r"frame 2 .*the file ends within it, after 2 of 4 atoms; 2 frames before it are complete: copy or",
    ),
    "no number": (
        lambda t: nth_line(t, 12, lambda _: "four"),
        r"frame 2 .*'four' where a number of atoms is due",
    ),
    "empty line": (
        lambda t: nth_line(t, 11, lambda line: line + "\n"),
        r"frame 2 .*an empty line where a number",
    ),
}


@pytest.mark.parametrize("case", CUT)
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_file(tmp_path, case, compressed):
    cut, message = CUT[case]
    text = cut(text_of(tmp_path))
    path = tmp_path / ("bad.xyz.gz" if compressed else "bad.xyz")
    if compressed:
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    if case == "within a frame":
        message = r"frame 2 .*"
    with pytest.raises(InputError, match=message):
        read(path)
    with pytest.warns(UserWarning, match="1 frames left out, 2 kept"):
        assert len(read(path, skip_bad=True)) == 2


def test_truncated_compression(tmp_path):
    whole = gzip.compress(text_of(tmp_path, 200).encode())
    (tmp_path / "a.xyz.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        InputError, match=r"a.xyz.gz: frame \d+ .*cannot be read any further .* before it are complete"
    ):
        read(tmp_path / "a.xyz.gz")


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
    with pytest.raises(InputError, match="blank.xyz holds no frame: it is empty"):
        read(tmp_path / "blank.xyz")
    (tmp_path / "notes.dat").write_text("hello\n")
    with pytest.raises(InputError, match=r"notes.dat: frame 0 .*ASE cannot read it"):
        read(tmp_path / "notes.dat")
    with pytest.raises(
        InputError, match=r"is a folder without a DeePMD system .* give a file in it, of blank.xyz"
    ):
        read(tmp_path)


def test_no_labels(tmp_path):
    atoms, _ = configuration(0)
    atoms.info["my_energy"] = 1.0
    ase.io.write(tmp_path / "a.xyz", atoms)
    with pytest.raises(InputError, match=r"none of 1 frames has an energy.* they carry my_energy: say which"):
        read(tmp_path / "a.xyz")
    assert read(tmp_path / "a.xyz", keys=Keys(energy="my_energy"))[0].energy == 1.0
    with pytest.raises(
        InputError, match=r"Keys\(forces='my_energi'\) is in none of 1 frames; there are my_energy"
    ):
        read(tmp_path / "a.xyz", keys=Keys(energy="my_energy", forces="my_energi"))


def test_all_bad(tmp_path):
    text = text_of(tmp_path, 1).replace("energy=-10.0", "energy=nan")
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(InputError, match=r"holds no frame: all 1 frames are bad, the first: a.xyz, frame 0"):
        read(tmp_path / "a.xyz", skip_bad=True)


def test_labels_may_be_missing_frame_by_frame(tmp_path):
    bare, _ = configuration(1)
    ase.io.write(tmp_path / "a.xyz", [with_calculator(0), bare])
    first, second = read(tmp_path / "a.xyz")
    assert first.energy == -10.0 and second.labels == () and second.kind == ""


def test_progress_is_shown_when_wanted(tmp_path, capsys):
    path = tmp_path / "good.xyz"
    text_of(tmp_path, 3)
    read(path)
    assert capsys.readouterr().out == ""
    path.write_text(path.read_text() * 50)
    assert len(read(path, progress=True)) == 150
    assert "reading good.xyz" in capsys.readouterr().out


def test_a_frame_goes_to_a_neighbor_list(tmp_path):
    ase.io.write(tmp_path / "a.xyz", with_calculator(0))
    (frame,) = read(tmp_path / "a.xyz")
    assert isinstance(frame, Frame) and frame.volume == pytest.approx(abs(np.linalg.det(CELL)))
    neighbors = neighbor_list(frame.system, cutoff=4.0)
    potential = lennard_jones(["O", "H", "C"], sigma=1.0, epsilon=1.0, cutoff=4.0)
    params = potential.init(jax.random.key(0))
    energy = jax.jit(potential.apply)(params, frame.system, neighbors)
    system = make_system(frame.positions, frame.numbers, cell=CELL)
    assert energy == pytest.approx(float(potential.apply(params, system, neighbors)), rel=1e-12)
