"""Fit a Lennard-Jones potential for liquid methane to measured diffusivities.

Three temperatures are fitted, seven more are predicted. `python run.py --help` lists the options; the
README beside this file says what it found.
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
from difmd import datasets, plots, units
from difmd._internal.checkpoint import ensure_writable
from difmd._internal.progress import progress_bar
from difmd.fitting import (
    DiffusivityTarget,
    FitInterrupted,
    Replicas,
    Sampling,
    StatePoint,
    absolute_residual,
    at_temperatures,
    equilibrate,
    fit_diffusivity,
    keep_liquid,
    measure_diffusivity,
    melt,
    read_targets,
)
from difmd.fitting.driver import CHECKPOINT

FITTED_AT = (91.0, 99.0, 107.0)
START = {"sigma_A": 3.60, "epsilon_K": 130.0}

SAMPLING = Sampling(
    atomic_number=6,
    mass=datasets.METHANE_MASS,
    melt_time=2 * units.PS,
    equilibration_time=4 * units.PS,
)
QUICK = dataclasses.replace(
    SAMPLING,
    n_atoms=108,
    n_replicas=8,
    n_gradient_replicas=4,
    melt_time=1 * units.PS,
    equilibration_time=2 * units.PS,
    relaxation_time=1 * units.PS,
    production_time=8 * units.PS,
)


@dataclasses.dataclass
class Settings:
    """What the command line chooses."""

    sampling: Sampling
    targets: tuple[DiffusivityTarget, ...]
    n_iterations: int
    before_time: float
    after_time: float
    seed: int
    folder: Path


def parse() -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="a minute, to see that all works")
    length.add_argument(
        "--short", action="store_true", help="five temperatures, fewer steps of the fit, shorter averages"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/methane"), help="run folder")
    parser.add_argument("--targets", type=Path, default=datasets.methane_liquid())
    parser.add_argument("--iterations", type=int, help="steps of the fit")
    arguments = parser.parse_args()
    difmd.enable_cache()
    table = read_targets(arguments.targets)
    at_temperatures(table, FITTED_AT)
    sampling, iterations, before_time, after_time = SAMPLING, 6, 8 * units.PS, 18 * units.PS
    if arguments.quick:
        table = at_temperatures(table, (91.0, 99.0, 103.0, 107.0))
        sampling, iterations, after_time = QUICK, 2, 8 * units.PS
    elif arguments.short:
        table = at_temperatures(table, (91.0, 95.0, 99.0, 103.0, 107.0))
        iterations, after_time = 5, 12 * units.PS
    return Settings(
        sampling, table, arguments.iterations or iterations, before_time, after_time, arguments.seed,
        arguments.out,
    )  # fmt: skip


def survey(
    potential: difmd.potentials.Potential,
    params: Any,
    settings: Settings,
    *,
    production_time: float,
    replicas: list[Replicas] | None,
    key: Any,
    title: str,
) -> tuple[list[StatePoint], list[Replicas]]:
    """D at every temperature of the table; melts when there are no replicas yet."""
    # Frames twice as often, for the integral over the velocity autocorrelation.
    sampling = dataclasses.replace(settings.sampling, production_time=production_time, save_every=3)
    points, after = [], []
    with progress_bar(title, len(settings.targets)) as advance:
        for n, target in enumerate(settings.targets):
            advance(0, f"{target.temperature:g} K")
            at = {"temperature": target.temperature, "sampling": sampling}
            keys = jax.random.split(jax.random.fold_in(key, n), 3)
            if replicas is None:
                like = after[-1] if after else None
                liquid = melt(potential, params, density=target.density, key=keys[0], like=like, **at)
            else:
                # Larger atoms at the old positions heat the liquid; the thermostat needs several ps.
                time = 2 * sampling.equilibration_time
                liquid = equilibrate(potential, params, replicas[n], time=time, key=keys[0], **at)
                liquid = keep_liquid(liquid, density=target.density, sampling=sampling, key=keys[1])
            point, liquid = measure_diffusivity(
                potential, params, target, liquid, sampling=sampling, key=keys[2]
            )
            points.append(point)
            after.append(liquid)
            advance(1, f"{target.temperature:g} K: D = {point.value / units.D:.2f}e-9 m²/s")
    return points, after


def main() -> None:
    """Run the experiment."""
    settings = parse()
    ensure_writable(settings.folder)
    began = time.perf_counter()
    console = Console()
    potential = difmd.lennard_jones(
        ["C"],  # one united atom, CH4
        sigma=START["sigma_A"],
        epsilon=START["epsilon_K"] * units.KB,
        cutoff=9.5,
        truncation=difmd.switched(8.5),
    )
    params = potential.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(settings.seed), 3)
    console.print(
        f"Liquid methane, {settings.sampling.n_replicas} × {settings.sampling.n_atoms} atoms a "
        f"temperature, seed {settings.seed}, {jax.devices()[0]}"
    )
    before, replicas = survey(
        potential,
        params,
        settings,
        production_time=settings.before_time,
        replicas=None,
        key=keys[0],
        title="before",
    )
    temperatures = [target.temperature for target in settings.targets]
    index = [temperatures.index(t) for t in FITTED_AT]
    fit = fit_diffusivity(
        potential,
        params,
        [settings.targets[n] for n in index],
        sampling=settings.sampling,
        n_iterations=settings.n_iterations,
        key=keys[1],
        residual=absolute_residual,
        replicas=[replicas[n] for n in index],
        folder=settings.folder,
        on_iteration=lambda entry: console.print(describe(entry)),
    )
    after, _ = survey(
        potential,
        fit.params,
        settings,
        production_time=settings.after_time,
        replicas=replicas,
        key=keys[2],
        title="after ",
    )
    report = make_report(settings, fit.params, fit.history, before, after)
    report["wall_s"] = round(time.perf_counter() - began, 1)
    write(settings.folder, report, fit.history, after[index[1]])
    # The fit is finished: the next run begins a new one.
    (settings.folder / CHECKPOINT).unlink(missing_ok=True)
    console.print(as_table(report))
    console.print(
        f"σ = {report['sigma_A']:.3f} Å, ε/k = {report['epsilon_K']:.1f} K; {report['wall_s']:.0f} s; "
        f"report and plots in {settings.folder}"
    )


def describe(entry: dict[str, Any]) -> str:
    """One line an iteration."""
    values = ", ".join(f"{value:.2f}" for value in entry["diffusivity"]["D_1e-9_m2_s"])
    sigma, epsilon = entry["params"]["sigma"][0], entry["params"]["epsilon"][0] / units.KB
    return f"σ {sigma:.3f} Å  ε/k {epsilon:.1f} K  D {values}  loss {entry['loss']:.5f}"


def make_report(
    settings: Settings,
    params: Any,
    history: list[dict[str, Any]],
    before: list[StatePoint],
    after: list[StatePoint],
) -> dict[str, Any]:
    """Everything worth keeping, D in 1e-9 m²/s."""
    experiment = np.array([target.diffusivity / units.D for target in settings.targets])
    temperatures = np.array([target.temperature for target in settings.targets])
    predicted = ~np.isin(temperatures, FITTED_AT)
    new = np.array([point.value / units.D for point in after])
    errors = 100 * (new / experiment - 1)
    rounded = [round(float(e), 2) for e in errors]
    return {
        "sigma_A": float(params["sigma"][0]),
        "epsilon_K": float(params["epsilon"][0] / units.KB),
        "temperature_K": temperatures.tolist(),
        "D_exp": np.round(experiment, 4).tolist(),
        "D_before": [round(point.value / units.D, 4) for point in before],
        "D_after": np.round(new, 4).tolist(),
        "D_stderr": [round(point.stderr / units.D, 4) for point in after],
        "D_after_green_kubo": [
            round((float(p.diffusivity.green_kubo.value) + p.correction) / units.D, 4) for p in after
        ],
        "replicas_frozen_after": [point.n_solid for point in after],
        "D_finite_size_correction": [round(point.correction / units.D, 4) for point in after],
        "error_percent": rounded,
        "fitted_at_K": list(FITTED_AT),
        "mean_abs_error_percent_predicted": round(float(np.abs(errors[predicted]).mean()), 2),
        "max_abs_error_percent_predicted": round(float(np.abs(errors[predicted]).max()), 2),
        "sigma_start_A": START["sigma_A"],
        "epsilon_start_K": START["epsilon_K"],
        "loss": [entry["loss"] for entry in history],
        "n_atoms": settings.sampling.n_atoms,
        "n_replicas": settings.sampling.n_replicas,
        "seed": settings.seed,
        "dtype": str(params["sigma"].dtype),
        "device": jax.devices()[0].device_kind,
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "jax": jax.__version__,
        "difmd": difmd.__version__,
    }


def write(folder: Path, report: dict[str, Any], history: list[dict[str, Any]], shown: StatePoint) -> None:
    """Report and plots."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plots.plot_diffusivities(
        report["temperature_K"],
        experiment=report["D_exp"],
        before=report["D_before"],
        after=report["D_after"],
        stderr=report["D_stderr"],
        fitted_at=report["fitted_at_K"],
        path=folder / "diffusivity.png",
    )
    plots.plot_fit(history, path=folder / "fit.png")
    plots.plot_correlations(shown.diffusivity, title="99 K:", path=folder / "correlations.png")


def as_table(report: dict[str, Any]) -> Table:
    """Before and after, with the predictions marked."""
    table = Table(title="D of liquid methane [1e-9 m²/s], finite-size corrected")
    for name in ("T [K]", "experiment", "before", "after", "error", ""):
        table.add_column(name, justify="right")
    columns = ("temperature_K", "D_exp", "D_before", "D_after", "D_stderr", "error_percent")
    for t, exp, old, new, stderr, error in zip(*(report[c] for c in columns), strict=True):
        kind = "fitted" if t in report["fitted_at_K"] else "predicted"
        table.add_row(
            f"{t:g}",
            f"{exp:.2f}",
            f"{old:.2f}",
            f"{new:.2f} ± {stderr:.2f}",
            f"{error:+.1f} %",
            kind,
        )
    mean, largest = (report[f"{kind}_abs_error_percent_predicted"] for kind in ("mean", "max"))
    table.caption = f"predicted temperatures: mean |error| {mean:.1f} %, largest {largest:.1f} %"
    return table


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
