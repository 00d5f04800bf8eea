"""Many-body potentials against LAMMPS; lammps.json is what make_lammps.py wrote."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ase.calculators.eam import EAM
from solids import crystal, eam_tables, write_funcfl, write_setfl

import difmd

EXPECTED = json.loads((Path(__file__).parent / "lammps.json").read_text(encoding="utf-8"))
FEELING = np.array([0.9, 1.15])[:, None]


def gallium_nitride():
    return difmd.stillinger_weber(
        ["Ga", "N"],
        epsilon=[[1.2, 2.17], [2.17, 1.2]],
        sigma=[[2.1, 1.695], [1.695, 1.3]],
        a=[[1.6, 1.8], [1.8, 1.8]],
        lambda_=32.5,
        A=7.917,
        B=0.72,
    )


def finnis_sinclair():
    tables = eam_tables()
    density = np.stack([tables.pop("density"), FEELING * eam_tables()["density"]])
    return difmd.embedded_atom(["Cu", "Ag"], density=density, **tables)


# LAMMPS has its own interpolation of tables, and rounds √(ε_ij ε_ik) in its file for gallium nitride.
CASES = {
    "stillinger_weber Si": (
        "Si", lambda: difmd.stillinger_weber(["Si"], epsilon=2.1683, sigma=2.0951), 1e-9,
    ),
    "stillinger_weber GaN": ("GaN", gallium_nitride, 1e-6),
    "tersoff Si": ("Si", lambda: difmd.tersoff(["Si"]), 1e-9),
    "tersoff SiC": ("SiC", lambda: difmd.tersoff(["Si", "C"]), 1e-9),
    "embedded_atom CuAg": ("CuAg", lambda: difmd.embedded_atom(["Cu", "Ag"], **eam_tables()), 1e-6),
    "embedded_atom CuAg, Finnis-Sinclair": ("CuAg", finnis_sinclair, 1e-6),
}  # fmt: skip


def evaluated(potential, atoms):
    system = difmd.from_ase(atoms)
    neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff, skin=0.3)
    return difmd.evaluate(potential, potential.init(jax.random.key(0)), system, neighbors)


@pytest.mark.quick("embedded_atom CuAg")
@pytest.mark.parametrize("name", CASES)
def test_energy_forces_and_stress(name):
    which, make, tolerance = CASES[name]
    found = evaluated(make(), crystal(which, seed=len(name)))
    for quantity in ("energy", "forces", "stress"):
        expected = np.asarray(EXPECTED[name][quantity])
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(
            getattr(found, quantity), expected, rtol=tolerance, atol=tolerance * scale, err_msg=quantity
        )


@pytest.mark.slow
def test_a_file_of_one_metal(tmp_path):
    file = tmp_path / "made_up.eam"
    write_funcfl(file, eam_tables())
    found = evaluated(difmd.read_eam(file), crystal("Cu", seed=len("embedded_atom Cu")))
    for quantity in ("energy", "forces", "stress"):
        expected = np.asarray(EXPECTED["embedded_atom Cu"][quantity])
        tolerance = 1e-6 * np.max(np.abs(expected))
        np.testing.assert_allclose(getattr(found, quantity), expected, atol=tolerance, err_msg=quantity)


@pytest.mark.quick("fs")
@pytest.mark.parametrize("ending", ["alloy", "fs"])
def test_files_of_the_embedded_atom_method(tmp_path, ending):
    """What is read is what ASE's calculator reads."""
    tables = eam_tables()
    if ending == "fs":
        tables["density"] = np.stack([tables["density"], FEELING * tables["density"]])
    file = tmp_path / f"CuAg.{ending}"
    write_setfl(file, tables, finnis_sinclair=ending == "fs")
    atoms = crystal("CuAg", seed=3)
    found = evaluated(difmd.potentials.read_eam(file), atoms)
    direct = evaluated(difmd.embedded_atom(["Cu", "Ag"], **tables), atoms)
    np.testing.assert_allclose(found.forces, direct.forces, atol=1e-8)
    atoms.calc = EAM(potential=str(file))
    np.testing.assert_allclose(found.energy, atoms.get_potential_energy(), rtol=1e-7)
    only = evaluated(difmd.potentials.read_eam(file, ["Ag"]), atoms[atoms.symbols == "Ag"])
    silver = atoms[atoms.symbols == "Ag"]
    silver.calc = EAM(potential=str(file))
    np.testing.assert_allclose(only.energy, silver.get_potential_energy(), rtol=1e-7)


@pytest.mark.quick("silicon")
@pytest.mark.parametrize(
    ("make", "cohesive", "lattice"),
    [
        # Stillinger & Weber 1985: 4.3363 eV with ε = 2.1682 eV; the lattice by (4/√3) 1.1225 σ.
        (lambda: difmd.stillinger_weber(["Si"], epsilon=2.1683, sigma=2.0951), -2 * 2.1683, 5.431),
        # Tersoff 1989, table II: 4.63 eV, 5.432 Å.
        (lambda: difmd.tersoff(["Si"]), -4.63, 5.432),
        (lambda: difmd.tersoff(["C"]), -7.37, 3.566),
        (lambda: difmd.tersoff(["Ge"]), -3.85, 5.657),
    ],
    ids=["stillinger_weber", "silicon", "carbon", "germanium"],
)
def test_diamond_lattice_and_cohesion(make, cohesive, lattice):
    import ase.build

    (z,) = make().species
    symbol = ase.data.chemical_symbols[z]
    found = evaluated(make(), ase.build.bulk(symbol, "diamond", a=lattice))
    np.testing.assert_allclose(found.energy / 2, cohesive, atol=6e-3)
    assert np.abs(np.trace(found.stress)) / 3 < 0.002
