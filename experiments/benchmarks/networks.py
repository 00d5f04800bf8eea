"""Time networks beside mace-torch, on the same frame and with the same hyper-parameters, in turns.

`python experiments/benchmarks/networks.py`; `pip install mace-torch` first, else only difmd is timed. Also
tells how long a fresh process takes to its first step of a training, and how many functions a training on
frames of mixed sizes compiles.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import ase
import ase.build
import ase.io
import numpy as np
from report import Package, hardware, row
from rich.console import Console
from rich.table import Table
from run import workers

CUTOFF = 5.0
CASES = ("energy and forces", "training step")
OWN, PEER = "difmd networks", "mace-torch"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--max-l", type=int, default=0, help="largest degree of the features")
    parser.add_argument("--molecules", type=int, default=4, help="of water along each edge of the box")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each package")
    parser.add_argument("--seed", type=int, default=0, help="of the frames")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="run folder")
    arguments = parser.parse_args()
    console = Console()
    began = time.perf_counter()
    packages = [Package(OWN, "float32", metadata.version("difmd"))]
    if importlib.util.find_spec("mace"):
        packages.append(Package(PEER, "float32", metadata.version(PEER)))
    else:
        console.print(f"{PEER} is not installed and left out: pip install {PEER}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        rng = np.random.default_rng(arguments.seed)
        frame, mixed = Path(scratch) / "water.extxyz", Path(scratch) / "mixed.extxyz"
        ase.io.write(frame, water(arguments.molecules, rng))
        sizes = [n for n in (1, 2, 3) for _ in range(12)]
        ase.io.write(mixed, [water(n, rng, missing=int(rng.integers(0, max(n**3 - 1, 1)))) for n in sizes])
        settings = {"file": str(frame), "max_l": arguments.max_l, "cutoff": CUTOFF}
        for channels in arguments.channels:
            rows += in_turns(packages, {**settings, "channels": channels}, arguments.rounds, console)
        rows += starts(packages[0], {**settings, "channels": arguments.channels[0]}, console)
        rows += compilations(packages[0], str(mixed), console)
    report = {
        "rows": rows,
        "ratios": ratios(rows, "value"),
        "ratios_of_best": ratios(rows, "best"),
        "max_L": arguments.max_l,
        "rounds": arguments.rounds,
        "seed": arguments.seed,
        "hardware": hardware(),
        "python": platform.python_version(),
        "jax": metadata.version("jax"),
        "torch": metadata.version("torch") if len(packages) > 1 else None,
        "date": time.strftime("%Y-%m-%d"),
        "wall_s": round(time.perf_counter() - began, 1),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report_networks.json").write_text(json.dumps(report, indent=1) + "\n")
    console.print(as_table(rows))
    for name, value in report["ratios"].items():
        console.print(f"{name}: {value:.2f}; of the best rounds {report['ratios_of_best'][name]:.2f}")


def water(edge: int, rng: np.random.Generator, missing: int = 0) -> ase.Atoms:
    """Molecules at the density of water on a lattice, turned at random, with made-up forces to fit."""
    one = ase.build.molecule("H2O")
    one.positions -= one.positions.mean(axis=0)
    apart = (18.015 / 0.997 / 0.602214) ** (1 / 3)
    atoms = ase.Atoms(cell=[edge * apart] * 3, pbc=True)
    places = list(np.ndindex(edge, edge, edge))
    for place in places[: len(places) - missing]:
        molecule = one.copy()
        molecule.euler_rotate(*rng.uniform(0, 360, 3))
        molecule.translate(apart * np.array(place) + rng.normal(0, 0.1, 3))
        atoms += molecule
    atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
    # Large numbers, so that no package stops short of the whole of its work.
    atoms.info["energy"] = -14.0 * len(atoms) / 3 + rng.normal()
    atoms.arrays["forces"] = rng.normal(size=atoms.positions.shape)
    return atoms


def in_turns(
    packages: list[Package], settings: dict[str, Any], rounds: int, console: Console
) -> list[dict[str, Any]]:
    """Energy and forces of one frame, and a step of a training on it."""
    seconds: dict[tuple[Package, str], list[float]] = {(p, c): [] for p in packages for c in CASES}
    with workers(packages) as started:
        told = [worker.ask("prepare", case="network", **settings) for worker in started]
        found = [worker.ask("run") for worker in started]
        pairs = {answer["n_pairs"] for answer in found}
        if len(pairs) > 1:
            raise RuntimeError(f"the packages see different graphs: {pairs} pairs")
        for number in range(rounds):
            for package, worker in zip(packages, started, strict=True):
                answer = worker.ask("run")
                for case in CASES:
                    seconds[package, case].append(answer[case])
            console.print(
                f"{settings['channels']} channels, round {number + 1}: "
                + ", ".join(f"{p.name} {c} {1e3 * s[-1]:.1f} ms" for (p, c), s in seconds.items())
            )
    about = {answer_of.name: answer for answer_of, answer in zip(packages, found, strict=True)}
    return [
        row(
            case, package, about[package.name]["n_atoms"], [1e3 * s for s in values], "ms",
            channels=settings["channels"], n_pairs=about[package.name]["n_pairs"],
            n_params=about[package.name]["n_params"],
            prepare_s=round(told[packages.index(package)]["seconds"], 2),
        )
        for (package, case), values in seconds.items()
    ]  # fmt: skip


def starts(package: Package, settings: dict[str, Any], console: Console) -> list[dict[str, Any]]:
    """From the start of Python to the end of the first step of a training, in three processes."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        with workers([package]) as (worker,):
            worker.ask("prepare", case="first step", **settings)
            n_atoms = worker.ask("run")["n_atoms"]
            seconds.append(time.perf_counter() - began)
    console.print(f"first step of a training: {', '.join(f'{s:.1f}' for s in seconds)} s")
    return [
        row("to the first step of a training", package, n_atoms, seconds, "s", channels=settings["channels"])
    ]


def compilations(package: Package, file: str, console: Console) -> list[dict[str, Any]]:
    """Functions that a training compiles on clusters of mixed sizes."""
    with workers([package]) as (worker,):
        worker.ask("prepare", case="mixed sizes", file=file, cutoff=CUTOFF, channels=8, max_l=0)
        found = worker.ask("run")
    console.print(f"{found['n_compiled']} functions for frames of {found['sizes']} atoms")
    return [
        row(
            "functions compiled, mixed sizes", package, max(found["sizes"]), [found["n_compiled"]],
            "functions", sizes=found["sizes"],
        )
    ]  # fmt: skip


def ratios(rows: list[dict[str, Any]], of: str) -> dict[str, float]:
    """How many times faster difmd is than its peer."""
    found = {}
    times = {(r["package"], r["case"], r.get("channels")): r[of] for r in rows}
    for (package, case, channels), value in times.items():
        if package == PEER:
            found[f"{channels} channels, {case}, {PEER} over difmd"] = value / times[OWN, case, channels]
    return found


def as_table(rows: list[dict[str, Any]]) -> Table:
    """All rows."""
    table = Table(title="MACE, one frame of water")
    for name in ("case", "channels", "package", "median", "best", "unit"):
        table.add_column(name, justify="right" if name in ("channels", "median", "best") else "left")
    for r in rows:
        numbers = f"{r['value']:.4g}", f"{r['best']:.4g}"
        table.add_row(r["case"], f"{r.get('channels', '')}", r["package"], *numbers, r["unit"])
    return table


if __name__ == "__main__":
    main()
