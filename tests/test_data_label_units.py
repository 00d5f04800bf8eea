"""Units of labels: those that are known, and files that are in them."""

import ase.io
import pytest
from labelled import check, with_calculator

from difmd import units
from difmd.data import Units, read
from difmd.data.label_units import HARTREE, factors_of
from difmd.errors import InputError
from difmd.units import BOHR


def test_units(tmp_path):
    images = [with_calculator(seed) for seed in range(3)]
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
        (Units(energy="eVs"), r"Units\(energy='eVs'\) is unknown: use one of eV, meV, kcal/mol"),
        (Units(stress="GP"), r"Units\(stress='GP'\) is unknown: use one of GPa"),
        (Units(length=0.0), r"Units\(length=0.0\) must be finite and not zero"),
        (Units(energy=float("nan")), r"Units\(energy=nan\) must be finite"),
    ],
)
def test_unknown_units(given, message):
    with pytest.raises(InputError, match=message):
        factors_of(given)
