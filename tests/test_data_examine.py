"""`examine`: correct copper crystals pass, and each corruption is reported with its frames."""

import json
import re

import ase.build
import numpy as np
import pytest
from ase import units as ase_units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from corrupted import CORRUPTED, KCAL, scaled, with_nan

from difmd import units
from difmd.data import Frame, Verdict, examine
from difmd.data.__main__ import main
from difmd.errors import InputError
from difmd.system import host_system, make_system

ITEMS = (
    "labels, finite values, cells, close atoms, duplicates, reference energies, energy outliers, "
    "force outliers, consistent unit of energy, consistent unit of force, net forces, forces = −dE/dr, "
    "size of the forces, stress, order of the shear stress, energies along strains"
).split(", ")


def label(atoms, kind, number):
    system = host_system(atoms.positions, atoms.numbers, cell=atoms.cell[:], pbc=True)
    return Frame(
        system=system,
        # EMT energies are relative to the relaxed crystal, whose cohesive energy is −3.5 eV per atom.
        energy=atoms.get_potential_energy() - 3.5 * len(atoms),
        forces=atoms.get_forces(),
        stress=atoms.get_stress(voigt=False),
        kind=kind,
        source=f"cu.xyz, frame {number} (counted from 0)",
    )


@pytest.fixture(scope="module")
def correct():
    """40 frames of a trajectory at 400 K, then 40 strained and rattled crystals, effective-medium theory."""
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
def examination_of_correct(correct):
    return examine(correct)


def test_correct_data_pass(examination_of_correct):
    assert [finding.item for finding in examination_of_correct.findings] == ITEMS
    verdicts = {finding.item: finding.verdict for finding in examination_of_correct.findings}
    # No two crystals differ by a strain and small displacements only.
    expected = dict.fromkeys(ITEMS, Verdict.OK) | {"energies along strains": Verdict.UNKNOWN}
    assert verdicts == expected, str(examination_of_correct)
    assert examination_of_correct.verdict is Verdict.OK
    examination_of_correct.raise_if_wrong()
    assert examination_of_correct.elements == ("Cu",) and examination_of_correct.n_atoms == (32, 32)


def test_slope_of_an_exact_potential_is_one(examination_of_correct):
    summary = examination_of_correct.find("forces = −dE/dr").summary
    value, error = map(float, re.search(r"= ([\d.]+) ± ([\d.]+)", summary).groups())
    assert value == pytest.approx(1.0, abs=0.02) and error < 0.02


@pytest.mark.parametrize("case", CORRUPTED)
def test_corruption_is_reported(correct, case):
    spoil, item, verdict, words, frames = CORRUPTED[case]
    examination = examine(spoil(correct))
    finding = examination.find(item)
    assert finding.verdict.value == verdict, str(examination)
    assert re.search(words, finding.summary), finding.summary
    assert sorted(finding.frames) == list(frames)
    assert finding.remedy
    # An error of one frame does not affect the other items.
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


def test_torque_of_a_molecule(correct):
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


def test_too_little_data_gives_unknown_verdicts(correct):
    few = examine(correct[:3])
    unknown = {finding.item for finding in few.findings if finding.verdict is Verdict.UNKNOWN}
    assert {"energy outliers", "consistent unit of energy", "forces = −dE/dr", "stress"} <= unknown
    assert few.verdict is Verdict.OK
    bare = examine([frame.replace(energy=None, forces=None, stress=None) for frame in correct])
    assert bare.find("labels").verdict is Verdict.WRONG
    assert bare.find("reference energies").verdict is Verdict.UNKNOWN and bare.references is None
    with pytest.raises(InputError, match="no frames to examine"):
        examine([])
    with pytest.raises(InputError, match="no item 'streß' in this examination; the items are labels, finite"):
        few.find("streß")


def test_vanishing_forces_are_accepted(correct):
    frames = [f.replace(energy=0.0, forces=0 * f.forces, stress=0 * f.stress) for f in correct[:12]]
    examination = examine(frames)
    assert examination.find("net forces").summary == "all forces are zero"
    assert examination.verdict is Verdict.OK


def test_all_frames_unusable(correct):
    examination = examine([with_nan(frame) for frame in correct[:12]])
    assert examination.find("finite values").frames == tuple(range(12))
    with pytest.raises(
        InputError, match="the data are wrong: finite values: 12 frames are unusable: cu.xyz, frame 0"
    ):
        examination.raise_if_wrong()


def test_isolated_atoms_are_not_outliers(correct):
    atom = Frame(
        system=host_system(np.zeros((1, 3)), [29]), energy=0.0, source="atom.xyz, frame 0 (counted from 0)"
    )
    examination = examine([*correct, atom])
    assert examination.verdict is Verdict.OK, str(examination)
    assert examination.references.origins == {29: "isolated atom"}


def test_frames_on_a_device_are_examined(correct):
    def on_device(frame):
        system = make_system(frame.positions, frame.numbers, cell=frame.cell)
        return frame.replace(system=system)

    assert examine([on_device(frame) for frame in correct[:15]]).verdict is Verdict.OK


def test_examination_as_text_table_and_json(examination_of_correct, correct):
    text = str(examination_of_correct)
    assert all(item in text for item in ITEMS) and "80 frames of 32 atoms, Cu: OK" in text
    assert examination_of_correct.table().row_count == len(ITEMS)
    assert len(repr(examination_of_correct).splitlines()) <= 6 and "OK" in repr(examination_of_correct)
    assert examination_of_correct._repr_html_().count("<tr>") == len(ITEMS)
    report = json.loads(json.dumps(examine([*correct, correct[3]]).report()))
    assert report["n_frames"] == 81 and report["verdict"] == "DOUBTFUL" and report["elements"] == ["Cu"]
    entry = next(finding for finding in report["findings"] if finding["item"] == "duplicates")
    assert entry["frames"] == [80] and entry["remedy"]


def test_command_line(correct, tmp_path, capsys):
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

    good = write("good.xyz", correct[:30])
    assert main([good, "--plot", str(tmp_path / "plot.png")]) == 0
    assert "30 frames of 32 atoms" in capsys.readouterr().out
    assert (tmp_path / "plot.png").stat().st_size > 5000
    mixed = write("mixed.xyz", [scaled(KCAL)(frame) for frame in correct[30:33]])
    assert main([good, mixed]) == 1
    assert "WRONG" in capsys.readouterr().out
    assert main([str(tmp_path / "god.xyz")]) == 1
    assert "did you mean good.xyz" in " ".join(capsys.readouterr().out.split())
