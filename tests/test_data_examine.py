"""`examine`: a sound set of copper crystals passes, and whatever is spoiled in it is found and named."""

import json
import re

import ase.build
import numpy as np
import pytest
from ase import units as ase_units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from spoiled import KCAL, SPOILED, scaled, with_nan

from difmd import units
from difmd.data import Frame, Verdict, examine
from difmd.data.__main__ import main
from difmd.errors import InputError
from difmd.system import host_system, make_system

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
