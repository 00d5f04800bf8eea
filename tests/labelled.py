"""Configurations with all labels, and a check of frames against them."""

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

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


def text_of(tmp_path, n=3):
    ase.io.write(tmp_path / "good.xyz", [with_calculator(seed) for seed in range(n)])
    return (tmp_path / "good.xyz").read_text()
