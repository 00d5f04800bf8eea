"""`stress_offset`: what energies of strained crystals say of their stresses."""

import ase.build
import numpy as np
import pytest
from ase.calculators.emt import EMT

from difmd import units
from difmd.data import Frame, Verdict, correct_stress, examine, stress_offset
from difmd.system import host_system

ITEM = "energies along strains"


@pytest.fixture(scope="module")
def strained():
    """40 copies of a copper crystal, strained at random and slightly shaken, effective-medium theory."""
    rng = np.random.default_rng(3)
    frames = []
    for number in range(40):
        atoms = ase.build.bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.set_cell(atoms.cell[:] @ (np.eye(3) + rng.normal(0, 0.015, (3, 3))), scale_atoms=True)
        atoms.rattle(0.01, seed=number)
        # Shifts of the origin and by lattice vectors make no difference.
        atoms.positions += rng.normal(0, 2, 3)
        atoms.positions += rng.integers(-1, 2, (32, 3)) @ atoms.cell[:]
        atoms.calc = EMT()
        system = host_system(atoms.positions, atoms.numbers, cell=atoms.cell[:], pbc=True)
        frames.append(
            Frame(
                system=system,
                energy=atoms.get_potential_energy(),
                forces=atoms.get_forces(),
                stress=atoms.get_stress(voigt=False),
                source=f"cu.xyz, frame {number}",
            )
        )
    return frames


def off(frames, pressure):
    return [frame.replace(stress=frame.stress + pressure * np.eye(3)) for frame in frames]


def test_correct_stresses_have_no_offset(strained):
    offset = stress_offset(strained)
    assert offset.n_pairs > 80 and not offset.is_significant
    # The third order leaves 0.18 GPa with strains of some percent.
    assert abs(offset.value) < 0.25 * units.GPA and offset.slope == pytest.approx(1, abs=0.02)
    assert all(a is b for a, b in zip(correct_stress(strained, offset), strained, strict=True))
    assert examine(strained, progress=False).find(ITEM).verdict is Verdict.OK


@pytest.mark.parametrize("pressure", [-2.0, 1.0])
def test_offset_is_determined_and_corrected(strained, pressure):
    frames = off(strained, pressure * units.GPA)
    offset = stress_offset(frames)
    exact = stress_offset(strained).value - pressure * units.GPA
    assert offset.is_significant and offset.value == pytest.approx(exact, abs=0.05 * units.GPA)
    finding = examine(frames, progress=False).find(ITEM)
    assert finding.verdict is Verdict.DOUBTFUL and "correct_stress" in finding.remedy
    assert f"{offset.value / units.GPA:.2f} ±" in finding.summary and len(finding.frames) == 40
    corrected = correct_stress([*frames, frames[0].replace(stress=None)], offset)
    assert corrected[-1].stress is None
    assert np.allclose(corrected[3].stress, frames[3].stress + offset.value * np.eye(3), rtol=1e-12)
    assert abs(stress_offset(corrected[:-1]).value) < 0.05 * units.GPA


def test_offset_is_undetermined_without_pairs(strained):
    # One cell, no stress, or other atoms in every frame.
    for frames in (
        strained[:1],
        [strained[0]] * 5,
        [frame.replace(stress=None) for frame in strained],
        [],
    ):
        offset = stress_offset(frames)
        assert np.isnan(offset.value) and not offset.is_significant
    frames = [frame.replace(stress=-frame.stress) for frame in strained]
    finding = examine(frames, progress=False).find(ITEM)
    assert finding.verdict is Verdict.UNKNOWN and "units and signs" in finding.summary
    few = examine(strained[:3], progress=False).find(ITEM)
    assert few.verdict is Verdict.UNKNOWN and "too few" in few.summary
