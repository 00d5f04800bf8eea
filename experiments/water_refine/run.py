"""A network trained on first-principles water, refined against the measured diffusivity.

`python experiments/water_refine/run.py`; the README beside this file says what came out. Each iteration
follows replicas of 64 molecules, differentiates their diffusivity through the dynamics and through the
distribution of the starts, and adds the loss of a batch of first-principles frames, which holds the errors of
forces.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import networks_common as common

import difmd
from difmd import data, fitting, training, units

TEMPERATURE = 330.0
VISCOSITY = 489e-6 * units.PA_S
"""Of water at 330 K: IAPWS R12-08 (Huber et al., J. Phys. Chem. Ref. Data 38, 101 (2009)), 0.1 MPa."""

OXYGEN = 8


class Size(NamedTuple):
    """What is run."""

    cutoff: float
    epochs: int
    n_replicas: int
    n_gradient_replicas: int
    picoseconds: float
    iterations: int


SIZES = {
    "quick": Size(4.0, 10, 2, 2, 1.0, 1),
    # Finishes on two cores.
    "small": Size(4.0, 100, 8, 2, 4.0, 6),
    # For a GPU.
    "full": Size(5.0, 300, 64, 64, 8.0, 20),
}


def main() -> int:
    """Train, refine, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="of the refinement")
    parser.add_argument("--force-weight", type=float, default=100.0, help="of the first-principles loss")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights, momenta and batches")
    parser.add_argument("--quick", action="store_true", help="to see that all works: --size quick")
    parser.add_argument("--out", type=Path, default=Path("runs/water_refine"), help="run folder")
    return common.run(experiment, parser)


def experiment(arguments: argparse.Namespace) -> dict[str, Any]:
    """Validation errors and diffusivity, before and after."""
    name = "quick" if arguments.quick else arguments.size
    size, folder = SIZES[name], arguments.out / f"{name}_seed_{arguments.seed}"
    frames = common.read("water_pbe0ts_deepmd/train.extxyz.gz")
    parts = data.apply_split(frames, data.split(frames, valid=40, seed=arguments.seed))
    network, trained = train(parts, size, folder, arguments.seed)
    sampling = fitting.Sampling(
        n_atoms=frames[0].system.n_atoms,
        n_replicas=size.n_replicas,
        n_gradient_replicas=size.n_gradient_replicas,
        dt=0.5 * units.FS,
        friction=2 / units.PS,
        relaxation_time=0.5 * units.PS,
        production_time=size.picoseconds * units.PS,
        window=(0.1 * size.picoseconds * units.PS, 0.35 * size.picoseconds * units.PS),
        gradient_window=(0.06 * units.PS, 0.12 * units.PS),
        origin_time=0.05 * units.PS,
        save_every=10,
        skin=0.4,
    )
    keys = jax.random.split(jax.random.key(arguments.seed), 4)
    target = measured(frames[0].system)
    print("boxes from the frames, equilibrated with the network", flush=True)
    starts = fitting.given_replicas(
        network, [frame.system for frame in parts.train[: size.n_replicas]], sampling=sampling
    )
    starts = fitting.equilibrate(
        network, trained.params, starts, temperature=TEMPERATURE, time=size.picoseconds / 2 * units.PS,
        sampling=sampling, key=keys[0],
    )  # fmt: skip
    terms = [
        fitting.state_points(network, trained.params, [target], sampling=sampling, replicas=[starts]),
        fitting.first_principles(
            network, trained.params, parts.train, references=trained.references,
            weight=arguments.force_weight, batch_size=16,
        ),
    ]  # fmt: skip
    began = time.monotonic()
    fit = fitting.fit(
        trained.params, terms, n_iterations=size.iterations, key=keys[1],
        optimizer=optax.adam(arguments.learning_rate), transform=fitting.identity(),
        folder=folder / "refined",
    )  # fmt: skip
    rows = {}
    for which, params, key in (("trained", trained.params, keys[2]), ("refined", fit.last_params, keys[2])):
        relaxed = fitting.equilibrate(
            network, params, starts, temperature=TEMPERATURE, time=1 * units.PS, sampling=sampling, key=key
        )
        found, _ = fitting.measure_diffusivity(
            network, params, target, relaxed, sampling=sampling, key=jax.random.fold_in(key, 1)
        )
        errors = training.report(network, trained, params=params, valid=parts.valid)
        rows[which] = {
            "D_1e-9_m2_s": found.value / units.D,
            "D_stderr_1e-9_m2_s": found.stderr / units.D,
            **{name: round(value, 3) for name, value in errors.summary("valid").items()},
        }
        print(which, rows[which], flush=True)
    plot(fit.history, target, folder / "refinement.png")
    return {
        **rows,
        "D_measured_1e-9_m2_s": target.diffusivity / units.D,
        "finite_size_correction_1e-9_m2_s": found.correction / units.D,
        "size": name,
        "n_params": int(sum(np.size(x) for x in jax.tree.leaves(trained.params))),
        "seconds_per_iteration": (time.monotonic() - began) / size.iterations,
        "history": [
            {**entry["state_points"], "F_rmse_meV_A": entry["first_principles"]["F_rmse_meV_A"]}
            for entry in fit.history
        ],
    }


def train(
    parts: data.Parts, size: Size, folder: Path, seed: int
) -> tuple[difmd.Potential, training.TrainingResult]:
    """A small network that sees angles, quick to run; goes on where it was interrupted."""
    stats = data.statistics(parts.train, cutoff=size.cutoff)
    network = difmd.invariant(
        stats.species, cutoff=size.cutoff, n_features=24,
        avg_num_neighbors=stats.avg_num_neighbors**0.5, scale=stats.scale,
    )  # fmt: skip
    recipe = training.Recipe(n_epochs=size.epochs, batch_size=2, validate_every=5, seed=seed)
    return network, training.train(
        network, parts.train, valid=parts.valid, references=stats.references, recipe=recipe,
        folder=folder / "trained",
    )  # fmt: skip


def measured(system: difmd.System) -> fitting.DiffusivityTarget:
    """D of oxygen at 330 K, between the rows of the table, at the density of the box."""
    path = common.SHARED / "exp_water_selfdiffusion" / "holz2000_formula.csv"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    d = np.interp(TEMPERATURE, *(([float(r[k]) for r in rows]) for k in ("T_K", "D_1e-9_m2_s")))
    volume = abs(np.linalg.det(np.asarray(system.cell, np.float64)))
    return fitting.DiffusivityTarget(
        temperature=TEMPERATURE,
        diffusivity=float(d) * units.D,
        density=float(np.sum(np.asarray(system.masses))) / volume,
        viscosity=VISCOSITY,
        species=OXYGEN,
    )


def plot(history: list[dict[str, Any]], target: fitting.DiffusivityTarget, path: Path) -> None:
    """D and the errors of forces over the iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    points = [entry["state_points"] for entry in history]
    steps = np.arange(len(points))
    left.errorbar(
        steps, [p["D_1e-9_m2_s"][0] for p in points], [p["D_stderr_1e-9_m2_s"][0] for p in points],
        marker="o", capsize=3,
    )  # fmt: skip
    left.axhline(target.diffusivity / units.D, color="k", ls="--", label="measured")
    left.set(xlabel="iteration", ylabel="D of oxygen [10⁻⁹ m²/s]")
    left.legend(frameon=False)
    errors = [entry["first_principles"]["F_rmse_meV_A"] for entry in history]
    right.plot(steps, errors, marker="o")
    right.set(xlabel="iteration", ylabel="RMSE of forces, batch [meV/Å]", ylim=(0, 1.1 * max(errors)))
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
