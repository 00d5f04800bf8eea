"""Reference energies: from isolated atoms, fitted robustly, and where they are not determined."""

import numpy as np
import pytest

from difmd.data import Frame, excess_energies, reference_energies
from difmd.errors import InputError
from difmd.system import host_system

TRUE = {1: -13.6, 6: -1030.0, 8: -2042.0}


def frame(numbers, energy):
    positions = np.arange(len(numbers))[:, None] * np.array([[1.5, 0, 0]])
    return Frame(system=host_system(positions, np.array(numbers)), energy=energy)


def total(numbers, bond=-4.0):
    return sum(TRUE[z] for z in numbers) + bond * (len(numbers) - 1)


MOLECULES = [[1, 1], [8, 1, 1], [6, 1, 1, 1, 1], [6, 8], [6, 8, 8], [6, 8, 1, 1], [6, 6, 1, 1, 1, 1]]


def test_isolated_atoms_are_used():
    frames = [frame(m, total(m)) for m in MOLECULES] + [frame([z], energy) for z, energy in TRUE.items()]
    # Another state of the carbon atom, higher in energy.
    frames.append(frame([6], -1028.0))
    references = reference_energies(frames)
    assert references.energies == TRUE
    assert set(references.origins.values()) == {"isolated atom"} and "isolated atom: H C O" in references.note
    excess = excess_energies(frames, references)
    np.testing.assert_allclose(excess[:2], [-2.0, -8 / 3], rtol=1e-12)


def test_given_energies_have_priority():
    frames = [frame(m, total(m)) for m in MOLECULES] + [frame([1], -1.0)]
    references = reference_energies(frames, isolated={1: TRUE[1], 8: TRUE[8]})
    assert references.energies[1] == TRUE[1]
    assert references.origins == {1: "given", 6: "fitted", 8: "given"}


def test_fit_is_robust():
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(60):
        numbers = [1] * rng.integers(1, 5) + [6] * rng.integers(1, 4) + [8] * rng.integers(1, 4)
        energy = sum({1: -16.0, 6: -1035.0, 8: -2046.0}[z] for z in numbers)
        frames.append(frame(numbers, energy + 0.01 * rng.normal() * len(numbers)))
    # A tenth of the energies is in kcal/mol.
    wrong = [f.replace(energy=f.energy * 23.06) if k % 10 == 0 else f for k, f in enumerate(frames)]
    for given in (frames, wrong):
        references = reference_energies(given)
        assert references.origins == {1: "fitted", 6: "fitted", 8: "fitted"}
        np.testing.assert_allclose(list(references.energies.values()), [-16.0, -1035.0, -2046.0], atol=0.1)


def test_single_composition_underdetermines_the_fit():
    frames = [frame([8, 1, 1], -2078.0 + 0.01 * k) for k in range(-3, 4)]
    references = reference_energies(frames)
    assert "determine only 1 of 2" in references.note and "isolated atoms" in references.note
    assert np.abs(excess_energies(frames, references)).max() < 0.02
    # Least norm: in proportion to the composition.
    assert references.energies[1] == pytest.approx(2 * references.energies[8])


def test_missing_energies_are_refused():
    bare = frame([8, 1, 1], None)
    with pytest.raises(InputError, match="none of 1 frames has an energy"):
        reference_energies([bare])
    with pytest.raises(InputError, match="no frame with H O has an energy: give their energies"):
        reference_energies([bare, frame([6], -1030.0)])
    references = reference_energies([frame([8, 1, 1], -30.0), bare])
    assert np.isnan(excess_energies([bare], references)).all()
