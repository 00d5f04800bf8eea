"""How D of the fitted model depends on the size of the box and on the lags it is taken from.

The finite-size correction is meant to make D independent of the size, and the window should lie where
the running integral of the velocity autocorrelation is flat. Takes several minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import difmd
from difmd import datasets, units
from difmd._internal.checkpoint import ensure_writable
from difmd._internal.progress import progress_bar
from difmd.fitting import Sampling, at_temperatures, box_length, melt, produce, read_targets
from difmd.observables import diffusivity_from_arrays, finite_size_correction

UNIT = 1e-9 * units.M2_PER_S
TEMPERATURES = (91.0, 109.0)
BOXES = {108: 96, 256: 40, 500: 20}  # atoms: boxes
WINDOWS = ((0.8, 1.2), (1.5, 2.0), (2.0, 3.0), (3.0, 6.0))  # ps

SAMPLING = Sampling(
    atomic_number=6,
    mass=datasets.METHANE_MASS,
    melt_time=2 * units.PS,
    equilibration_time=10 * units.PS,
    production_time=24 * units.PS,
)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigma", type=float, default=3.752, help="[Å]")
    parser.add_argument("--epsilon", type=float, default=130.3, help="[K]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/methane"), help="run folder")
    arguments = parser.parse_args()
    difmd.enable_cache()
    ensure_writable(arguments.out)
    began = time.perf_counter()
    potential = difmd.lennard_jones(
        ["C"],
        sigma=arguments.sigma,
        epsilon=arguments.epsilon * units.KB,
        cutoff=9.5,
        truncation=difmd.switched(8.5),
    )
    params = potential.init(jax.random.key(0))
    targets = at_temperatures(read_targets(datasets.methane_liquid()), TEMPERATURES)
    rows = []
    with progress_bar("box", len(BOXES) * len(targets)) as advance:
        for n_atoms, n_replicas in BOXES.items():
            sampling = dataclasses.replace(SAMPLING, n_atoms=n_atoms, n_replicas=n_replicas)
            liquid = None
            for n, target in enumerate(targets):
                advance(0, f"{n_atoms} atoms, {target.temperature:g} K")
                keys = jax.random.split(jax.random.fold_in(jax.random.key(arguments.seed), n), 2)
                at = {"temperature": target.temperature, "sampling": sampling}
                liquid = melt(potential, params, density=target.density, key=keys[0], like=liquid, **at)
                done, after = produce(potential, params, liquid, key=keys[1], **at)
                correction = finite_size_correction(
                    temperature=target.temperature,
                    viscosity=target.viscosity,
                    box_length=box_length(target.density, sampling),
                )
                for window in WINDOWS:
                    found = diffusivity_from_arrays(
                        done.positions,
                        done.momenta,
                        after.systems.masses[0],
                        interval=sampling.dt * sampling.save_every,
                        window=(window[0] * units.PS, window[1] * units.PS),
                        temperature=target.temperature,
                    )
                    rows.append(
                        {
                            "n_atoms": n_atoms,
                            "n_replicas": n_replicas,
                            "temperature_K": target.temperature,
                            "window_ps": window,
                            "D": round((float(found.einstein.value) + correction) / UNIT, 4),
                            "D_stderr": round(float(found.einstein.stderr) / UNIT, 4),
                            "D_finite_size_correction": round(correction / UNIT, 4),
                        }
                    )
                advance(1)
    report = {
        "sigma_A": arguments.sigma,
        "epsilon_K": arguments.epsilon,
        "seed": arguments.seed,
        "rows": rows,
        "jax": jax.__version__,
        "wall_s": round(time.perf_counter() - began, 1),
    }
    (arguments.out / "box_size.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    Console().print(as_table(rows))


def as_table(rows: list[dict]) -> Table:
    """D at both temperatures and their ratio, by box and window."""
    table = Table(title="D [1e-9 m²/s], finite-size corrected")
    for name in ("atoms", "window [ps]", *(f"{t:g} K" for t in TEMPERATURES), "ratio"):
        table.add_column(name, justify="right")
    for n_atoms in BOXES:
        for window in WINDOWS:
            cold, warm = (row for row in rows if row["n_atoms"] == n_atoms and row["window_ps"] == window)
            ratio = warm["D"] / cold["D"]
            error = ratio * np.hypot(warm["D_stderr"] / warm["D"], cold["D_stderr"] / cold["D"])
            table.add_row(
                str(n_atoms),
                f"{window[0]:g} to {window[1]:g}",
                *(f"{row['D']:.3f} ± {row['D_stderr']:.3f}" for row in (cold, warm)),
                f"{ratio:.3f} ± {error:.3f}",
            )
    return table


if __name__ == "__main__":
    main()
