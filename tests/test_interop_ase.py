"""The calculator for ASE."""

import ase.build
import ase.optimize
import jax
import numpy as np
import pytest
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.constraints import FixAtoms, FixCartesian
from ase.filters import FrechetCellFilter

import difmd
from difmd import units
from difmd.errors import InputError
from difmd.interop.ase import Calculator

ARGON = difmd.lennard_jones(
    ["Ar"], sigma=3.405, epsilon=119.8 * units.KB, cutoff=8.5, truncation=difmd.switched(7.5)
)


def argon(**kwargs):
    return Calculator(ARGON, ARGON.init(jax.random.key(0)), **kwargs)


def test_forces_and_stress_are_those_of_the_energy():
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = argon()
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-7)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-8)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)


def test_the_list_is_reused_and_renewed():
    """Small moves reuse the list; large ones, a strain, or other atoms require a new one."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.calc = argon(skin=0.6)
    atoms.get_potential_energy()
    first = atoms.calc._neighbors
    atoms.positions[0] += [0.1, 0.1, 0.1]
    atoms.get_potential_energy()
    assert atoms.calc._neighbors is first
    for change in (
        lambda: atoms.positions.__setitem__(1, atoms.positions[1] + 0.7),
        lambda: atoms.set_cell(1.1 * atoms.cell[:], scale_atoms=True),
        lambda: atoms.__delitem__(0),
        lambda: atoms.set_pbc([True, True, False]),
    ):
        change()
        energy = atoms.get_potential_energy()
        fresh = atoms.copy()
        fresh.calc = argon()
        assert energy == pytest.approx(fresh.get_potential_energy(), rel=1e-12)
    with pytest.raises(Exception, match="stress"):
        atoms.get_stress()


def test_a_crystal_relaxes():
    atoms = ase.build.bulk("Ar", "fcc", a=5.6)
    atoms.calc = argon()
    ase.optimize.BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-5, steps=100)
    assert np.abs(atoms.get_stress()).max() < 1e-5
    # Without the truncation the lattice constant is 1.542 σ = 5.25 Å.
    assert (4 * atoms.get_volume()) ** (1 / 3) == pytest.approx(5.25, abs=0.04)


@pytest.mark.filterwarnings("error")
def test_constraints_are_those_of_ase():
    """ASE applies them to the forces of all atoms, and difmd does not warn of constraints."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = argon()
    free = atoms.get_forces()
    atoms.set_constraint([FixAtoms([0]), FixCartesian(1, [True, False, False])])
    atoms.calc = argon()
    np.testing.assert_array_equal(atoms.get_forces(apply_constraint=False), free)
    np.testing.assert_array_equal(atoms.get_forces()[0], 0)
    np.testing.assert_array_equal(atoms.get_forces()[1, 1:], free[1, 1:])


def test_bad_input_is_named():
    atoms = ase.build.bulk("Kr", "fcc", a=5.6)
    atoms.calc = argon()
    with pytest.raises(InputError, match="only for Ar"):
        atoms.get_potential_energy()
    with pytest.raises(InputError, match="skin"):
        argon(skin=-1.0)
    with pytest.raises(InputError, match="for a saved model"):
        Calculator(difmd.Model(ARGON, {}, {}), {})
    broken = ase.Atoms("Ar2", [[0, 0, 0], [0, 0, np.nan]])
    broken.calc = argon()
    with pytest.raises(InputError, match="finite"):
        broken.get_potential_energy()


@pytest.mark.slow
def test_potentials_with_charges_have_dipoles():
    network = difmd.mace(["H", "O"], cutoff=3.0, n_features=2, l_max=1, correlation=2, charges=True)
    atoms = ase.build.molecule("H2O")
    atoms.calc = Calculator(network, network.init(jax.random.key(0)))
    dipole, charges = atoms.get_dipole_moment(), atoms.get_charges()
    assert np.linalg.norm(dipole) > 0
    np.testing.assert_allclose(dipole, charges @ atoms.positions, atol=1e-12)
