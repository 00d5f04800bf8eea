"""Energies, forces and dipoles of formaldehyde (CCSD(T)-F12) from one network.

`python experiments/h2co_dipole/run.py` trains and evaluates; `--quick` for a few epochs. It goes on from its
folder after Ctrl-C.
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
from difmd import data, training

HERE = Path(__file__).resolve()
SHARED = Path(os.environ.get("DIFMD_SHARED_DATA", HERE.parents[3] / "shared" / "data"))
DATA = SHARED / "h2co_dipole" / "ccsdt_train.extxyz.gz"

# What there is to reach.
DIPOLE_ERROR_PERCENT, FORCES_MAE = 1.0, 5.0


def main() -> int:
    """Train and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1600, help="to train on")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-2)
    parser.add_argument("--dipole-weight", type=float, default=10.0, help="1/(e·Å)²")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--max-ell", type=int, default=2)
    parser.add_argument("--max-l", type=int, default=1)
    parser.add_argument("--cutoff", type=float, default=3.5, help="Å")
    parser.add_argument("--charges-only", action="store_true", help="no dipoles of the atoms themselves")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order")
    parser.add_argument("--quick", action="store_true", help="a few epochs of few frames")
    parser.add_argument("--out", type=Path, default=Path("runs/h2co_dipole"))
    arguments = parser.parse_args()
    if not DATA.exists():
        print(f"{DATA} is not there: set DIFMD_SHARED_DATA to the folder that holds h2co_dipole")
        return 1
    if arguments.quick:
        arguments.frames, arguments.epochs = 200, 5
    report = fit(arguments)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1), flush=True)
    return 0


def fit(arguments: argparse.Namespace) -> dict[str, Any]:
    """One training, and its errors on the frames that it never saw."""
    frames = data.read(DATA)
    # The frames that choose the parameters are not those that the errors are of.
    n_valid = (len(frames) - arguments.frames) // 2
    chosen = data.split(
        frames, valid=n_valid, test=len(frames) - arguments.frames - n_valid, seed=arguments.seed
    )
    parts = data.take_split(frames, chosen)
    stats = data.statistics(parts.train, cutoff=arguments.cutoff)
    network = difmd.mace(
        stats.species,
        cutoff=arguments.cutoff,
        channels=arguments.channels,
        max_L=arguments.max_l,
        max_ell=arguments.max_ell,
        avg_num_neighbors=stats.avg_num_neighbors,
        scale=stats.scale,
        charges=True,
        atomic_dipoles=not arguments.charges_only,
    )
    recipe = training.Recipe(
        n_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        start=training.Weights(1.0, 1.0, 0.0, arguments.dipole_weight),
        end=training.Weights(30.0, 1.0, 0.0, arguments.dipole_weight),
        validate_every=5,
        seed=arguments.seed,
    )

    def tell(entry: dict[str, Any]) -> None:
        print(
            f"{entry['epoch']:4d} {entry['seconds']:6.0f} s, E {1e3 * entry['energy_mae']:.3f} meV/atom, "
            f"F {1e3 * entry['forces_mae']:.2f} meV/Å, μ {100 * entry['dipole_error']:.3f} % "
            f"({1e3 * entry['dipole_rmse']:.2f} me·Å)",
            flush=True,
        )

    began = time.monotonic()
    result = training.train(
        network, parts.train, valid=parts.valid, references=stats.references, recipe=recipe, progress=False,
        folder=arguments.out, on_validation=tell,
    )  # fmt: skip
    difmd.save(arguments.out / "network.npz", network, result.params)
    rows = training.report(network, result, valid=parts.valid, test=parts.test).rows
    report: dict[str, Any] = {}
    for name in ("valid", "test"):
        errors = next(row.errors for row in rows if (row.part, row.by) == (name, "all"))
        found = {
            "E_rmse_meV_atom": 1e3 * errors.energy_rmse,
            "E_mae_meV_atom": 1e3 * errors.energy_mae,
            "F_rmse_meV_A": 1e3 * errors.forces_rmse,
            "F_mae_meV_A": 1e3 * errors.forces_mae,
            "dipole_rmse_meA": 1e3 * errors.dipole_rmse,
            "dipole_mae_meA": 1e3 * errors.dipole_mae,
            "dipole_error_percent": 100 * errors.dipole_error,
        }
        report |= {f"{name}_{key}": round(float(value), 4) for key, value in found.items()}
        report[f"{name}_meets_targets"] = bool(
            found["dipole_error_percent"] <= DIPOLE_ERROR_PERCENT and found["F_mae_meV_A"] <= FORCES_MAE
        )
    return {
        **report,
        "n_train": len(parts.train),
        "n_valid": len(parts.valid),
        "n_test": len(parts.test),
        "seed": arguments.seed,
        "epochs": recipe.n_epochs,
        "best_epoch": result.best_epoch,
        "train_s": round(result.seconds, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "n_params": int(sum(np.size(x) for x in jax.tree.leaves(result.params))),
        "settings": {
            key: value for key, value in vars(arguments).items() if key not in ("out", "seed", "quick")
        },
        "versions": {"difmd": difmd.__version__, "jax": jax.__version__},
        "n_compiled": result.n_compiled,
        "hardware": f"{os.cpu_count()} CPUs",
    }


if __name__ == "__main__":
    sys.exit(main())
