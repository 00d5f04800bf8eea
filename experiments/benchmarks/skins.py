"""Time of a step against the skin of the list, beside what difmd chooses; `python skins.py --help`."""

from __future__ import annotations

import argparse
import time
from typing import Any

import ase.build
import jax
import numpy as np

import difmd
from difmd import units
from difmd.neighbors import automatic_skin

SHARES = (0.03, 0.05, 0.07, 0.09, 0.12, 0.15, 0.2)


def main() -> None:
    """Time the skins in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10, help="4 n³ atoms")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    difmd.enable_cache()
    # Name: σ, ε, mass, time step, temperature of a crystal that melts to about half of it.
    fluids = {
        "Lennard-Jones units, 0.005": (1.0, 1.0, 1.0, 0.005, 1.44 / units.KB),
        "argon, 2 fs": (3.4, 120 * units.KB, 39.95, 2 * units.FS, 190.0),
    }
    print(f"{4 * arguments.cells**3} atoms, {arguments.steps} steps, seed {arguments.seed}; ms a step")
    for name, (sigma, epsilon, mass, dt, temperature) in fluids.items():
        cutoff = 2.5 * sigma
        potential = difmd.lennard_jones(["Ar"], sigma=sigma, epsilon=epsilon, cutoff=cutoff)
        params, integrator = potential.init(jax.random.key(0)), difmd.velocity_verlet(dt=dt)
        atoms = ase.build.bulk("Ar", "fcc", a=sigma * (4 / 0.8442) ** (1 / 3), cubic=True)
        atoms = atoms * ((arguments.cells,) * 3)
        atoms.set_masses(np.full(len(atoms), mass))

        def advance(start: Any, skin: float | None, n_steps: int, **more: Any) -> Any:
            return difmd.simulate(
                potential, params, start, integrator, n_steps=n_steps, save_every=n_steps,  # noqa: B023
                chunk_steps=n_steps, skin=skin, progress=False, **more,
            )  # fmt: skip

        start = {"initial_temperature": temperature, "key": jax.random.key(arguments.seed)}
        state = advance(difmd.from_ase(atoms), None, 1000, **start).state
        for share in SHARES:
            advance(state, share * cutoff, arguments.steps)
        times: dict[float, list[float]] = {share: [] for share in SHARES}
        for _ in range(arguments.rounds):
            for share in SHARES:
                began = time.perf_counter()
                advance(state, share * cutoff, arguments.steps)
                times[share].append(1e3 * (time.perf_counter() - began) / arguments.steps)
        chosen = automatic_skin([mass], dt=dt, cutoff=cutoff) / cutoff
        print(f"{name}: difmd chooses {chosen:.3f} of the cut-off")
        for share, values in times.items():
            print(f"  {share:5.2f}  {np.median(values):7.3f}", flush=True)


if __name__ == "__main__":
    main()
