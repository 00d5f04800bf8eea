"""Gas-phase methanol from density functional theory, for training and tests.

Langevin dynamics on the surface of PBE0/def2-SVP (PySCF, density fitting), several trajectories at two
temperatures, of which every few steps are kept with energy, forces and dipole. Takes hours on two cores, and
goes on with the next trajectory where it was interrupted. Needs the extra `datasets`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import ase
import ase.md.langevin
import ase.units
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from difmd.progress import progress_bar

SETTINGS = {
    "method": "PBE0",
    "basis": "def2-svp",
    "auxiliary_basis": "def2-universal-jkfit",
    "grid_level": 3,
    "energy_convergence_hartree": 1e-9,
    "time_step_fs": 1.0,
    "friction_1/fs": 0.02,
    "temperatures_K": [300.0, 600.0],
    "trajectories_each": 4,
    "equilibration_steps": 60,
    "steps_between_frames": 3,
    "frames_each": 125,
}


class PySCF(Calculator):
    """Energy, forces and dipole of a closed-shell molecule."""

    implemented_properties = ("energy", "forces", "dipole")

    def __init__(self) -> None:
        """Start without a density to guess from."""
        super().__init__()
        self.density: Any = None

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """One self-consistent field and its gradient."""
        from pyscf import dft, gto

        super().calculate(atoms, properties, system_changes)
        molecule = gto.M(
            atom=list(zip(self.atoms.get_chemical_symbols(), self.atoms.positions, strict=True)),
            basis=SETTINGS["basis"], unit="Angstrom", verbose=0,
        )  # fmt: skip
        field = dft.RKS(molecule, xc=SETTINGS["method"]).density_fit(auxbasis=SETTINGS["auxiliary_basis"])
        field.grids.level = SETTINGS["grid_level"]
        field.conv_tol = SETTINGS["energy_convergence_hartree"]
        energy = field.kernel(dm0=self.density)
        if not field.converged:
            raise RuntimeError(f"no self-consistent field for {self.atoms.positions.tolist()}")
        self.density = field.make_rdm1()
        gradient = field.nuc_grad_method()
        gradient.grid_response = True
        self.results = {
            "energy": energy * ase.units.Hartree,
            "forces": -gradient.kernel() * ase.units.Hartree / ase.units.Bohr,
            "dipole": field.dip_moment(unit="AU", verbose=0) * ase.units.Bohr,
        }


def main() -> int:
    """Run what is not there yet, and put it into one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one frame of each trajectory, unequilibrated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/methanol_aimd"), help="run folder")
    arguments = parser.parse_args()
    try:
        import pyscf
    except ImportError:
        print('PySCF is not installed: pip install "difmd[datasets]"')
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    n_frames = 1 if arguments.quick else SETTINGS["frames_each"]
    began = time.monotonic()
    start = relaxed()
    parts = []
    for temperature in SETTINGS["temperatures_K"]:
        for number in range(SETTINGS["trajectories_each"]):
            file = arguments.out / f"{temperature:.0f}K_{number}.npz"
            if not file.exists():
                n_start = 0 if arguments.quick else SETTINGS["equilibration_steps"]
                seed = [arguments.seed, int(temperature), number]
                np.savez(file, **trajectory(start, temperature, seed, n_start, n_frames))
            with np.load(file, allow_pickle=False) as stored:
                parts.append(dict(stored))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    about = {**SETTINGS, "seed": arguments.seed, "pyscf": pyscf.__version__, "frames_each": n_frames}
    np.savez_compressed(
        arguments.out / "methanol.npz", atomic_numbers=start.numbers,
        settings=np.frombuffer(json.dumps(about).encode(), np.uint8), **whole,
    )  # fmt: skip
    report = {
        **about,
        "frames": len(whole["energy"]),
        "force_rms_eV_A": float(np.sqrt(np.mean(whole["forces"] ** 2))),
        "energy_std_meV": float(1e3 * whole["energy"].std()),
        "net_force_max_eV_A": float(np.abs(whole["forces"].sum(axis=1)).max()),
        "dipole_mean_D": float(np.linalg.norm(whole["dipole"], axis=1).mean() / 0.2081943),
        "wall_s": round(time.monotonic() - began, 1),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0


def relaxed() -> ase.Atoms:
    """Methanol at the minimum."""
    import ase.build
    import ase.optimize

    atoms = ase.build.molecule("CH3OH")
    atoms.calc = PySCF()
    ase.optimize.BFGS(atoms, logfile=None).run(fmax=1e-3, steps=200)
    return atoms


def trajectory(
    start: ase.Atoms, temperature: float, seed: list[int], n_start: int, n_frames: int
) -> dict[str, np.ndarray]:
    """Frames of Langevin dynamics from the minimum."""
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation

    rng = np.random.default_rng(seed)
    atoms = start.copy()
    atoms.calc = PySCF()
    # Half of the kinetic energy becomes potential energy.
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=rng)
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = ase.md.langevin.Langevin(
        atoms, SETTINGS["time_step_fs"] * ase.units.fs, temperature_K=temperature,
        friction=SETTINGS["friction_1/fs"] / ase.units.fs, rng=rng, fixcm=False,
    )  # fmt: skip
    kept: dict[str, list[Any]] = {name: [] for name in ("positions", "energy", "forces", "dipole", "kind")}
    with progress_bar(f"methanol {temperature:.0f} K", n_frames) as advance:
        dynamics.run(n_start)
        for _ in range(n_frames):
            dynamics.run(SETTINGS["steps_between_frames"])
            found = atoms.calc.results
            kept["positions"].append(atoms.positions - atoms.get_center_of_mass())
            for name in ("energy", "forces", "dipole"):
                kept[name].append(found[name])
            kept["kind"].append(f"{temperature:.0f} K")
            advance(1)
    return {name: np.asarray(values) for name, values in kept.items()}


if __name__ == "__main__":
    sys.exit(main())
