"""Gas-phase methanol from density functional theory: frames for training and tests, as they ship with difmd.

Frames that follow each other in dynamics are alike, and each costs a self-consistent field. So the dynamics
that the frames are taken from run on a network that was fitted to the same theory on the way: (1) some
steps of Langevin dynamics on forces of density functional theory, (2) a network fitted to these frames, (3)
dynamics of many replicas with it, of which some frames are computed and added, (4) a better network, (5)
its dynamics at two temperatures, of which frames 100 fs apart are computed and kept. How far the last
network was from the theory on the frames kept is reported. Goes on where it was interrupted. Needs the
extra `datasets`.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
import ase.build
import ase.io
import ase.optimize
import ase.units
import jax
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

import difmd
from difmd import data, potentials, training, units
from difmd._internal.progress import progress_bar
from difmd.data import Frame
from difmd.potentials import Potential

SETTINGS: dict[str, Any] = {
    "method": "PBE0",
    "basis": "def2-svp",
    "auxiliary_basis": "def2-universal-jkfit",
    "grid_level": 2,
    "energy_convergence_hartree": 1e-8,
    "time_step_fs": 0.5,
    "friction_1/fs": 0.01,
    "temperatures_K": [300.0, 600.0],
    "first_steps": 160,
    "added_frames": 120,
    "frames_each": 500,
    "replicas_each": 20,
    "equilibration_fs": 2000.0,
    "fs_between_frames": 100.0,
}
NETWORK: dict[str, Any] = {"cutoff": 4.0, "n_features": 16, "l_max": 2, "l_max_features": 1}


def main() -> int:
    """Run what is not there yet, and put it into one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few frames, badly equilibrated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/methanol_aimd"), help="run folder")
    arguments = parser.parse_args()
    difmd.enable_cache()
    try:
        import pyscf
    except ImportError:
        print('PySCF is not installed: pip install "difmd[datasets]"')
        return 1
    settings = dict(SETTINGS)
    if arguments.quick:
        settings.update(
            first_steps=24, added_frames=4, frames_each=4, replicas_each=2, equilibration_fs=20.0,
            fs_between_frames=10.0,
        )  # fmt: skip
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    start = relaxed(out / "minimum.npy", settings)
    keys = jax.random.split(jax.random.key(arguments.seed), 3)[:2]
    first = start_frames(start, settings, arguments.seed, out / "first.npz")
    network, rough = fit(first, out / "network_first", arguments)
    each = settings["added_frames"] // 2
    geometries = sample(network, rough.params, start, settings, each, 10.0, keys[0])
    added = label(geometries, start, settings, out / "added.npz")
    network, better = fit([*first, *added], out / "network_added", arguments)
    params = better.params
    geometries = sample(
        network, params, start, settings, settings["frames_each"], settings["fs_between_frames"], keys[1]
    )
    frames = label(geometries, start, settings, out / "kept.npz")
    kinds = np.repeat([f"{t:.0f} K" for t in settings["temperatures_K"]], settings["frames_each"])
    about = {
        "theory": "restricted Kohn-Sham, density fitting, forces with the response of the grid",
        "units": "Å, eV, eV/Å, e·Å; total energies of all electrons",
        **settings,
        "seed": arguments.seed,
        "pyscf": pyscf.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    write(out / "methanol.extxyz.gz", frames, kinds)
    errors = training.report(network, better, valid=frames).rows[0].errors
    forces, energies, dipoles = (
        np.stack([getattr(f, name) for f in frames]) for name in ("forces", "energy", "dipole")
    )
    report = {
        **about,
        "frames": len(frames),
        "force_rms_eV_A": float(np.sqrt(np.mean(forces**2))),
        "energy_std_meV": float(1e3 * energies.std()),
        "net_force_max_eV_A": float(np.abs(forces.sum(axis=1)).max()),
        "dipole_mean_D": float(np.linalg.norm(dipoles, axis=1).mean() / 0.2081943),
        "network_that_sampled": {
            "F_rmse_meV_A": 1e3 * errors.forces_rmse,
            "E_rmse_meV": 1e3 * errors.energy_rmse * len(start),
        },
        "wall_s": round(time.monotonic() - began, 1),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(report, indent=1))
    return 0


class Theory(Calculator):
    """Energy, forces and dipole of a closed-shell molecule; it starts from the density that it had last."""

    implemented_properties = ["energy", "forces", "dipole"]

    def __init__(self, settings: dict[str, Any]) -> None:
        """No density to start from yet."""
        super().__init__()
        self.settings, self.density = settings, None

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """One self-consistent field and its gradient."""
        from pyscf import dft, gto

        super().calculate(atoms, properties, system_changes)
        molecule = gto.M(
            atom=list(zip(self.atoms.numbers.tolist(), self.atoms.positions.tolist(), strict=True)),
            basis=self.settings["basis"], unit="Angstrom", verbose=0,
        )  # fmt: skip
        field = dft.RKS(molecule, xc=self.settings["method"])
        field = field.density_fit(auxbasis=self.settings["auxiliary_basis"])
        field.grids.level = self.settings["grid_level"]
        field.conv_tol = self.settings["energy_convergence_hartree"]
        energy = field.kernel(dm0=self.density)
        if not field.converged:
            raise RuntimeError(f"no self-consistent field for {self.atoms.positions.tolist()}")
        self.density = field.make_rdm1()
        gradient = field.nuc_grad_method()
        # Without the response of the grid the forces do not add up to zero.
        gradient.grid_response = True
        self.results = {
            "energy": energy * ase.units.Hartree,
            "forces": -gradient.kernel() * ase.units.Hartree / ase.units.Bohr,
            "dipole": field.dip_moment(unit="AU", verbose=0) * ase.units.Bohr,
        }


def relaxed(file: Path, settings: dict[str, Any]) -> ase.Atoms:
    """Methanol at the minimum."""
    atoms = ase.build.molecule("CH3OH")
    if file.exists():
        atoms.positions = np.load(file, allow_pickle=False)
        return atoms
    atoms.calc = Theory(settings)
    ase.optimize.BFGS(atoms, logfile=None).run(fmax=1e-2, steps=100)
    np.save(file, atoms.positions)
    return atoms


def start_frames(start: ase.Atoms, settings: dict[str, Any], seed: int, file: Path) -> list[Frame]:
    """Every other step of Langevin dynamics with forces of the theory, at the higher temperature."""
    if not file.exists():
        rng = np.random.default_rng(seed)
        atoms = start.copy()
        atoms.calc = Theory(settings)
        temperature = max(settings["temperatures_K"])
        # Half of the kinetic energy becomes potential energy.
        thermalize_momenta(atoms, 2 * temperature, rng=rng)
        dynamics = Langevin(
            atoms, 2 * settings["time_step_fs"] * ase.units.fs, temperature_K=temperature,
            friction=settings["friction_1/fs"] / ase.units.fs, rng=rng, fixcm=False,
        )  # fmt: skip
        kept: list[Any] = []
        with progress_bar("dynamics on the theory itself", settings["first_steps"]) as advance:
            for _ in range(settings["first_steps"] // 2):
                dynamics.run(2)
                kept.append(_computed(atoms))
                advance(2)
        _store(file, kept)
    return _frames(file, start.numbers)


def label(geometries: np.ndarray, start: ase.Atoms, settings: dict[str, Any], file: Path) -> list[Frame]:
    """Energies, forces and dipoles of geometries; every 20 are written."""
    done = _load(file) if file.exists() else []
    stored = np.array([row[0] for row in done]).reshape(-1, len(start), 3)
    if not np.allclose(stored, geometries[: len(stored)], atol=1e-3):
        raise SystemExit(f"{file} holds other geometries: delete it")
    atoms = start.copy()
    atoms.calc = Theory(settings)
    with progress_bar(f"frames of {file.stem}", len(geometries)) as advance:
        advance(len(done))
        for k in range(len(done), len(geometries)):
            atoms.positions = geometries[k]
            atoms.get_forces()
            done.append(_computed(atoms))
            advance(1)
            if len(done) % 20 == 0 or len(done) == len(geometries):
                _store(file, done)
    return _frames(file, start.numbers)


def fit(
    frames: list[Frame], folder: Path, arguments: argparse.Namespace
) -> tuple[Potential, training.TrainingResult]:
    """A network for the dynamics."""
    parts = data.apply_split(frames, data.split(frames, valid=0.1, seed=arguments.seed))
    stats = data.statistics(parts.train, cutoff=NETWORK["cutoff"])
    network = potentials.mace(
        stats.species, scale=stats.scale, avg_num_neighbors=stats.avg_num_neighbors, **NETWORK
    )
    recipe = training.Recipe(
        n_epochs=2 if arguments.quick else 600,
        batch_size=8,
        seed=arguments.seed,
        validate_every=20,
        learning_rate=5e-3,
        final_weights=training.Weights(30.0, 1.0, 1.0),
    )
    found = training.train(
        network, parts.train, valid=parts.valid, references=references(frames), recipe=recipe, folder=folder
    )
    best = min(found.history, key=lambda entry: entry["valid_loss"])
    print(f"{folder.name}: F {1e3 * best['forces_rmse']:.1f} meV/Å on {len(parts.valid)} frames held out")
    return network, found


def references(frames: list[Frame]) -> dict[int, float]:
    """Of one composition only the sum is known: all of it goes to one element."""
    mean = float(np.mean([frame.energy for frame in frames]))
    return {1: 0.0, 6: mean, 8: 0.0}


def sample(
    network: Potential,
    params: Any,
    start: ase.Atoms,
    settings: dict[str, Any],
    frames_each: int,
    apart: float,
    key: Any,
) -> np.ndarray:
    """Geometries of Langevin dynamics at each temperature; [temperatures · frames_each, atoms, 3]."""
    replicas = min(settings["replicas_each"], frames_each)
    one = difmd.from_ase(start)
    system = jax.tree.map(lambda x: np.stack([np.asarray(x)] * replicas), one)
    dt = settings["time_step_fs"]
    every = round(apart / dt)
    found = []
    for number, temperature in enumerate(settings["temperatures_K"]):
        bath = difmd.langevin(
            dt=dt * units.FS, temperature=temperature, friction=settings["friction_1/fs"] / units.FS
        )
        own = jax.random.fold_in(key, number)
        settled = difmd.simulate(
            network, params, system, bath, n_steps=round(settings["equilibration_fs"] / dt),
            initial_temperature=temperature, key=own, save_every=round(settings["equilibration_fs"] / dt),
        )  # fmt: skip
        n_frames = -(-frames_each // replicas)
        run = difmd.simulate(network, params, settled.state, bath, n_steps=n_frames * every, save_every=every)
        found.append(np.asarray(run.positions, np.float64).reshape(-1, len(start), 3)[:frames_each])
        print(f"{temperature:.0f} K: kinetic temperature {float(np.mean(run.temperature)):.0f} K")
    return np.concatenate(found)


def write(file: Path, frames: Sequence[Frame], kinds: Sequence[str]) -> None:
    """Extended XYZ, compressed; the same frames give the same bytes."""
    text = io.StringIO()
    for frame, kind in zip(frames, kinds, strict=True):
        masses = np.asarray(frame.system.masses)
        center = masses @ frame.positions / masses.sum()
        atoms = ase.Atoms(frame.numbers, frame.positions - center, info={"config_type": str(kind)})
        atoms.calc = SinglePointCalculator(
            atoms, energy=frame.energy, forces=frame.forces, dipole=frame.dipole
        )
        ase.io.write(text, atoms, format="extxyz")
    with file.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
        packed.write(text.getvalue().encode())


def _computed(atoms: ase.Atoms) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    found = atoms.calc.results
    return atoms.positions.copy(), found["energy"], found["forces"], found["dipole"]


def _store(file: Path, rows: list[Any]) -> None:
    names = ("positions", "energy", "forces", "dipole")
    part = file.with_suffix(".part.npz")
    np.savez(part, **{name: np.stack([row[k] for row in rows]) for k, name in enumerate(names)})
    part.replace(file)


def _load(file: Path) -> list[Any]:
    with np.load(file, allow_pickle=False) as stored:
        return list(
            zip(stored["positions"], stored["energy"], stored["forces"], stored["dipole"], strict=True)
        )


def _frames(file: Path, numbers: np.ndarray) -> list[Frame]:
    return [
        Frame(
            system=difmd.system.host_system(positions, numbers), energy=float(energy), forces=forces,
            dipole=dipole,
        )
        for positions, energy, forces, dipole in _load(file)
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
