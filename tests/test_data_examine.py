"""`examine`: a sound set of copper crystals passes, and whatever is spoiled in it is found and named."""

import json
import re

import ase.build
import numpy as np
import pytest
from ase import units as ase_units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from difmd import units
from difmd.data import Frame, Verdict, examine
from difmd.data.__main__ import main
from difmd.data.label_units import HARTREE
from difmd.errors import InputError
from difmd.system import host_system, make_system
from difmd.units import BOHR

KCAL = 1 / units.KCAL_PER_MOL
ITEMS = (
    "labels, finite values, cells, close atoms, duplicates, reference energies, energy outliers, "
    "force outliers, one unit of energy, one unit of force, net forces, forces = −dE/dr, "
    "size of the forces, stress, order of the shear stress, energies along strains"
).split(", ")


def label(atoms, kind, number):
    system = host_system(atoms.positions, atoms.numbers, cell=atoms.cell[:], pbc=True)
    return Frame(
        system=system,
        # The energy of a crystal at rest, which is nothing here, is −3.5 eV an atom.
        energy=atoms.get_potential_energy() - 3.5 * len(atoms),
        forces=atoms.get_forces(),
        stress=atoms.get_stress(voigt=False),
        kind=kind,
        source=f"cu.xyz, frame {number} (counted from 0)",
    )


