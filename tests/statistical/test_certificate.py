"""Whole certificates, dynamics included, of a liquid and of a mixture."""

import ase.build
import jax
import numpy as np
import pytest

import difmd
from difmd import units

pytestmark = pytest.mark.slow

# Molten soon from a crystal of this density.
LATTICE, TEMPERATURE, PRESSURE, DT = 6.0, 130.0, 300 * units.BAR, 4 * units.FS


def liquid(numbers, masses):
    atoms = ase.build.bulk("Ar", "fcc", a=LATTICE, cubic=True) * (3, 3, 3)
    return difmd.make_system(
        atoms.positions, np.resize(numbers, 108), masses=np.resize(masses, 108), cell=np.asarray(atoms.cell)
    )


@pytest.mark.parametrize("name", ["argon", "mixture"])
def test_every_row_passes(name):
    species, numbers, masses = {
        "argon": (["Ar"], [18], [39.948]),
        "mixture": (["Ar", "Kr"], [18, 36], [20.0, 83.8]),
    }[name]
    potential = difmd.lennard_jones(
        species, sigma=3.405, epsilon=119.8 * units.KB, cutoff=8.0, truncation=difmd.switched(7.0)
    )
    found = difmd.validate(
        potential, potential.init(jax.random.key(0)), liquid(numbers, masses), temperature=TEMPERATURE,
        pressure=PRESSURE, dt=DT, key=jax.random.key(0),
    )  # fmt: skip
    print(found)
    assert found.passed
    outcomes = {check.outcome for check in found.checks if check.group != "equipartition"}
    assert outcomes == {"passed"}
    equal = [check for check in found.checks if check.group == "equipartition"]
    assert [check.outcome for check in equal] == ["passed"] * 2 if name == "mixture" else ["not applicable"]
