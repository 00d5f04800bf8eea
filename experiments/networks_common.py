"""What the experiments with networks share: where the data are, a training, and what is reported of it."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import difmd
from difmd import data, plots, training, units
from difmd._internal.checkpoint import fingerprint
from difmd._internal.progress import progress_bar
from difmd.fitting import FitInterrupted
from difmd.trajectory import Frames

_SERIES = ("positions", "momenta", "potential_energy", "stress")

SHARED = Path(os.environ.get("DIFMD_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


class Fitted(NamedTuple):
    """A trained network; `row` is what the report of an experiment holds of it."""

    network: difmd.Potential
    params: Any
    row: dict[str, Any]


def parser_of(description: str | None, name: str, **defaults: Any) -> argparse.ArgumentParser:
    """Options that all of them have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--epochs", type=int, default=defaults["epochs"])
    parser.add_argument("--channels", type=int, default=defaults.get("channels", 32))
    parser.add_argument("--max-l", type=int, default=defaults.get("max_l", 0), help="degree of messages")
    parser.add_argument("--max-ell", type=int, default=defaults.get("max_ell", 3), help="of harmonics")
    parser.add_argument("--cutoff", type=float, default=defaults.get("cutoff", 5.0), help="Å")
    parser.add_argument("--batch-size", type=int, default=defaults.get("batch_size", 1))
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--energy-weight", type=float, default=100.0, help="at the end [1/eV²]")
    parser.add_argument(
        "--sums", choices=("mean", "root"), default="root",
        help="whether sums over neighbours are divided by their number or by its root",
    )  # fmt: skip
    parser.add_argument(
        "--zbl",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="add the repulsion of bare nuclei, which alone acts below the distances in the data",
    )
    parser.add_argument("--seed", type=int, default=0, help="of splits, weights, order and momenta")
    parser.add_argument("--quick", action="store_true", help="to see that all works")
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    return parser


def read(name: str) -> list[data.Frame]:
    """A file of the shared data; ends the program where there is none."""
    path = SHARED / name
    if not path.exists():
        raise SystemExit(f"{path} is not there: set DIFMD_SHARED_DATA to the folder that holds {name}")
    return data.read(path)


def network_of(stats: data.Statistics, arguments: argparse.Namespace, **more: Any) -> difmd.Potential:
    """MACE, as the options have it and with what the data tell, perhaps with a repulsion."""
    n_neighbors = stats.avg_num_neighbors ** (0.5 if arguments.sums == "root" else 1.0)
    network = difmd.mace(
        stats.species, cutoff=arguments.cutoff, n_features=arguments.channels,
        l_max_features=arguments.max_l, l_max=arguments.max_ell, avg_num_neighbors=n_neighbors,
        scale=stats.scale, **more,
    )  # fmt: skip
    return difmd.zbl(stats.species) + network if arguments.zbl else network


def fit(parts: data.Parts, folder: Path, arguments: argparse.Namespace) -> Fitted:
    """Train with the recipe that `difmd.training` has by default; goes on where it was interrupted."""
    stats = data.statistics(parts.train, cutoff=arguments.cutoff)
    held = {}
    if arguments.zbl:
        cutoff = arguments.cutoff
        held["nearest"] = data.nearest_distances(parts.train, species=stats.species, cutoff=cutoff)
    network = network_of(stats, arguments, **held)
    recipe = training.Recipe(
        n_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        final_weights=training.Weights(arguments.energy_weight, 1.0, 1.0),
        validate_every=5,
        seed=arguments.seed,
    )
    result = training.train(
        network, parts.train, valid=parts.valid, references=stats.references, recipe=recipe, folder=folder
    )
    found = training.report(network, result, valid=parts.valid, test=parts.test)
    print(found, flush=True)
    split = "test" if parts.test else "valid"
    plots.plot_training(result, path=folder / "training.png")
    plots.plot_parity(found.residuals[split], frames=getattr(parts, split), path=folder / "parity.png")
    row = {
        **{name: round(value, 3) for name, value in found.summary(split).items()},
        "split": split,
        "train_s": round(result.seconds, 1),
        "epochs": recipe.n_epochs,
        "best_epoch": result.best_epoch,
        "n_train": len(parts.train),
        "n_valid": len(parts.valid),
        "n_compiled": result.n_compiled,
        "n_params": int(sum(np.size(x) for x in jax.tree.leaves(result.params))),
    }
    return Fitted(network, result.params, row)


