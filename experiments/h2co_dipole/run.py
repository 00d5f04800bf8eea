"""Energies, forces and dipoles of formaldehyde (CCSD(T)-F12) from one network.

`python experiments/h2co_dipole/run.py` trains and evaluates; `--quick` for a few epochs. It goes on from its
folder after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import networks_common as common

import difmd
from difmd import data, training

# What there is to reach.
DIPOLE_ERROR_PERCENT, FORCES_MAE = 1.0, 5.0


def main() -> int:
    """Train and evaluate."""
    parser = common.parser_of(
        __doc__, "h2co_dipole", epochs=400, max_l=1, max_ell=2, cutoff=3.5, batch_size=8
    )  # fmt: skip
    parser.add_argument("--frames", type=int, default=1600, help="to train on")
    parser.add_argument("--dipole-weight", type=float, default=10.0, help="1/(e·Å)²")
    parser.add_argument("--charges-only", action="store_true", help="no dipoles of the atoms themselves")
    return common.run(fit, parser, frames=200)


def fit(arguments: argparse.Namespace) -> dict[str, Any]:
    """One training, and its errors on the frames that it never saw."""
    frames = common.read("h2co_dipole/ccsdt_train.extxyz.gz")
    # The frames that choose the parameters are not those that the errors are of.
    n_valid = (len(frames) - arguments.frames) // 2
    chosen = data.split(
        frames, valid=n_valid, test=len(frames) - arguments.frames - n_valid, seed=arguments.seed
    )
    parts = data.apply_split(frames, chosen)
    stats = data.statistics(parts.train, cutoff=arguments.cutoff)
    network = common.network_of(stats, arguments, charges=True, atomic_dipoles=not arguments.charges_only)
    recipe = training.Recipe(
        n_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        initial_weights=training.Weights(1.0, 1.0, 0.0, arguments.dipole_weight),
        final_weights=training.Weights(arguments.energy_weight, 1.0, 0.0, arguments.dipole_weight),
        validate_every=5,
        seed=arguments.seed,
    )

    result = training.train(
        network, parts.train, valid=parts.valid, references=stats.references, recipe=recipe,
        folder=arguments.out,
    )  # fmt: skip
    difmd.save(arguments.out / "network.npz", network, result.params)
    found = training.report(network, result, valid=parts.valid, test=parts.test)
    print(found, flush=True)
    report: dict[str, Any] = {}
    for name in ("valid", "test"):
        errors = found.summary(name)
        report |= {f"{name}_{key}": round(value, 4) for key, value in errors.items()}
        report[f"{name}_meets_targets"] = bool(
            errors["dipole_error_percent"] <= DIPOLE_ERROR_PERCENT and errors["F_mae_meV_A"] <= FORCES_MAE
        )
    return {
        **report,
        "n_train": len(parts.train),
        "n_valid": len(parts.valid),
        "n_test": len(parts.test),
        "epochs": recipe.n_epochs,
        "best_epoch": result.best_epoch,
        "train_s": round(result.seconds, 1),
        "n_params": int(sum(np.size(x) for x in jax.tree.leaves(result.params))),
        "n_compiled": result.n_compiled,
    }


if __name__ == "__main__":
    sys.exit(main())
