"""The gradient of a diffusivity against an identity that holds exactly, and what its noise is made of.

D = σ √(ε/m) D*(k_BT/ε, ρσ³) for the Lennard-Jones fluid, so that ∂lnD/∂lnε = ½ − ∂lnD/∂lnT at fixed σ and ρ:
the left side by differentiating trajectories and the distribution of their starts, the right side by
differences between temperatures. `python run.py --help` lists the options; the README beside this file says
what came out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from report import hardware

import difmd
from difmd import datasets, units
from difmd._internal.checkpoint import ensure_writable
from difmd._internal.progress import progress_bar
from difmd.fitting import Replicas, Sampling, equilibrate, melt, produce
from difmd.fitting.targets.diffusion import (
    diffusion_samples,
    diffusion_window,
    gradients_along,
    kinetic_excess,
    origins_of,
)
from difmd.observables import Estimate, with_control
from difmd.sensitivity import equilibrium_gradient

TEMPERATURE, DENSITY = 107.0, 429.08 * units.KG_PER_M3
PARAMS = {"sigma": 3.73, "epsilon": 148.0 * units.KB}
CHANGE = 0.1
"""Of the temperature, each way."""
WINDOW = (1.0 * units.PS, 1.4 * units.PS)
SAMPLING = Sampling(
    atomic_number=6,
    mass=datasets.METHANE_MASS,
    n_atoms=108,
    n_replicas=96,
    n_gradient_replicas=96,
    melt_time=2 * units.PS,
    equilibration_time=6 * units.PS,
    production_time=24 * units.PS,
    window=WINDOW,
    gradient_window=WINDOW,
)
METHODS = ("one origin", "all origins", "all origins, control")


class Noise(NamedTuple):
    """∂lnD/∂lnε of the initial-state term by one method: values and standard errors of all rounds."""

    values: list[float]
    errors: list[float]


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few replicas, to see that all works")
    parser.add_argument("--rounds", type=int, default=8, help="of 96 replicas for the gradient")
    parser.add_argument("--difference-rounds", type=int, default=6, help="at each of the two temperatures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/gradient_identity"), help="run folder")
    arguments = parser.parse_args()
    difmd.enable_cache()
    sampling = SAMPLING
    if arguments.quick:
        sampling = dataclasses.replace(
            sampling, n_replicas=8, n_gradient_replicas=8, production_time=6 * units.PS
        )
        arguments.rounds = arguments.difference_rounds = 1
    ensure_writable(arguments.out)
    console, began = Console(), time.perf_counter()
    potential = difmd.lennard_jones(
        ["C"],
        **PARAMS,
        cutoff=9.5,
        truncation=difmd.switched(8.5),  # one united atom, CH4
    )
    keys = jax.random.split(jax.random.key(arguments.seed), 3)
    left, replicas = gradient(potential, sampling, arguments.rounds, keys[0])
    right = difference(potential, sampling, arguments.difference_rounds, replicas, keys[1:])
    report = {
        **left,
        **right,
        "deviation_in_stderr": compare(left["gradient"], left["gradient_stderr"], right),
        "deviation_in_stderr_along_alone": compare(left["along"], left["along_stderr"], right),
        "deviation_in_stderr_initial_alone": compare(left["initial"], left["initial_stderr"], right),
        "n_atoms": sampling.n_atoms,
        "n_replicas": sampling.n_replicas,
        "n_gradient_samples": arguments.rounds * sampling.n_gradient_replicas,
        "window_ps": [t / units.PS for t in WINDOW],
        "seed": arguments.seed,
        "dtype": str(jnp.zeros(()).dtype),
        "hardware": hardware() if jax.default_backend() == "cpu" else jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "difmd": difmd.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "wall_s": round(time.perf_counter() - began, 1),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(as_table(report))
    for name, gain in report["variance_reduction"].items():
        console.print(f"variance of the initial-state term, {name}: 1/{gain:.1f} of that with one origin")
    console.print(f"report in {arguments.out}, seed {arguments.seed}, {report['wall_s']:.0f} s")


def gradient(
    potential: difmd.Potential, sampling: Sampling, n_rounds: int, key: Any
) -> tuple[dict[str, Any], Replicas]:
    """∂lnD/∂lnε, its two terms, and the noise of the second by each method."""
    params = potential.init(key)
    at = {"temperature": TEMPERATURE, "sampling": sampling}
    epsilon = float(params["epsilon"][0])
    noise = {name: Noise([], []) for name in METHODS}
    along, values = [], []
    with progress_bar("gradient", n_rounds + 1) as advance:
        replicas = melt(potential, params, density=DENSITY, key=jax.random.fold_in(key, n_rounds), **at)
        advance(1)
        for n in range(n_rounds):
            keys = jax.random.split(jax.random.fold_in(key, n), 3)
            replicas = equilibrate(potential, params, replicas, time=2 * units.PS, key=keys[0], **at)
            done, replicas = produce(
                potential, params, replicas, key=keys[1], with_energy_gradients=True, **at
            )
            found = gradients_along(potential, params, replicas, TEMPERATURE, sampling, keys[2])
            origins = origins_of(done, replicas.systems.masses[0], TEMPERATURE, sampling)
            middle = origins.values.shape[1] // 2
            alone = jax.tree.map(lambda x, k=middle: x[:, k : k + 1], origins)
            # In units that make it ∂lnD/∂lnε once all rounds are known.
            along.append(epsilon * np.asarray(found["epsilon"])[:, 0])
            values.append(float(jnp.mean(origins.values)))
            nothing = jax.tree.map(jnp.zeros_like, found)
            for name, part, control in zip(
                METHODS, (alone, origins, origins), (None, None, origins.kinetic), strict=True
            ):
                term = equilibrium_gradient(
                    part.values, part.energy_gradients, nothing, temperature=TEMPERATURE, control=control
                )
                noise[name].values.append(epsilon * float(term.gradient["epsilon"][0]))
                noise[name].errors.append(epsilon * float(term.gradient_stderr["epsilon"][0]))
            advance(1)
    scale = 1 / np.mean(values)
    samples = scale * np.concatenate(along)
    first = Estimate(samples.mean(), samples.std(ddof=1) / np.sqrt(len(samples)))
    terms = {
        name: Estimate(scale * np.mean(x.values), scale * np.linalg.norm(x.errors) / n_rounds)
        for name, x in noise.items()
    }
    second = terms[METHODS[-1]]
    return {
        "gradient": float(first.value + second.value),
        "gradient_stderr": float(np.hypot(first.stderr, second.stderr)),
        "along": float(first.value),
        "along_stderr": float(first.stderr),
        "initial": float(second.value),
        "initial_stderr": float(second.stderr),
        "initial_by_method": {name: [float(x) for x in term] for name, term in terms.items()},
        "variance_reduction": {
            name: float((terms[METHODS[0]].stderr / term.stderr) ** 2) for name, term in terms.items()
        },
    }, replicas


def difference(
    potential: difmd.Potential, sampling: Sampling, n_rounds: int, like: Replicas, keys: Any
) -> dict[str, float]:
    """½ − ∂lnD/∂lnT, and the term of a window that ends before the plateau.

    D(t) at a fixed lag feels the unit of time too, τ ∝ ε^−½: ½ ∂lnD/∂ln t is added, zero on the plateau.
    """
    logs, slopes = [], []
    params = potential.init(keys[0])
    lags = diffusion_window(sampling)
    with progress_bar("differences", 2 * (n_rounds + 1)) as advance:
        for sign, key in zip((1, -1), keys, strict=True):
            kelvin = TEMPERATURE * (1 + sign * CHANGE)
            at = {"temperature": kelvin, "sampling": sampling}
            replicas = melt(
                potential, params, density=DENSITY, key=jax.random.fold_in(key, n_rounds), like=like, **at
            )
            advance(1)
            found, later, earlier, kinetic = [], [], [], []
            for n in range(n_rounds):
                two = jax.random.split(jax.random.fold_in(key, n))
                replicas = equilibrate(potential, params, replicas, time=2 * units.PS, key=two[0], **at)
                done, replicas = produce(potential, params, replicas, key=two[1], **at)
                masses = replicas.systems.masses[0]

                def means(factor: float, done: Any = done, masses: Any = masses) -> np.ndarray:
                    first, last = (round(factor * lag) for lag in (lags.first, lags.last))
                    return np.asarray(diffusion_samples(done, masses, first, last)).mean(axis=1)

                found.append(means(1.0))
                later.append(means(1.2))
                earlier.append(means(1 / 1.2))
                kinetic.append(np.asarray(kinetic_excess(done.momenta, masses, kelvin)).mean(axis=1))
                advance(1)
            d = with_control(np.concatenate(found), np.concatenate(kinetic), 0.0)
            logs.append((np.log(d.value), d.stderr / d.value))
            slopes.append(np.log(np.mean(later) / np.mean(earlier)) / (2 * np.log(1.2)))
    span = np.log((1 + CHANGE) / (1 - CHANGE))
    slope = (logs[0][0] - logs[1][0]) / span
    time_slope = float(np.mean(slopes))
    return {
        "dlnD_dlnT": float(slope),
        "dlnD_dlnt": time_slope,
        "expected": float(0.5 + 0.5 * time_slope - slope),
        "expected_stderr": float(np.hypot(logs[0][1], logs[1][1]) / span),
    }


def compare(value: float, stderr: float, right: dict[str, float]) -> float:
    """Deviation from what is expected, in standard errors of the difference."""
    return float((value - right["expected"]) / np.hypot(stderr, right["expected_stderr"]))


def as_table(report: dict[str, Any]) -> Table:
    """Both sides of the identity."""
    table = Table(title="∂lnD/∂lnε of the Lennard-Jones fluid, ρ and σ fixed")
    for name in ("", "value", "standard error", "of the value", "off by"):
        table.add_column(name, justify="left" if not name else "right")
    rows = (
        ("½ − ∂lnD/∂lnT, by differences", "expected", ""),
        ("both terms", "gradient", "deviation_in_stderr"),
        ("along the trajectory alone", "along", "deviation_in_stderr_along_alone"),
        ("initial state alone", "initial", "deviation_in_stderr_initial_alone"),
    )
    for name, key, deviation in rows:
        value, stderr = report[key], report[f"{key}_stderr"]
        off = f"{report[deviation]:+.1f} s.e." if deviation else ""
        table.add_row(name, f"{value:.3f}", f"{stderr:.3f}", f"{100 * abs(stderr / value):.1f} %", off)
    return table


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing is kept")
    except difmd.DifmdError as error:
        sys.exit(f"error: {error}")
