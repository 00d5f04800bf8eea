"""Time this checkout of difmd and another one in turns: `python versions.py /path/to/other/checkout`.

Each version runs its own `worker.py`, with this Python and its packages, on the same Lennard-Jones fluid.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from report import Package
from run import Worker, configuration, melt

HERE = Path(__file__).parent


def main() -> None:
    """Print times per step, and the ratio of this checkout to the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="root of the other checkout")
    parser.add_argument("--atoms", type=int, default=32_000, choices=(4_000, 32_000))
    parser.add_argument("--steps", type=int, default=100, help="timed in each turn")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each version")
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    package = Package("difmd", "float64" if arguments.float64 else "float32", None)
    # Programs are not shared: each version compiles what it runs.
    os.environ["DIFMD_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as scratch:
        melt(Path(scratch), 10, arguments.seed)
        file = str(configuration(Path(scratch), arguments.atoms))
        roots = {"other": arguments.other.resolve(), "this": HERE.parents[1]}
        workers = {name: Worker(package, root) for name, root in roots.items()}
        try:
            for worker in workers.values():
                worker.ask("prepare", case="md", file=file, n_steps=arguments.steps, warm_up=200)
            times: dict[str, list[float]] = {name: [] for name in workers}
            for turn in range(arguments.rounds):
                for name in sorted(workers, reverse=bool(turn % 2)):
                    times[name].append(workers[name].ask("run")["seconds"] / arguments.steps)
        finally:
            for worker in workers.values():
                worker.process.kill()
    for name, seconds in times.items():
        print(f"{name}: {1e3 * np.median(seconds):.3f} ms a step, best {1e3 * min(seconds):.3f}")
    ratios = np.array(times["this"]) / np.array(times["other"])
    print(
        f"{arguments.atoms} atoms, {package.dtype}, seed {arguments.seed}, this over other: median of turns "
        f"{np.median(ratios):.3f}, of the best {min(times['this']) / min(times['other']):.3f}"
    )


if __name__ == "__main__":
    main()