@pytest.fixture(scope="module")
def sound():
    """40 frames of a trajectory at 400 K, then 40 strained and shaken crystals, effective-medium theory."""
    rng = np.random.default_rng(11)
    atoms = ase.build.bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    atoms.set_momenta(rng.normal(0, np.sqrt(atoms.get_masses()[:, None] * 800 * units.KB), (32, 3)))
    atoms.set_momenta(atoms.get_momenta() - atoms.get_momenta().mean(axis=0))
    motion = VelocityVerlet(atoms, 5 * ase_units.fs)
    frames = []
    for number in range(40):
        motion.run(3)
        frames.append(label(atoms, "trajectory", number))
    for number in range(40, 80):
        strained = ase.build.bulk("Cu", cubic=True) * (2, 2, 2)
        strain = rng.normal(0, 0.02, (3, 3))
        strained.set_cell(strained.cell[:] @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        strained.rattle(0.08, seed=number)
        strained.calc = EMT()
        frames.append(label(strained, "strained", number))
    return frames


@pytest.fixture(scope="module")
def sound_examination(sound):
    return examine(sound)


def test_sound_data_pass(sound_examination):
    assert [finding.item for finding in sound_examination.findings] == ITEMS
    verdicts = {finding.item: finding.verdict for finding in sound_examination.findings}
    # No two crystals differ by little more than a strain.
    expected = dict.fromkeys(ITEMS, Verdict.OK) | {"energies along strains": Verdict.UNKNOWN}
    assert verdicts == expected, str(sound_examination)
    assert sound_examination.verdict is Verdict.OK
    sound_examination.raise_if_wrong()
    assert sound_examination.elements == ("Cu",) and sound_examination.n_atoms == (32, 32)


def test_slope_is_that_of_an_exact_potential(sound_examination):
    summary = sound_examination.find("forces = −dE/dr").summary
    value, error = map(float, re.search(r"= ([\d.]+) ± ([\d.]+)", summary).groups())
    assert value == pytest.approx(1.0, abs=0.02) and error < 0.02


def all_of(change):
    return lambda frames: [change(frame) for frame in frames]


def some(numbers, change):
    return lambda frames: [change(f) if n in numbers else f for n, f in enumerate(frames)]


def scaled(energy=1.0, forces=1.0, stress=1.0):
    return lambda f: f.replace(energy=f.energy * energy, forces=f.forces * forces, stress=f.stress * stress)


def misordered(frame):
    """What VASP's xx yy zz xy yz zx is when read as ASE's xx yy zz yz xz xy."""
    s = frame.stress.copy()
    for (i, j), value in zip([(1, 2), (0, 2), (0, 1)], [s[0, 1], s[1, 2], s[0, 2]], strict=True):
        s[i, j] = s[j, i] = value
    return frame.replace(stress=s)


def moved(frame, change):
    positions = frame.positions.copy()
    change(positions)
    return frame.replace(system=frame.system.replace(positions=positions))


def with_nan(frame):
    forces = frame.forces.copy()
    forces[5, 1] = np.nan
    return frame.replace(forces=forces)


def collide(positions):
    positions[7] = positions[3] + [0.5, 0.0, 0.0]


def turned(frame):
    """The same crystal, turned by 90°, moved and renumbered."""
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    order = np.random.default_rng(0).permutation(frame.n_atoms)
    system = frame.system.replace(positions=(frame.positions @ turn + 0.3)[order], cell=frame.cell @ turn)
    return frame.replace(
        system=system, forces=(frame.forces @ turn)[order], stress=turn.T @ frame.stress @ turn
    )


FEW = (4, 17, 33, 52, 66)
MANY = tuple(range(1, 80, 3))
EVERY = tuple(range(80))
# What is done; the item that finds it, how, in which words and frames.
SPOILED = {
    "kcal/mol energies": (all_of(scaled(KCAL)), "forces = −dE/dr", "WRONG", "energies in kcal/mol", EVERY),
    "hartree energies": (
        all_of(scaled(1 / HARTREE)),
        "forces = −dE/dr",
        "WRONG",
        "energies in hartree",
        EVERY,
    ),
    "forces in hartree/bohr": (
        all_of(scaled(forces=BOHR / HARTREE)),
        "forces = −dE/dr",
        "WRONG",
        "forces in hartree/bohr",
        EVERY,
    ),
    "gradients": (all_of(scaled(forces=-1)), "forces = −dE/dr", "WRONG", "forces of the other sign", EVERY),
    "energies 20 % off": (all_of(scaled(1.2)), "forces = −dE/dr", "DOUBTFUL", r"= 1\.(19|20)", EVERY),
    "kcal/mol energies and forces": (
        all_of(scaled(KCAL, KCAL, KCAL)),
        "size of the forces",
        "DOUBTFUL",
        "units such as kcal/mol/Å",
        EVERY,
    ),
    "some energies in kcal/mol": (
        some(FEW, scaled(KCAL)),
        "one unit of energy",
        "WRONG",
        "5 of 80 energies are about 23.* as if in kcal/mol: cu.xyz, frame 4 ",
        FEW,
    ),
    "a third of the energies in kcal/mol": (
        some(MANY, scaled(KCAL)),
        "one unit of energy",
        "WRONG",
        "as if in kcal/mol: cu.xyz, frame 1 ",
        MANY,
    ),
    "some forces in kcal/mol/Å": (
        some(FEW, scaled(forces=KCAL)),
        "one unit of force",
        "WRONG",
        "forces of 5 of 80 frames .* as if in kcal/mol/Å: cu.xyz, frame 4 ",
        FEW,
    ),
    "a third of the forces in hartree/Å": (
        some(MANY, scaled(forces=1 / HARTREE)),
        "one unit of force",
        "WRONG",
        "as if in hartree/Å: cu.xyz, frame 1 ",
        MANY,
    ),
    "energies and forces mixed": (
        some(FEW, scaled(KCAL, KCAL)),
        "one unit of force",
        "WRONG",
        "as if in kcal/mol/Å: cu.xyz, frame 4 ",
        FEW,
    ),
    "stress with compression positive": (
        all_of(scaled(stress=-1)),
        "stress",
        "WRONG",
        "of the other sign",
        EVERY,
    ),
    "stress in GPa": (all_of(scaled(stress=1 / units.GPA)), "stress", "WRONG", "as if in GPa", EVERY),
    "stress in kbar, compression positive": (
        all_of(scaled(stress=-10 / units.GPA)),
        "stress",
        "WRONG",
        "other sign: compression is positive, as if in kbar",
        EVERY,
    ),
    "virial for stress": (
        all_of(lambda f: f.replace(stress=f.stress * f.volume)),
        "stress",
        "WRONG",
        "as if in .*eV, a virial without the volume",
        EVERY,
    ),
    "order of VASP": (
        all_of(misordered),
        "order of the shear stress",
        "WRONG",
        "what is given as yz xz xy is taken for xy yz xz",
        EVERY,
    ),
    "order of VASP in one kind": (
        some(range(40, 80), misordered),
        "order of the shear stress",
        "WRONG",
        "in kind 'strained' .*is taken for xy yz xz",
        tuple(range(40, 80)),
    ),
    "stress not symmetric": (
        some((9,), lambda f: f.replace(stress=f.stress + np.triu(np.full((3, 3), 0.02), 1))),
        "symmetry of the stress",
        "DOUBTFUL",
        "1 of 80 stresses are not symmetric: cu.xyz, frame 9 ",
        (9,),
    ),
    "nan": (
        some((23,), with_nan),
        "finite values",
        "WRONG",
        r"cu.xyz, frame 23 .*: forces of atom 5 is nan",
        (23,),
    ),
    "wrong shape": (
        some((23,), lambda f: f.replace(forces=f.forces[:-1])),
        "finite values",
        "WRONG",
        r"frame 23 .*: forces has shape \[31, 3\], not \[32, 3\]",
        (23,),
    ),
    "colliding pair": (
        some((61,), lambda f: moved(f, collide)),
        "close atoms",
        "WRONG",
        r"atoms 3 and 7 \(Cu–Cu\) of cu.xyz, frame 61 \(counted from 0\), 0.500 Å",
        (61,),
    ),
    "positions in bohr": (
        all_of(
            lambda f: f.replace(system=f.system.replace(positions=f.positions / BOHR, cell=f.cell / BOHR))
        ),
        "close atoms",
        "DOUBTFUL",
        "usually 1.7. sums of covalent radii apart",
        (),
    ),
    "repeat": (
        lambda frames: [*frames, frames[12]],
        "duplicates",
        "DOUBTFUL",
        r"1 of 81 frames repeat others, 1 atom by atom .*cu.xyz, frame 12 .* frame 80 .* of the list",
        (80,),
    ),
    "repeat, turned": (
        lambda frames: [*frames, turned(frames[50])],
        "duplicates",
        "DOUBTFUL",
        "1 of 81 frames repeat others, 0 atom by atom",
        (80,),
    ),
    "repeat with another energy": (
        lambda frames: [*frames, frames[12].replace(energy=frames[12].energy + 1)],
        "duplicates",
        "WRONG",
        "1 frames repeat others with another energy, by up to 31.2 meV/atom: cu.xyz, frame 12 ",
        (12, 80),
    ),
    "outlier of energy": (
        some((31,), lambda f: f.replace(energy=f.energy + 60.0)),
        "energy outliers",
        "WRONG",
        "but cu.xyz, frame 31 .* by up to 1.8",
        (31,),
    ),
    "outlier of force": (
        some((31,), lambda f: f.replace(forces=f.forces + 100.0 * (np.arange(32) == 3)[:, None])),
        "force outliers",
        "DOUBTFUL",
        "eV/Å in cu.xyz, frame 31 ",
        (31,),
    ),
    "net force": (
        some((31,), lambda f: f.replace(forces=f.forces + [0.0, 0.1, 0.0])),
        "net forces",
        "DOUBTFUL",
        r"3.2 eV/Å .*cu.xyz, frame 31 \(counted from 0\); 1 frames above 2 %",
        (31,),
    ),
    "missing forces": (
        some((31,), lambda f: f.replace(forces=None)),
        "labels",
        "DOUBTFUL",
        "forces 79, .* of 80 frames; no forces in cu.xyz, frame 31 ",
        (31,),
    ),
    "not said to be periodic": (
        some((31,), lambda f: f.replace(system=f.system.replace(pbc=np.zeros(3, bool)))),
        "cells",
        "DOUBTFUL",
        "1 are not periodic, yet atoms are bonded across faces of the cell: cu.xyz, frame 31 ",
        (31,),
    ),
    "cell in nm": (
        some((31,), lambda f: f.replace(system=f.system.replace(cell=f.cell / 10))),
        "cells",
        "WRONG",
        "lattice planes less than 1 Å apart in cu.xyz, frame 31 ",
        (31,),
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_spoiled_is_found(sound, case):
    spoil, item, verdict, words, frames = SPOILED[case]
    examination = examine(spoil(sound))
    finding = examination.find(item)
    assert finding.verdict.value == verdict, str(examination)
    assert re.search(words, finding.summary), finding.summary
    assert sorted(finding.frames) == list(frames)
    assert finding.remedy
    # A fault of one frame leaves the other items alone.
    if case in (
        "nan",
        "wrong shape",
        "colliding pair",
        "repeat",
        "net force",
        "missing forces",
        "cell in nm",
    ):
        others = {f.item for f in examination.findings if f.verdict in (Verdict.WRONG, Verdict.DOUBTFUL)}
        assert others <= {item, "close atoms"}, str(examination)


def test_torque_of_a_molecule(sound):
    rng = np.random.default_rng(2)
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    frames = []
    for _ in range(12):
        positions = water + rng.normal(0, 0.03, (3, 3))
        arm = positions[1] - positions[0]
        pull = (np.linalg.norm(arm) - 0.96) * 40 * arm / np.linalg.norm(arm)
        frames.append(
            Frame(
                system=host_system(positions, [8, 1, 1]), energy=0.0, forces=np.array([pull, -pull, 0 * pull])
            )
        )
    assert examine(frames).find("net forces").verdict is Verdict.OK
    wrong = [f.replace(forces=f.forces[[1, 2, 0]]) for f in frames]
    finding = examine(wrong).find("net forces")
    assert finding.verdict is Verdict.DOUBTFUL and "torque" in finding.summary


def test_little_or_nothing_to_go_by(sound):
    few = examine(sound[:3])
    unknown = {finding.item for finding in few.findings if finding.verdict is Verdict.UNKNOWN}
    assert {"energy outliers", "one unit of energy", "forces = −dE/dr", "stress"} <= unknown
    assert few.verdict is Verdict.OK
    bare = examine([frame.replace(energy=None, forces=None, stress=None) for frame in sound])
    assert bare.find("labels").verdict is Verdict.WRONG
    assert bare.find("reference energies").verdict is Verdict.UNKNOWN and bare.references is None
    with pytest.raises(InputError, match="no frames to examine"):
        examine([])
    with pytest.raises(InputError, match="no item 'streß' in this examination; there are labels, finite"):
        few.find("streß")


def test_forces_of_nothing_are_no_error(sound):
    frames = [f.replace(energy=0.0, forces=0 * f.forces, stress=0 * f.stress) for f in sound[:12]]
    examination = examine(frames)
    assert examination.find("net forces").summary == "all forces are zero"
    assert examination.verdict is Verdict.OK


def test_all_frames_unusable(sound):
    examination = examine([with_nan(frame) for frame in sound[:12]])
    assert examination.find("finite values").frames == tuple(range(12))
    with pytest.raises(
        InputError, match="the data are wrong: finite values: 12 frames are unusable: cu.xyz, frame 0"
    ):
        examination.raise_if_wrong()


def test_isolated_atoms_are_no_outliers(sound):
    atom = Frame(
        system=host_system(np.zeros((1, 3)), [29]), energy=0.0, source="atom.xyz, frame 0 (counted from 0)"
    )
    examination = examine([*sound, atom])
    assert examination.verdict is Verdict.OK, str(examination)
    assert examination.references.origins == {29: "isolated atom"}


def test_frames_on_a_device_are_examined_too(sound):
    def on_device(frame):
        system = make_system(frame.positions, frame.numbers, cell=frame.cell)
        return frame.replace(system=system)

    assert examine([on_device(frame) for frame in sound[:15]]).verdict is Verdict.OK


def test_table_text_and_report(sound_examination, sound):
    text = str(sound_examination)
    assert all(item in text for item in ITEMS) and "80 frames of 32 atoms, Cu: OK" in text
    assert sound_examination.table().row_count == len(ITEMS)
    report = json.loads(json.dumps(examine([*sound, sound[3]]).report()))
    assert report["n_frames"] == 81 and report["verdict"] == "DOUBTFUL" and report["elements"] == ["Cu"]
    entry = next(finding for finding in report["findings"] if finding["item"] == "duplicates")
    assert entry["frames"] == [80] and entry["remedy"]


def test_command_line(sound, tmp_path, capsys):
    import ase.io
    from ase.calculators.singlepoint import SinglePointCalculator

    from difmd import to_ase

    def write(name, frames):
        images = []
        for frame in frames:
            atoms = to_ase(frame.system)
            atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
            images.append(atoms)
        ase.io.write(tmp_path / name, images, format="extxyz")
        return str(tmp_path / name)

    good = write("good.xyz", sound[:30])
    assert main([good, "--plot", str(tmp_path / "plot.png")]) == 0
    assert "30 frames of 32 atoms" in capsys.readouterr().out
    assert (tmp_path / "plot.png").stat().st_size > 5000
    mixed = write("mixed.xyz", [scaled(KCAL)(frame) for frame in sound[30:33]])
    assert main([good, mixed]) == 1
    assert "WRONG" in capsys.readouterr().out
    assert main([str(tmp_path / "god.xyz")]) == 1
    assert "did you mean good.xyz" in " ".join(capsys.readouterr().out.split())
