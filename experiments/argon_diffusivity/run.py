"""Fit a Lennard-Jones potential for liquid argon to one diffusivity, at the size of a published fit.

346 atoms, 100 replicas of 2 000 steps at 94.4 K and 1.374 g/cm³, from σ = 3.380 Å and ε/k = 107.5 K, as
in Han & Yu (2025), but in steps of 2 fs, with which lags reach the plateau of D. Three fits: as there;
without the initial-state term of the gradient; with the finite-size correction. `python run.py --help`
lists the options; the README beside this file says what came out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from report import hardware

import difmd
from difmd import units
from difmd._internal.checkpoint import ensure_writable
from difmd.fitting import (
    DiffusivityTarget,
    FitInterrupted,
    Replicas,
    Sampling,
    equilibrate,
    fit_diffusivity,
    measure_diffusivity,
    melt,
)
from difmd.fitting.driver import CHECKPOINT

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TEMPERATURE = 94.4
DENSITY = 1374 * units.KG_PER_M3
D_TARGET = 2.36
"""What the published fit aims at [1e-9 m²/s]."""
START = {"sigma_A": 3.380, "epsilon_K": 107.5}
MASS = 39.948

SAMPLING = Sampling(
    atomic_number=18,
    mass=MASS,
    n_atoms=346,
    n_replicas=100,
    n_gradient_replicas=20,
    dt=2 * units.FS,
    relaxation_time=2 * units.PS,
    production_time=4 * units.PS,
    window=(1.2 * units.PS, 1.6 * units.PS),
    gradient_window=(0.6 * units.PS, 0.8 * units.PS),
    origin_time=0.1 * units.PS,
)
LONG = dataclasses.replace(
    SAMPLING,
    dt=4 * units.FS,
    melt_time=2 * units.PS,
    equilibration_time=4 * units.PS,
    production_time=8 * units.PS,
    window=(2 * units.PS, 3 * units.PS),
)
"""To melt, and to look at D at longer lags with what came out."""


class Case(NamedTuple):
    """One fit: whether D is that of the infinite system, and whether the gradient has its second term."""

    finite_size_correction: bool
    initial_state_term: bool


CASES = {
    "as_published": Case(False, True),
    "no_initial_state_term": Case(False, False),
    "finite_size_correction": Case(True, True),
}


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small boxes, to see that all works")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--iterations", type=int, default=6, help="steps of each fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/argon_diffusivity"), help="run folder")
    arguments = parser.parse_args()
    difmd.enable_cache()
    sampling, long = SAMPLING, LONG
    if arguments.quick:
        small = {"n_atoms": 140, "n_replicas": 8, "n_gradient_replicas": 4}
        sampling, long = (dataclasses.replace(s, **small) for s in (sampling, long))
        arguments.iterations = min(arguments.iterations, 2)
    ensure_writable(arguments.out)
    console, began = Console(), time.perf_counter()
    potential = difmd.lennard_jones(
        ["Ar"],
        sigma=START["sigma_A"],
        epsilon=START["epsilon_K"] * units.KB,
        cutoff=10.0,
        truncation=difmd.switched(9.0),
    )
    params = potential.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(arguments.seed), 2)
    console.print(f"{sampling.n_replicas} × {sampling.n_atoms} argon atoms, seed {arguments.seed}; melting")
    replicas = melt(potential, params, temperature=TEMPERATURE, density=DENSITY, sampling=long, key=keys[0])
    fits = {
        name: one_fit(potential, params, replicas, name, sampling, long, arguments, keys[1], console)
        for name in arguments.cases
    }
    main_fit = fits[arguments.cases[0]]
    report = {
        **main_fit,
        "fits": fits,
        "target_1e-9_m2_s": D_TARGET,
        "sigma_start_A": START["sigma_A"],
        "epsilon_start_K": START["epsilon_K"],
        "n_atoms": sampling.n_atoms,
        "n_replicas": sampling.n_replicas,
        "n_steps": sampling.steps(sampling.production_time),
        "dt_fs": sampling.dt / units.FS,
        "seed": arguments.seed,
        "dtype": str(params["sigma"].dtype),
        "hardware": hardware() if jax.default_backend() == "cpu" else jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "difmd": difmd.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "wall_s": round(time.perf_counter() - began, 1),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(arguments.out / "errors.png", fits)
    console.print(f"report and plot in {arguments.out}, {report['wall_s']:.0f} s")


def viscosity() -> float:
    """η = 0.15 k_BT (N/V)^⅓/D, which liquids near freezing obey; at the D that is fitted to.

    References:
        Costigliola, Heyes, Schrøder & Dyre, J. Chem. Phys. 150, 021101 (2019), doi:10.1063/1.5080662.
    """
    per_length = (DENSITY / MASS) ** (1 / 3)
    return 0.15 * units.KB * TEMPERATURE * per_length / (D_TARGET * units.D)


def one_fit(
    potential: difmd.Potential,
    params: Any,
    replicas: Replicas,
    name: str,
    sampling: Sampling,
    long: Sampling,
    arguments: argparse.Namespace,
    key: Any,
    console: Console,
) -> dict[str, Any]:
    """Fit, and look at the plateau of D with what came out."""
    case = CASES[name]
    target = DiffusivityTarget(
        temperature=TEMPERATURE,
        diffusivity=D_TARGET * units.D,
        density=DENSITY,
        viscosity=viscosity() if case.finite_size_correction else None,
    )
    console.print(f"{name.replace('_', ' ')}:")
    seconds, last = [], time.perf_counter()

    def note(entry: dict[str, Any]) -> None:
        nonlocal last
        now = time.perf_counter()
        error, stderr = error_of(entry)
        seconds.append(round(now - last, 1))
        sigma, epsilon = entry["params"]["sigma"][0], entry["params"]["epsilon"][0] / units.KB
        console.print(
            f"σ {sigma:.4f} Å  ε/k {epsilon:.2f} K  error {error:+.1f} ± {stderr:.1f} %  {seconds[-1]:.0f} s"
        )
        last = now

    folder = arguments.out / name
    fit = fit_diffusivity(
        potential,
        params,
        [target],
        sampling=sampling,
        n_iterations=arguments.iterations,
        key=key,
        replicas=[replicas],
        initial_state_term=case.initial_state_term,
        folder=folder,
        on_iteration=note,
    )
    liquid = equilibrate(
        potential, fit.params, replicas, temperature=TEMPERATURE, time=long.equilibration_time,
        sampling=long, key=jax.random.fold_in(key, 1),
    )  # fmt: skip
    point, _ = measure_diffusivity(
        potential, fit.params, target, liquid, sampling=long, key=jax.random.fold_in(key, 2)
    )
    (folder / CHECKPOINT).unlink(missing_ok=True)
    # Of the whole fit, where it went on from a checkpoint, too; seconds are those of this run.
    errors, stderrs = zip(*(error_of(entry) for entry in fit.history), strict=True)
    found = {
        "error_percent": list(errors),
        "error_stderr_percent": list(stderrs),
        "seconds_per_iteration": float(np.median(seconds)) if seconds else None,
        "seconds": seconds,
        "sigma_A": round(float(fit.params["sigma"][0]), 4),
        "epsilon_K": round(float(fit.params["epsilon"][0] / units.KB), 2),
        "gradients": [
            {term: entry["diffusivity"][term] for term in ("along", "initial")} for entry in fit.history
        ],
        "D_plateau_1e-9_m2_s": round(point.value / units.D, 3),
        "D_plateau_stderr_1e-9_m2_s": round(point.stderr / units.D, 3),
        "finite_size_correction_1e-9_m2_s": round(point.correction / units.D, 3),
        "viscosity_uPa_s": round(viscosity() / units.PA_S * 1e6, 1) if case.finite_size_correction else None,
    }
    console.print(
        f"σ {found['sigma_A']:.4f} Å, ε/k {found['epsilon_K']:.2f} K; at 2 to 3 ps "
        f"{found['D_plateau_1e-9_m2_s']:.3f} ± {found['D_plateau_stderr_1e-9_m2_s']:.3f} e-9 m²/s"
    )
    return found


def error_of(entry: dict[str, Any]) -> tuple[float, float]:
    """Deviation of D from the target in an iteration, and its standard error [%]."""
    found = entry["diffusivity"]
    value, stderr = found["D_1e-9_m2_s"][0], found["D_stderr_1e-9_m2_s"][0]
    return round(100 * (value / D_TARGET - 1), 2), round(100 * stderr / D_TARGET, 2)


def plot(path: Path, fits: dict[str, dict[str, Any]]) -> None:
    """Errors of the fits by iteration."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, found in fits.items():
        at = np.arange(1, len(found["error_percent"]) + 1)
        axes.errorbar(
            at, found["error_percent"], found["error_stderr_percent"], marker="o", ms=4, capsize=2,
            label=name.replace("_", " "),
        )  # fmt: skip
    axes.axhline(0, color="0.6", lw=0.8, zorder=0)
    axes.axhspan(-3, 3, color="0.92", zorder=-1)
    axes.set(xlabel="iteration", ylabel="error of D [%]", title="Liquid argon, 346 atoms, 94.4 K")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    try:
        main()
    except FitInterrupted as stop:
        sys.exit(f"{stop}; the same command resumes the fit")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command starts the unfinished part again")
    except difmd.DifmdError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: cannot write the results: {error}; the same command resumes the fit")
