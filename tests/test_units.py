"""Units against ASE (eV, Å, amu, K as here) and against the SI constants of scipy."""

import ase.units
import pytest
import scipy.constants as si

from difmd import units

ASE = ase.units.create_units("2018")
EV, AMU, ANGSTROM = si.e, si.physical_constants["atomic mass constant"][0], 1e-10
TIME = ANGSTROM * (AMU / EV) ** 0.5

# One SI unit of each quantity in the internal unit.
FROM_SI = {
    "KB": si.k / EV,
    "FS": 1e-15 / TIME,
    "PS": 1e-12 / TIME,
    "GPA": 1e9 * ANGSTROM**3 / EV,
    "BAR": 1e5 * ANGSTROM**3 / EV,
    "KCAL_PER_MOL": 1e3 * si.calorie / si.N_A / EV,
    "KJ_PER_MOL": 1e3 / si.N_A / EV,
    "M2_PER_S": ANGSTROM**-2 * TIME,
    "D": 1e-9 * ANGSTROM**-2 * TIME,
    "PA_S": ANGSTROM**3 / EV / TIME,
    "KG_PER_M3": ANGSTROM**3 / AMU,
    "BOHR": si.physical_constants["Bohr radius"][0] / ANGSTROM,
    "COULOMB": EV / (4 * si.pi * si.epsilon_0) / ANGSTROM,
}


@pytest.mark.parametrize("name", FROM_SI)
def test_agrees_with_si(name):
    assert getattr(units, name) == pytest.approx(FROM_SI[name], rel=1e-8)


def test_every_unit_is_tested():
    public = {name for name in vars(units) if name.isupper() and not name.startswith("_")}
    assert public == set(FROM_SI)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (units.KB, ASE["kB"]),
        (units.FS, ASE["fs"]),
        (units.PS, 1e3 * ASE["fs"]),
        (units.GPA, ASE["GPa"]),
        (units.BAR, ASE["bar"]),
        (units.KCAL_PER_MOL, ASE["kcal"] / ASE["mol"]),
        (units.KJ_PER_MOL, ASE["kJ"] / ASE["mol"]),
        (units.M2_PER_S, ASE["m"] ** 2 / ASE["s"]),
        (units.D, 1e-9 * ASE["m"] ** 2 / ASE["s"]),
        (units.PA_S, ASE["Pascal"] * ASE["s"]),
        (units.KG_PER_M3, ASE["kg"] / ASE["m"] ** 3),
        (units.BOHR, ASE["Bohr"]),
        (units.COULOMB, 1 / (4 * si.pi * ASE["_eps0"]) * ASE["_e"] / ANGSTROM),
    ],
)
def test_agrees_with_ase(ours, theirs):
    assert ours == pytest.approx(theirs, rel=1e-8)
