"""Twenty minutes of constant pressure with 2 048 atoms: whether memory stays, and nothing compiles again.

`python experiments/soak/run.py` runs argon by stochastic cell rescaling with frames on disk, looks at the
resident memory every two seconds and at every compilation, and stops itself with SIGTERM when time is over.
It fails if memory moved by more than 2 % after the first two minutes, or if anything was compiled after them.
`--quick` does so for two minutes, the first of which does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import jax.monitoring
import matplotlib
import numpy as np
from ase.build import bulk

import difmd
from difmd import units

matplotlib.use("Agg")

COMPILED = "/jax/core/compile/backend_compile_duration"
ALLOWED = 0.02


class Watch:
    """Resident memory, how far the run is, and what was compiled, against time."""

    def __init__(self, *, minutes: float, warmup: float) -> None:
        """Begin to count."""
        self.began = time.monotonic()
        self.seconds, self.warmup = 60 * minutes, 60 * warmup
        self.memory: list[tuple[float, float]] = []
        self.compilations: list[float] = []
        self._ended = threading.Event()
        jax.monitoring.register_event_duration_secs_listener(self._compiled)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _compiled(self, event: str, duration: float, **_: object) -> None:
        if event == COMPILED and not self._ended.is_set():
            self.compilations.append(time.monotonic() - self.began)

    def _look(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        while not self._ended.wait(2.0):
            now = time.monotonic() - self.began
            self.memory.append((now, int(Path("/proc/self/statm").read_text().split()[1]) * page))
            if now > self.seconds:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()


def main() -> int:
    """The run, and what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes")
    parser.add_argument("--minutes", type=float, default=None, help="default: 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="run folder, which is emptied")
    arguments = parser.parse_args()
    difmd.enable_cache()
    minutes = arguments.minutes or (2.0 if arguments.quick else 20.0)
    warmup = min(2.0, minutes / 2)
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)

    atoms = bulk("Ar", "fcc", a=5.5, cubic=True) * (8, 8, 8)
    potential = difmd.lennard_jones(
        ["Ar"], sigma=3.405, epsilon=119.8 * units.KB, cutoff=8.5, truncation=difmd.switched(7.5)
    )
    press = difmd.cell_rescaling(
        dt=4 * units.FS, temperature=110.0, pressure=500 * units.BAR, friction=1 / units.PS,
        time_constant=1 * units.PS, compressibility=2e-4 / units.BAR,
    )  # fmt: skip
    watch = Watch(minutes=minutes, warmup=warmup)
    try:
        difmd.simulate(
            potential, potential.init(jax.random.key(0)), difmd.from_ase(atoms), press,
            n_steps=100_000_000, save_every=200, chunk_steps=1000, initial_temperature=110.0,
            key=jax.random.key(arguments.seed), folder=arguments.out / "run", load=False,
        )  # fmt: skip
        raise RuntimeError("the run ended by itself")
    except difmd.SimulationInterrupted as stopped:
        run = stopped.partial_result
        print(stopped)
    finally:
        watch.end()
    report = found(watch, run, len(atoms), arguments.seed)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(arguments.out / "soak.png", watch)
    print(json.dumps(report, indent=1))
    holds = report["memory_moved_by"] <= ALLOWED and report["compilations_after_warmup"] == 0
    print("holds" if holds else "does NOT hold")
    return 0 if holds else 1


def found(watch: Watch, run: difmd.Trajectory, n_atoms: int, seed: int) -> dict[str, object]:
    """What there is to report."""
    late = np.asarray([memory for at, memory in watch.memory if at > watch.warmup])
    late_compilations = [at for at in watch.compilations if at > watch.warmup]
    n_steps = int(run.state.step)
    return {
        "n_atoms": n_atoms,
        "seed": seed,
        "wall_s": round(watch.memory[-1][0], 1),
        "warmup_s": watch.warmup,
        "n_steps": n_steps,
        "n_replays": run.n_replays,
        "memory_min_MB": round(float(late.min()), 1),
        "memory_max_MB": round(float(late.max()), 1),
        "memory_moved_by": round(float(late.max() / late.min() - 1), 4),
        "compilations": len(watch.compilations),
        "compilations_after_warmup": len(late_compilations),
        "volume_per_atom_A3": round(float(run.state.system.volume) / n_atoms, 3),
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "device": str(jax.devices()[0]),
        "n_cores": len(os.sched_getaffinity(0)),
    }


def plot(path: Path, watch: Watch) -> None:
    """Memory against time, with a mark for each compilation."""
    import matplotlib.pyplot as plt

    times, memory = np.asarray(watch.memory).T
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axis.plot(times / 60, memory, label="resident memory")
    late = memory[times > watch.warmup]
    axis.axhspan(late.min(), late.min() * (1 + ALLOWED), color="0.9", label=f"{100 * ALLOWED:.0f} %")
    compiled = np.asarray(watch.compilations) / 60
    axis.plot(compiled, np.full(len(compiled), memory.min()), "|", color="C3", label="compilations")
    axis.set(xlabel="minutes", ylabel="MB")
    axis.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    raise SystemExit(main())
