"""Gradients over a thousand and a hundred thousand steps by reversal, each in a process of its own.

`python experiments/benchmarks/reversal.py` prints peak resident memory and time of both, and whether the way
back ended in the start, bit for bit: where it does not, the gradient is NaN.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEPS = (1_000, 100_000)
INTEGRATORS = ("velocity_verlet", "langevin")


def main() -> int:
    """Both lengths for both integrators, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atoms", type=int, default=108, help="4 n³")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5, help="processes for each number of steps")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="run folder")
    parser.add_argument("--only", nargs=2, metavar=("INTEGRATOR", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    difmd.enable_cache()
    if arguments.only:
        print(json.dumps(one(arguments.only[0], int(arguments.only[1]), arguments.atoms, arguments.seed)))
        return 0
    from report import hardware

    rows = []
    for integrator in INTEGRATORS:
        peaks: dict[int, list[float]] = {n_steps: [] for n_steps in STEPS}
        # What it takes to compile varies by some tens of MB from process to process: several, in turns.
        for _ in range(arguments.rounds):
            for n_steps in STEPS:
                command = [sys.executable, __file__, "--atoms", str(arguments.atoms)]
                command += ["--seed", str(arguments.seed), "--only", integrator, str(n_steps)]
                found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows.append(json.loads(found.stdout.splitlines()[-1]))
                peaks[n_steps].append(rows[-1]["peak_MB"])
                print(
                    f"{integrator}, {n_steps} steps, {arguments.atoms} atoms: peak {peaks[n_steps][-1]:.0f} "
                    f"MB, {rows[-1]['seconds']:.1f} s, back in the start bit for bit: "
                    f"{rows[-1]['is_identical']}",
                    flush=True,
                )
        few, many = (statistics.median(peaks[n_steps]) for n_steps in STEPS)
        print(
            f"{integrator}: median {few:.0f} and {many:.0f} MB, {100 * (many / few - 1):+.1f} % for "
            f"{STEPS[1] // STEPS[0]} times the steps"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = {"rows": rows, "seed": arguments.seed, "hardware": hardware()}
    path = arguments.out / "report_reversal.json"
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"report in {path}")
    return 0


def one(name: str, n_steps: int, n_atoms: int, seed: int) -> dict[str, Any]:
    """Derivative of the mean squared displacement of liquid argon in σ and ε."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import numpy as np

    import difmd
    from difmd import gradients, units

    n = round((n_atoms / 4) ** (1 / 3))
    corners = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    length = n * 5.7
    rng = np.random.default_rng(seed)
    positions = (corners + basis).reshape(-1, 3) * 5.7
    positions = (positions + rng.normal(0, 0.1, positions.shape)) % length
    system = difmd.make_system(positions, np.full(len(positions), 18), cell=[length] * 3)
    potential = difmd.lennard_jones(
        ["Ar"], sigma=3.405, epsilon=119.8 * units.KB, cutoff=7.0, truncation=difmd.switched(6.0)
    )
    neighbors = difmd.neighbor_list(system, cutoff=7.0, skin=1.0, slack=1.4)
    momenta = difmd.draw_momenta(jax.random.key(seed), system, 120.0)
    integrator = {
        "velocity_verlet": difmd.velocity_verlet(dt=1 * units.FS),
        "langevin": difmd.langevin(dt=1 * units.FS, temperature=120.0, friction=1 / units.PS),
    }[name]

    def displacement(params: Any) -> tuple[Any, Any]:
        state = difmd.initialize(
            potential, params, system, integrator, neighbors, momenta=momenta, key=jax.random.key(seed)
        )
        run = difmd.rollout(
            potential, params, state, integrator, neighbors,
            n_steps=n_steps, save_every=n_steps // 10, gradient=gradients.reversible(),
        )  # fmt: skip
        apart = run.frames.positions[-1] - system.positions
        return jnp.mean(jnp.sum(apart**2, axis=-1)), run.status

    compiled = jax.jit(jax.value_and_grad(displacement, has_aux=True))
    params = potential.init(jax.random.key(0))
    compiled = compiled.lower(params).compile()
    began = time.perf_counter()
    (value, status), gradient = jax.block_until_ready(compiled(params))
    return {
        "integrator": name,
        "n_steps": n_steps,
        "n_atoms": n_atoms,
        "dtype": "float64",
        "value_A2": float(value),
        "gradient": {k: float(v[0]) for k, v in gradient.items()},
        "flags": int(status.flags),
        "is_identical": bool(all(np.isfinite(v).all() for v in gradient.values())),
        "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": round(time.perf_counter() - began, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
