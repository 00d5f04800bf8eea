"""Time difmd beside LAMMPS and jax-md on the Lennard-Jones fluid; `python run.py --help` lists the options.

Packages take turns on the same configuration in one run; the ratios are what to keep. A package that is
not installed is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import lammps_runs
import numpy as np
from report import REPLICAS, Package, as_table, hardware, plot, ratios, row
from rich.console import Console

HERE = Path(__file__).parent
DENSITY = 0.8442
# Atoms: copies of a melt of 256 or 4000 along each axis, and steps timed.
SIZES = {
    256: (4, (1, 1, 1), 10_000),
    4_000: (10, (1, 1, 1), 4_000),
    16_384: (4, (4, 4, 4), 1_000),
    32_000: (10, (2, 2, 2), 1_000),
    256_000: (10, (4, 4, 4), 200),
    1_000_000: (10, (5, 5, 10), 100),
}
QUICK = {4_000: 400, 32_000: 200}
JAX_MD_UP_TO = 32_000
PARTS = ("md", "replicas", "kernels", "solids", "startup", "gradients", "agreement")
QUICK_PARTS = tuple(part for part in PARTS if part not in ("solids", "gradients"))
# jax-md is timed on a fifth of the steps, with a dozen rebuilds and more among them.
JAX_MD_SHARE = 5


def main() -> None:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes, one round")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of {', '.join(PARTS)}"
    )
    sizes_there = ", ".join(map(str, SIZES))
    parser.add_argument(
        "--atoms", type=int, nargs="+", choices=SIZES, metavar="N", help=f"sizes for md: {sizes_there}"
    )
    parser.add_argument("--rounds", type=int, help="turns of each package (default 3, quick 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="run folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    parts = arguments.only or (QUICK_PARTS if arguments.quick else PARTS)
    console = Console()
    began = time.perf_counter()
    packages = [Package("difmd", d, metadata.version("difmd")) for d in ("float32", "float64")]
    packages.append(Package("lammps", "float64", lammps_runs.version()))
    has_jax_md = importlib.util.find_spec("jax_md") is not None
    packages.append(Package("jax-md", "float32", metadata.version("jax-md") if has_jax_md else None))
    for package in packages:
        if package.version is None:
            console.print(f"{package.name} is not installed and left out: `make bench` installs it")
    there = [package for package in packages if package.version is not None]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for cells in (4, 5, 10) if "gradients" in parts else (4, 10):
            melt(folder, cells, arguments.seed)
        sizes = {n: steps for n, (_, _, steps) in SIZES.items() if n != REPLICAS[0] * REPLICAS[1]}
        if arguments.quick:
            sizes = QUICK
        if arguments.atoms:
            sizes = {n: sizes.get(n, SIZES[n][2]) for n in arguments.atoms}
        for n_atoms, n_steps in sizes.items() if "md" in parts else ():
            rows += throughput(folder, there, n_atoms, n_steps, rounds, console)
        if "replicas" in parts:
            rows += replicas(folder, packages[0], 200 if arguments.quick else 1000, rounds, console)
        if "kernels" in parts:
            rows += kernels(folder, packages[:2], 10 if arguments.quick else 30, console)
        if "solids" in parts:
            rows += solids(folder, [p for p in there if p.name != "jax-md"], rounds, console)
        if "startup" in parts:
            rows += startup(folder, packages[0], console)
        if "gradients" in parts:
            rows += gradients(
                folder, [packages[0], *(p for p in there if p.name == "jax-md")], rounds, console
            )
        if "agreement" in parts and packages[2].version is not None:
            rows += agreement(folder, packages[:2], 200 if arguments.quick else 1000, console)
    report = {
        "rows": rows,
        "ratios": ratios(rows),
        "ratios_of_best": ratios(rows, "best"),
        "quick": arguments.quick,
        "rounds": rounds,
        "seed": arguments.seed,
        "hardware": hardware(),
        "python": platform.python_version(),
        "jax": metadata.version("jax"),
        "date": time.strftime("%Y-%m-%d"),
        "wall_s": round(time.perf_counter() - began, 1),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(as_table(rows))
    for name, value in report["ratios"].items():
        best = report["ratios_of_best"][name]
        console.print(f"{name}: {value:.3g}; of the best rounds {best:.3g}")
    if "md" in parts:
        plot(rows, arguments.out / "throughput.png")
    console.print(f"{report['wall_s']:.0f} s; report and plot in {arguments.out}")


class Worker:
    """A process that runs one package; see `worker.py`."""

    def __init__(self, package: Package, root: Path = HERE.parents[1]) -> None:
        """Start it, with the difmd of this checkout or of another one."""
        self.process = subprocess.Popen(
            [sys.executable, str(root / "experiments/benchmarks/worker.py"), package.name, package.dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(root)},
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended: exit code {self.process.wait()}")
        return json.loads(line)


@contextmanager
def workers(packages: list[Package]) -> Iterator[list[Worker]]:
    """Processes that end with the block."""
    started = [Worker(package) for package in packages]
    try:
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.wait()


def melt(folder: Path, cells: int, seed: int) -> None:
    """A melt of 4 n³ atoms, from difmd."""
    with workers([Package("difmd", "float32", None)]) as (worker,):
        file = str(folder / f"melt_{cells}.npz")
        worker.ask("prepare", case="melt", cells=cells, density=DENSITY, file=file, seed=seed)
        worker.ask("run")


def configuration(folder: Path, n_atoms: int) -> Path:
    """A liquid of so many atoms, put together from copies of a melt with momenta of their own."""
    file = folder / f"liquid_{n_atoms}.npz"
    if file.exists():
        return file
    cells, copies, _ = SIZES.get(n_atoms, (round((n_atoms / 4) ** (1 / 3)), (1, 1, 1), 0))
    one = np.load(folder / f"melt_{cells}.npz")
    edge = np.diag(one["cell"])
    shifts = np.stack(np.meshgrid(*[np.arange(n) for n in copies], indexing="ij"), -1).reshape(-1, 1, 3)
    positions = (one["positions"] % edge + shifts * edge).reshape(-1, 3)
    momenta = np.random.default_rng(n_atoms).normal(0, one["momenta"].std(), positions.shape)
    momenta -= momenta.mean(axis=0)
    assert len(positions) == n_atoms
    # Numbers of single precision, so that all packages start from the same.
    rounded = {"positions": positions, "momenta": momenta, "cell": np.diag(edge * copies)}
    np.savez(file, **{name: x.astype(np.float32).astype(np.float64) for name, x in rounded.items()})
    return file


def throughput(
    folder: Path, packages: list[Package], n_atoms: int, n_steps: int, rounds: int, console: Console
) -> list[dict[str, Any]]:
    """Whole runs, rebuilds included, in turns; and the memory they took."""
    file = configuration(folder, n_atoms)
    here = [p for p in packages if p.name != "lammps" and (p.name != "jax-md" or n_atoms <= JAX_MD_UP_TO)]
    peer = next((p for p in packages if p.name == "lammps"), None)
    rows, speeds, memory = [], {p: [] for p in here}, dict.fromkeys(here, 0.0)
    lammps_speeds: dict[str, list[float]] = {policy: [] for policy in lammps_runs.POLICIES}
    data = folder / f"liquid_{n_atoms}.data"
    if peer is not None:
        lammps_runs.write_data(file, data)
    steps = [n_steps // (JAX_MD_SHARE if p.name == "jax-md" and n_steps >= 1000 else 1) for p in here]
    with workers(here) as started:
        prepared = [
            worker.ask("prepare", case="md", file=str(file), n_steps=n, warm_up=50)["seconds"]
            for n, worker in zip(steps, started, strict=True)
        ]
        for _ in range(rounds):
            for package, n, worker in zip(here, steps, started, strict=True):
                answer = worker.ask("run")
                speeds[package].append(n_atoms * n / answer["seconds"])
                memory[package] = answer["memory_MB"]
                if answer.get("overflow"):
                    console.print(f"{package.name}: its neighbour list overflowed, forces are incomplete")
            for policy in lammps_runs.POLICIES if peer is not None else ():
                output = lammps_runs.run(data, f"run {n_steps}\n", policy=policy)
                lammps_speeds[policy].append(n_atoms * n_steps / lammps_runs.loop_seconds(output))
    for package, n, seconds in zip(here, steps, prepared, strict=True):
        rows.append(row("md", package, n_atoms, speeds[package], "atom-steps/s", n_steps=n))
        rows.append(row("memory of md", package, n_atoms, [memory[package]], "MB"))
        if n == n_steps:
            rows.append(row("time to the end of a first run", package, n_atoms, [seconds], "s", n_steps=n))
    if peer is not None:
        rows += [
            row(f"md, rebuilds {policy}", peer, n_atoms, values, "atom-steps/s", n_steps=n_steps, ranks=2)
            for policy, values in lammps_speeds.items()
        ]
    for entry in rows:
        if entry["unit"] == "atom-steps/s":
            console.print(
                f"{n_atoms} atoms, {entry['package']} {entry['dtype']}, {entry['case']}: "
                f"{entry['value'] / 1e6:.2f} M atom-steps/s"
            )
    return rows


def replicas(
    folder: Path, package: Package, n_steps: int, rounds: int, console: Console
) -> list[dict[str, Any]]:
    """64 boxes of 256 atoms beside one of 16 384, in turns."""
    number, each = REPLICAS
    together = number * each
    speeds: dict[str, list[float]] = {"replicas": [], "one system": []}
    with workers([package, package]) as started:
        for worker, n_atoms, copies in zip(started, (each, together), (number, 1), strict=True):
            file = str(configuration(folder, n_atoms))
            worker.ask("prepare", case="md", file=file, n_steps=n_steps, warm_up=50, replicas=copies)
        for _ in range(rounds):
            for worker, values in zip(started, speeds.values(), strict=True):
                values.append(together * n_steps / worker.ask("run")["seconds"])
    rows = [
        row(f"{number} replicas", package, each, speeds["replicas"], "atom-steps/s", n_steps=n_steps),
        row("beside the replicas", package, together, speeds["one system"], "atom-steps/s", n_steps=n_steps),
    ]
    share = rows[0]["value"] / rows[1]["value"]
    console.print(f"{number} replicas of {each} atoms: {share:.2f} of the throughput of one system")
    return rows


def kernels(folder: Path, packages: list[Package], repeats: int, console: Console) -> list[dict[str, Any]]:
    """A force evaluation and a rebuild of 32 000 atoms."""
    rows, n_atoms = [], 32_000
    for package in packages:
        with workers([package]) as (worker,):
            worker.ask("prepare", case="kernels", file=str(configuration(folder, n_atoms)), repeats=repeats)
            found = worker.ask("run")
        rows += [row(name, package, n_atoms, [found[name]], "s") for name in ("force", "rebuild")]
        ratio = found["rebuild"] / found["force"]
        console.print(f"{package.dtype}: a rebuild costs {ratio:.1f} force evaluations")
    return rows


def solids(folder: Path, packages: list[Package], rounds: int, console: Console) -> list[dict[str, Any]]:
    """Crystals at 1000 K with potentials of many bodies, in turns; LAMMPS with checked rebuilds."""
    rows = []
    own = [package for package in packages if package.name == "difmd"]
    peer = next((package for package in packages if package.name == "lammps"), None)
    for name, solid in lammps_runs.SOLIDS.items():
        if peer is None and solid.needs_file:
            console.print(f"{name}: left out, its table comes with LAMMPS")
            continue
        speeds: dict[Package, list[float]] = {package: [] for package in packages}
        file = str(lammps_runs.potentials() / solid.file) if peer is not None else ""
        with workers(own) as started:
            for worker in started:
                worker.ask("prepare", case="solid", name=name, file=file, n_steps=solid.n_steps)
            for _ in range(rounds):
                for package, worker in zip(own, started, strict=True):
                    answer = worker.ask("run")
                    speeds[package].append(answer["n_atoms"] * solid.n_steps / answer["seconds"])
                if peer is not None:
                    output = lammps_runs.solid(name, folder)
                    seconds = lammps_runs.loop_seconds(output)
                    speeds[peer].append(answer["n_atoms"] * solid.n_steps / seconds)
        for package, values in speeds.items():
            rows.append(
                row(f"md, {name}", package, answer["n_atoms"], values, "atom-steps/s", n_steps=solid.n_steps)
            )
            console.print(
                f"{name}, {package.name} {package.dtype}: {rows[-1]['value'] / 1e6:.2f} M atom-steps/s"
            )
    return rows


def startup(folder: Path, package: Package, console: Console) -> list[dict[str, Any]]:
    """Import and first step of 4000 atoms, with nothing and with everything compiled before."""
    rows = []
    for case in ("cold start", "warm start"):
        values = []
        for k in range(3):
            cache = folder / (f"cache{k}" if case == "cold start" else "cache0")
            environment = {**os.environ, "DIFMD_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, str(HERE / "startup.py"), str(time.time())]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            values.append(float(done.stdout.split()[1]))
        rows.append(row(case, package, 4000, values, "s"))
        console.print(f"{case}: {rows[-1]['value']:.2f} s from the interpreter to the end of the first step")
    return rows


def gradients(folder: Path, packages: list[Package], rounds: int, console: Console) -> list[dict[str, Any]]:
    """Value and gradient of the mean squared displacement over the value alone, in one process each."""
    rows = []
    lj = {"model": "Lennard-Jones", "n_steps": 400}
    cases = [
        {**lj, "n_atoms": n, "rebuild_every": 5, "method": method}
        for n in (500, 4_000)
        for method in ("direct", "checkpointed", "reversible")
    ]
    network = {"model": "MACE", "n_steps": 20, "n_atoms": 500, "rebuild_every": 5}
    cases += [{**network, "method": method} for method in ("direct", "checkpointed")]
    for package in packages:
        is_peer = package.name == "jax-md"
        # A plain scan keeps every step: some 28 GB for 4 000 atoms.
        own = [{**lj, "n_atoms": 500, "method": "scan", "rebuild_every": 1}] if is_peer else cases
        for case in own:
            with workers([package]) as (worker,):
                file = str(configuration(folder, case["n_atoms"]))
                worker.ask("prepare", case="gradient", file=file, **case)
                found = [worker.ask("run") for _ in range(rounds)]
            costs = [entry["backward"] / entry["forward"] for entry in found]
            about = {k: v for k, v in case.items() if k != "n_atoms"}
            rows.append(
                row(
                    "value and gradient over value", package, case["n_atoms"], costs, "1", **about,
                    finite=found[0]["finite"], status=found[0]["status"],
                )
            )  # fmt: skip
            rows.append(
                row(
                    "memory of the gradient",
                    package,
                    case["n_atoms"],
                    [found[-1]["memory_MB"]],
                    "MB",
                    **about,
                )
            )
            console.print(
                f"gradient, {case['model']}, {case['n_atoms']} atoms, list every {case['rebuild_every']} "
                f"steps, {package.name}, {case['method']}: {rows[-2]['value']:.2f} × the value, "
                f"{'finite' if found[0]['finite'] else 'NOT FINITE'}, {found[-1]['memory_MB']:.0f} MB"
            )
    return rows


def agreement(folder: Path, packages: list[Package], n_steps: int, console: Console) -> list[dict[str, Any]]:
    """Forces on one configuration, and energy and pressure of a run, beside LAMMPS."""
    n_atoms, rows = 32_000, []
    file, data = configuration(folder, n_atoms), folder / f"liquid_{n_atoms}.data"
    peer = Package("lammps", "float64", lammps_runs.version())
    dumped = folder / "forces.txt"
    reference = lammps_runs.averages(data, n_steps, dumped)
    expected = np.loadtxt(dumped, skiprows=9)[:, 1:]
    results = [(peer, reference)]
    for package in packages:
        own = folder / f"forces_{package.dtype}.npy"
        with workers([package]) as (worker,):
            worker.ask("prepare", case="averages", file=str(file), n_steps=n_steps, forces=str(own))
            results.append((package, worker.ask("run")))
        errors = np.abs(np.load(own) - expected)
        norm = np.sqrt(np.mean(expected**2))
        largest, mean = np.max(errors) / norm, np.sqrt(np.mean(errors**2)) / norm
        rows.append(row("largest force error over rms force, LAMMPS", package, n_atoms, [largest], "1"))
        rows.append(row("rms force error over rms force, LAMMPS", package, n_atoms, [mean], "1"))
        console.print(
            f"{package.dtype}: forces differ from those of LAMMPS by {mean:.1e} (largest {largest:.1e}) "
            "of their root mean square"
        )
    for quantity, unit in (("total_energy", "ε/atom"), ("pressure", "ε/σ³")):
        for package, result in results:
            # The second half, in blocks: the copies that the liquid was made of take a while to go apart.
            values = np.array(result[quantity])[len(result[quantity]) // 2 :]
            blocks = np.array([block.mean() for block in np.array_split(values, 5)])
            error = float(blocks.std(ddof=1) / np.sqrt(len(blocks)))
            rows.append(row(quantity, package, n_atoms, [float(values.mean())], unit, stderr=error))
            console.print(f"{quantity} {package.name} {package.dtype}: {values.mean():.5f} ± {error:.5f}")
    return rows


if __name__ == "__main__":
    main()
