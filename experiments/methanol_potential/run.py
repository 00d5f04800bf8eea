"""From first-principles frames to dynamics: a network for methanol, trained on the set that ships with difmd.

Trains, tells the errors on frames never seen, and runs dynamics without a bath, whose energy has to stay.
`python run.py --help` lists the options; the README beside this file says what it gave.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import difmd
from difmd import data, datasets, plots, training, units

TEMPERATURE = 300.0
STEP = 0.5 * units.FS


def main() -> int:
    """Train, test, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, default=datasets.methanol(), help="what to train on")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--picoseconds", type=float, default=10.0, help="of dynamics")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights, the momenta")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that all works")
    parser.add_argument("--out", type=Path, default=Path("runs/methanol"), help="run folder")
    arguments = parser.parse_args()
    difmd.enable_cache()
    if arguments.quick:
        arguments.epochs, arguments.picoseconds = 5, 1.0
    out = arguments.out
    began = time.monotonic()
    try:
        frames = data.read(arguments.frames)
        chosen = data.split(frames, valid=0.1, test=0.1, by_kind=True, seed=arguments.seed)
        parts = data.apply_split(frames, chosen)
        network, fitted = fit(parts, arguments)
        found = training.report(network, fitted, valid=parts.valid, test=parts.test)
        print(found)
        run = dynamics(network, fitted, parts.test, arguments)
    except training.TrainingInterrupted as stopped:
        print(f"{stopped} (--out {out} does it)")
        return 130
    except difmd.errors.InputError as bad:
        print(bad)
        return 1
    difmd.save(out / "network.npz", network, fitted.params)
    plots.plot_training(fitted, path=out / "training.png")
    plots.plot_parity(found.residuals["test"], frames=parts.test, path=out / "parity.png")
    plots.plot_energy(run, path=out / "energy.png")
    report = {
        **found.as_json(),
        **conservation(run),
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "n_frames": {"train": len(parts.train), "valid": len(parts.valid), "test": len(parts.test)},
        "n_params": int(sum(np.size(x) for x in jax.tree.leaves(fitted.params))),
        "versions": {"difmd": difmd.__version__, "jax": jax.__version__},
        "n_cpus": os.cpu_count(),
        "wall_s": round(time.monotonic() - began, 1),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"{report['picoseconds']:.3g} ps without a bath, {report['replicas']} replicas: temperature "
        f"{report['temperature_K']:.0f} K, total energy drifts by "
        f"{report['drift_meV_atom_per_10ps']:.3f} meV/atom in 10 ps and strays by "
        f"{report['energy_std_meV_atom']:.3f}"
    )
    print(f"{report['wall_s']:.0f} s; network, report and plots in {out}")
    return 0


def fit(parts: Any, arguments: argparse.Namespace) -> tuple[difmd.Potential, training.TrainingResult]:
    """The network that `difmd.mace` makes by default, smaller, with vectors in its messages."""
    stats = data.statistics(parts.train, cutoff=4.0)
    network = difmd.mace(
        stats.species, cutoff=4.0, n_features=16, l_max=2, l_max_features=1, scale=stats.scale,
        avg_num_neighbors=stats.avg_num_neighbors,
    )  # fmt: skip
    recipe = training.Recipe(n_epochs=arguments.epochs, batch_size=8, validate_every=5, seed=arguments.seed)
    return network, training.train(
        network, parts.train, valid=parts.valid, references=stats.references, recipe=recipe,
        folder=arguments.out,
    )  # fmt: skip


def dynamics(
    network: difmd.Potential,
    fitted: training.TrainingResult,
    frames: list[data.Frame],
    arguments: argparse.Namespace,
) -> difmd.Trajectory:
    """Velocity Verlet from frames of that temperature if there are any, with momenta drawn for it."""
    cold = [frame for frame in frames if frame.kind == f"{TEMPERATURE:.0f} K"] or frames
    alike = [frame for frame in cold if np.array_equal(frame.numbers, cold[0].numbers)]
    starts = alike[: arguments.replicas]
    systems = jax.tree.map(lambda *x: np.stack(x), *(frame.system for frame in starts))
    n_steps = round(arguments.picoseconds * units.PS / STEP)
    return difmd.simulate(
        network, fitted.params, systems, difmd.velocity_verlet(dt=STEP), n_steps=n_steps,
        save_every=max(n_steps // 1000, 1), initial_temperature=TEMPERATURE,
        key=jax.random.key(arguments.seed),
    )  # fmt: skip


def conservation(run: difmd.Trajectory) -> dict[str, Any]:
    """How far the total energy goes in one direction, and how far it strays from that."""
    n_atoms = run.system.n_atoms
    energy = 1e3 * run.total_energy / n_atoms
    picoseconds = run.time
    slopes, offsets = np.polyfit(picoseconds, energy, 1)
    rest = energy - (np.outer(picoseconds, slopes) + offsets)
    return {
        "picoseconds": float(picoseconds[-1]),
        "replicas": len(slopes),
        "temperature_K": float(np.mean(run.temperature)),
        "drift_meV_atom_per_10ps": float(np.abs(10 * slopes).max()),
        "energy_std_meV_atom": float(rest.std(axis=0).max()),
    }


if __name__ == "__main__":
    sys.exit(main())