def run(
    experiment: Callable[[argparse.Namespace], dict[str, Any]], parser: argparse.ArgumentParser, **quick: Any
) -> int:
    """Run an experiment and write what it found, with what it was run with, into its report.

    Args:
        experiment: what to run.
        parser: of `parser_of`, perhaps with more options.
        **quick: what `--quick` makes of the options, besides five epochs.
    """
    arguments = parser.parse_args()
    difmd.enable_cache()
    if arguments.quick:
        vars(arguments).update(epochs=5, **quick)
    began = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        found = experiment(arguments)
    except (training.TrainingInterrupted, difmd.SimulationInterrupted, FitInterrupted) as stopped:
        print(stopped)
        return 130
    except difmd.errors.InputError as bad:
        print(bad)
        return 1
    settings = {k: v for k, v in vars(arguments).items() if k not in ("out", "quick")}
    report = {
        **found,
        "settings": settings,
        "seed": arguments.seed,
        "versions": {"difmd": difmd.__version__, "jax": jax.__version__},
        "n_cpus": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
        "wall_s": round(time.monotonic() - began, 1),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0


def dynamics(
    fitted: Fitted,
    start: difmd.System,
    arguments: argparse.Namespace,
    *,
    temperature: float,
    picoseconds: float,
    femtoseconds: float,
    save_every: int,
    friction: float = 1.0,
) -> difmd.Trajectory:
    """Langevin dynamics in pieces that are kept in the run folder, so that Ctrl-C loses one at most.

    Args:
        fitted: of `fit`.
        start: where to begin.
        arguments: of `parser_of`; the seed and the folder count.
        temperature: [K].
        picoseconds: in all.
        femtoseconds: of a step.
        save_every: steps.
        friction: [1/ps].
    """
    dt = femtoseconds * units.FS
    piece = max(round(units.PS / dt / save_every), 1) * save_every
    n_pieces = max(round(picoseconds * units.PS / dt / piece), 1)
    bath = difmd.langevin(dt=dt, temperature=temperature, friction=friction / units.PS)
    folder = arguments.out / "dynamics"
    folder.mkdir(parents=True, exist_ok=True)
    mark = fingerprint(
        fitted.params, start.positions, temperature, femtoseconds, save_every, friction, arguments.seed
    )
    pieces: list[dict[str, np.ndarray]] = []
    system, begin = start, {"initial_temperature": temperature}
    with progress_bar("dynamics", n_pieces * piece) as advance:
        for k in range(n_pieces):
            file = folder / f"{k:03d}.npz"
            if file.exists():
                with np.load(file, allow_pickle=False) as stored:
                    found = dict(stored)
                if str(found["mark"]) != mark:
                    raise SystemExit(f"{folder} holds dynamics of another network or with other settings")
            else:
                key = jax.random.fold_in(jax.random.key(arguments.seed), k)
                run = difmd.simulate(
                    fitted.network, fitted.params, system, bath, n_steps=piece, save_every=save_every,
                    key=key, progress=False, **begin,
                )  # fmt: skip
                found = {
                    "positions": run.positions, "momenta": run.momenta, "stress": run.stress,
                    "potential_energy": run.potential_energy, "skin": run.skin, "mark": mark,
                }  # fmt: skip
                part = file.with_suffix(".part.npz")
                np.savez(part, **found)
                part.replace(file)
            pieces.append(found)
            system = system.replace(positions=found["positions"][-1])
            begin = {"momenta": found["momenta"][-1]}
            advance(piece)
    whole = {name: np.concatenate([p[name] for p in pieces]) for name in _SERIES}
    steps = save_every * np.arange(1, len(whole["positions"]) + 1)
    return difmd.Trajectory(
        system=system, frames=Frames(**whole), steps=steps, dt=dt, skin=float(pieces[0]["skin"])
    )


def later(run: difmd.Trajectory, fraction: float) -> difmd.Trajectory:
    """What comes after the first part of a run, in which it settled."""
    return run[round(fraction * len(run)) :]
