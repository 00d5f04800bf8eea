"""What structure, diffusivity, and both together tell about a Lennard-Jones potential for liquid methane.

`python experiments/methane_rdf_and_diffusivity/run.py`; the README beside this file says what came out.
Targets are those of a simulation with known parameters, so that a fit can be right or wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import difmd
from difmd import datasets, units
from difmd._internal.checkpoint import ensure_writable
from difmd.fitting import (
    DiffusivityTarget,
    FitInterrupted,
    FitResult,
    Replicas,
    Sampling,
    StructureTarget,
    at_temperatures,
    fit,
    measure,
    melt,
    read_targets,
    state_points,
)
from difmd.sensitivity import reweighting

TRUE = {"sigma": 3.73, "epsilon_K": 148.0}
"""Of the united atom of TraPPE, Martin & Siepmann 1998, doi:10.1021/jp972543+."""

START = {"sigma": 3.60, "epsilon_K": 130.0}
TEMPERATURES = (91.0, 107.0)
WIDTH, BINS = 0.15, (20, 66)
"""Of a bin [Å], and the first bin and the one after the last: 3.0 to 9.9 Å."""

SAMPLING = Sampling(
    atomic_number=6, mass=datasets.METHANE_MASS, n_replicas=16, n_gradient_replicas=8,
    melt_time=2 * units.PS, equilibration_time=4 * units.PS,
)  # fmt: skip
QUICK = dataclasses.replace(
    SAMPLING, n_atoms=108, n_replicas=4, n_gradient_replicas=2, melt_time=1 * units.PS,
    equilibration_time=2 * units.PS, relaxation_time=1 * units.PS, production_time=8 * units.PS,
)  # fmt: skip


def main() -> int:
    """Targets, three fits, and a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few small boxes, to see that all works")
    parser.add_argument("--iterations", type=int, help="of each fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/methane_rdf_and_diffusivity"))
    arguments = parser.parse_args()
    difmd.enable_cache()
    ensure_writable(arguments.out)
    sampling = QUICK if arguments.quick else SAMPLING
    n_iterations = arguments.iterations or (2 if arguments.quick else 6)
    console = Console()
    began = time.perf_counter()
    potential = difmd.lennard_jones(
        ["C"], sigma=START["sigma"], epsilon=START["epsilon_K"] * units.KB, cutoff=9.5,
        truncation=difmd.switched(8.5),
    )  # fmt: skip
    params = potential.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(arguments.seed), 2)
    folder = arguments.out / f"{sampling.n_replicas}_of_{sampling.n_atoms}_seed_{arguments.seed}"
    ensure_writable(folder)
    diffusivities, structures = targets(potential, params, sampling, keys[0], folder, console)
    rows = []
    for number, (name, chosen) in enumerate(
        {
            "diffusivity": diffusivities,
            "structure": structures,
            "both": [*diffusivities, *structures],
        }.items()
    ):
        console.print(f"fit to {name}")
        term = state_points(potential, params, chosen, sampling=sampling, reuse=reweighting(), name="liquid")
        found = fit(
            params, [term], n_iterations=n_iterations, key=jax.random.fold_in(keys[1], number),
            folder=folder / name, on_iteration=lambda entry: console.print(line(entry)),
        )  # fmt: skip
        rows.append({"targets": name, **summary(found)})
    report = {
        "true": TRUE,
        "start": START,
        "fits": rows,
        "target_D_1e-9_m2_s": [t.diffusivity / units.D for t in diffusivities],
        "target_D_stderr_1e-9_m2_s": [float(t.stderr) / units.D for t in diffusivities],
        "temperatures_K": list(TEMPERATURES),
        "n_atoms": sampling.n_atoms,
        "n_replicas": sampling.n_replicas,
        "seed": arguments.seed,
        "dtype": str(params["sigma"].dtype),
        "machine": f"{platform.machine()}, {platform.system()}, {jax.devices()[0].device_kind}",
        "versions": {"difmd": difmd.__version__, "jax": jax.__version__},
        "wall_s": round(time.perf_counter() - began, 1),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(arguments.out / "fits.png", rows)
    console.print(as_table(rows))
    console.print(f"{report['wall_s']:.0f} s; report and plot in {arguments.out}")
    return 0


def targets(
    potential: Any, params: Any, sampling: Sampling, key: Any, folder: Path, console: Console
) -> tuple[list[DiffusivityTarget], list[StructureTarget]]:
    """D and g(r) with the true parameters, from three times as long a run; read again if they are there."""
    file = folder / "targets.json"
    if file.exists():
        rows = json.loads(file.read_text(encoding="utf-8"))
        return as_targets(rows)
    true = {
        "sigma": params["sigma"] * 0 + TRUE["sigma"],
        "epsilon": params["epsilon"] * 0 + TRUE["epsilon_K"] * units.KB,
    }
    long = dataclasses.replace(sampling, production_time=3 * sampling.production_time)
    table = at_temperatures(read_targets(datasets.methane_liquid(), finite_size=False), TEMPERATURES)
    bins = WIDTH * (np.arange(*BINS) + 0.5)
    rows: list[dict[str, Any]] = []
    liquids: list[Replicas] = []
    for n, point in enumerate(table):
        at = {"temperature": point.temperature, "density": point.density}
        shape = StructureTarget(**at, r=bins, g=np.ones_like(bins))
        melt_key, key_now = jax.random.split(jax.random.fold_in(key, n))
        liquid = melt(
            potential, true, sampling=sampling, key=melt_key, like=liquids[-1] if liquids else None, **at
        )
        (d, g), liquid, _ = measure(potential, true, [point, shape], liquid, sampling=long, key=key_now)
        # A bin that no pair was in has no error, and says nothing.
        error = np.maximum(np.asarray(g.stderr, float), 1e-3)
        of_g = {"r": bins.tolist(), "g": np.asarray(g.g, float).tolist(), "stderr": error.tolist()}
        rows.append({"at": at, "D": {"diffusivity": d.value, "stderr": d.stderr}, "g": of_g})
        liquids.append(liquid)
        console.print(
            f"target at {point.temperature:g} K: D = ({d.value / units.D:.3f} ± {d.stderr / units.D:.3f})"
            f"e-9 m²/s, largest g {max(of_g['g']):.3f}"
        )
    file.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    return as_targets(rows)


def as_targets(rows: list[dict[str, Any]]) -> tuple[list[DiffusivityTarget], list[StructureTarget]]:
    """Diffusivities and structures from what is kept of them."""
    return (
        [DiffusivityTarget(**row["at"], **row["D"]) for row in rows],
        [StructureTarget(**row["at"], **{name: np.array(x) for name, x in row["g"].items()}) for row in rows],
    )


def line(entry: dict[str, Any]) -> str:
    """One line an iteration."""
    sigma, epsilon = entry["params"]["sigma"][0], entry["params"]["epsilon"][0] / units.KB
    record = entry["liquid"]
    d = ", ".join(f"{x:.2f}" for x in record.get("D_1e-9_m2_s", []))
    g = ", ".join(f"{x:.3f}" for x in record.get("g_deviation", []))
    share = ", ".join(f"{x:.2f}" for x in record.get("effective", []))
    return (
        f"σ {sigma:.4f} Å  ε/k {epsilon:.2f} K  loss {entry['loss']:.2e}"
        + (f"  D {d}" if d else "")
        + (f"  Δg {g} (n_eff/n {share})" if g else "")
    )


def summary(found: FitResult) -> dict[str, Any]:
    """Parameters with error bars, and the way there."""
    errors = found.stderr
    determined = bool(np.isfinite(found.covariance).all())
    return {
        "is_determined": determined,
        "sigma_A": float(found.params["sigma"][0]),
        "sigma_stderr_A": float(errors["sigma"][0]) if determined else None,
        "epsilon_K": float(found.params["epsilon"][0] / units.KB),
        "epsilon_stderr_K": float(errors["epsilon"][0] / units.KB) if determined else None,
        "covariance_K_A": (found.covariance / np.outer([units.KB, 1], [units.KB, 1])).tolist()
        if determined
        else None,
        "loss": [entry["loss"] for entry in found.history],
        "sigma_path_A": [entry["params"]["sigma"][0] for entry in found.history],
        "epsilon_path_K": [entry["params"]["epsilon"][0] / units.KB for entry in found.history],
        "simulated": sum(min(entry["liquid"].get("effective", [1.0])) > 1 - 1e-6 for entry in found.history),
    }


def as_table(rows: list[dict[str, Any]]) -> Table:
    """The three fits beside the truth."""
    table = Table(title="Fits to what a known potential gives")
    for name in ("targets", "σ [Å]", "ε/k [K]", "iterations simulated"):
        table.add_column(name, justify="right")
    table.add_row("true", f"{TRUE['sigma']:.3f}", f"{TRUE['epsilon_K']:.1f}", "")
    for row in rows:
        sigma, epsilon = ("not determined",) * 2
        if row["is_determined"]:
            sigma, epsilon = f"± {row['sigma_stderr_A']:.4f}", f"± {row['epsilon_stderr_K']:.2f}"
        table.add_row(
            row["targets"],
            f"{row['sigma_A']:.4f} {sigma}",
            f"{row['epsilon_K']:.2f} {epsilon}",
            f"{row['simulated']} of {len(row['loss'])}",
        )
    return table


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Paths of the fits in the plane of both parameters, and one standard error around their ends."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    axis = figure.subplots()
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for color, row in enumerate(rows):
        sigma = [*row["sigma_path_A"], row["sigma_A"]]
        epsilon = [*row["epsilon_path_K"], row["epsilon_K"]]
        axis.plot(sigma, epsilon, ".-", color=f"C{color}", label=f"fit to {row['targets']}")
        if row["is_determined"]:
            covariance = np.array(row["covariance_K_A"])
            # The order of the params: ε, σ.
            values, vectors = np.linalg.eigh(covariance)
            ring = vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * circle)
            axis.plot(row["sigma_A"] + ring[1], row["epsilon_K"] + ring[0], color=f"C{color}", lw=0.8)
    axis.plot(TRUE["sigma"], TRUE["epsilon_K"], "k*", ms=11, label="true")
    axis.set(xlabel="σ [Å]", ylabel="ε/k [K]", xlim=(3.55, 4.0), ylim=(110, 170))
    axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FitInterrupted as stop:
        sys.exit(f"{stop}; the same command goes on")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command starts the unfinished part again")
    except difmd.DifmdError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: cannot write the results: {error}")
