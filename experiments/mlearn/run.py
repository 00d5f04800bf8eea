"""Networks on the sets of Zuo et al. 2020 (Ge, Li, Mo, Ni, Si, Cu), all with one set of settings.

`python experiments/mlearn/run.py` trains all of them; `--elements Ge` some, `--quick` for a few epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import difmd
from difmd import data, potentials, training

HERE = Path(__file__).resolve()
SHARED = Path(os.environ.get("DIFMD_SHARED_DATA", HERE.parents[3] / "shared" / "data"))
ELEMENTS = ("Ge", "Li", "Mo", "Ni", "Si", "Cu")

# Root mean square errors of M3GNet: energy [meV/atom], force [meV/Å].
M3GNET = {
    "Ni": (0.9, 37.4), "Cu": (1.8, 17.0), "Li": (2.5, 22.1),
    "Mo": (6.3, 193.7), "Si": (9.6, 102.8), "Ge": (9.4, 76.4),
}  # fmt: skip


def main() -> int:
    """Train and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", nargs="+", default=ELEMENTS, choices=ELEMENTS)
    parser.add_argument("--epochs", type=int, help="default: as many as `--neighbors` allow")
    parser.add_argument(
        "--neighbors",
        type=float,
        default=1.1e8,
        help="neighbours of atoms that a training sees in all: elements get epochs by what an epoch costs",
    )
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-2)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--max-ell", type=int, default=3)
    parser.add_argument("--max-l", type=int, default=0)
    parser.add_argument("--cutoff", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/mlearn"))
    arguments = parser.parse_args()
    if not SHARED.is_dir():
        print(f"{SHARED} is not there: set DIFMD_SHARED_DATA to the folder with mlearn_Ge and so on")
        return 1
    report: dict[str, Any] = {}
    for element in arguments.elements:
        report[element] = one(element, arguments)
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        print(element, json.dumps(report[element]), flush=True)
    return 0


def one(element: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on one element."""
    folder = SHARED / f"mlearn_{element}"
    frames = data.read(folder / "train.extxyz.gz")
    parts = data.take_split(frames, data.split(frames, valid=0.1, by_kind=True, seed=arguments.seed))
    stats = data.statistics(parts.train, cutoff=arguments.cutoff)
    potential = potentials.mace(
        stats.species,
        cutoff=arguments.cutoff,
        channels=arguments.channels,
        max_ell=arguments.max_ell,
        max_L=arguments.max_l,
        avg_num_neighbors=stats.avg_num_neighbors,
        scale=stats.scale,
    )
    seen = stats.avg_num_neighbors * sum(frame.n_atoms for frame in parts.train)
    epochs = 5 if arguments.quick else arguments.epochs or round(arguments.neighbors / seen)
    recipe = training.Recipe(
        n_epochs=epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        validate_every=5,
        seed=arguments.seed,
    )
    result = training.train(
        potential, parts.train, valid=parts.valid, references=stats.references, recipe=recipe,
        folder=arguments.out / element,
    )  # fmt: skip
    test = folder / "test.extxyz.gz"
    split = "test" if test.exists() else "valid"
    found = training.report(
        potential, result, valid=parts.valid, test=data.read(test) if test.exists() else ()
    )
    print(found, flush=True)
    errors = next(row.errors for row in found.rows if (row.part, row.by) == (split, "all"))
    values = {
        "E_rmse_meV_atom": 1e3 * errors.energy_rmse,
        "F_rmse_meV_A": 1e3 * errors.forces_rmse,
        "E_mae_meV_atom": 1e3 * errors.energy_mae,
        "F_mae_meV_A": 1e3 * errors.forces_mae,
    }
    return {
        **{name: round(float(value), 3) for name, value in values.items()},
        "split": split,
        "train_s": round(result.seconds, 1),
        "epochs": recipe.n_epochs,
        "best_epoch": result.best_epoch,
        "n_train": len(parts.train),
        "n_params": int(sum(np.size(x) for x in jax.tree.leaves(result.params))),
        "seed": arguments.seed,
        "m3gnet_E_F": M3GNET[element],
        "versions": {"difmd": difmd.__version__, "jax": jax.__version__},
        "n_compiled": result.n_compiled,
    }


if __name__ == "__main__":
    sys.exit(main())
