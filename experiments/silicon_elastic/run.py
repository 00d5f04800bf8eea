"""Fit Stillinger–Weber silicon to elastic constants from DFT, as Gangan et al. did.

`python experiments/silicon_elastic/run.py`; the README beside this file says what came out.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import difmd
from difmd import units
from difmd._internal.checkpoint import ensure_writable
from difmd.fitting import FitInterrupted, Term, fit, gauss_newton, least_squares
from difmd.observables import elastic_constants
from difmd.relaxation import isotropic_strain, minimize

EPSILON, SIGMA, LAMBDA = 2.16826, 2.0951, 21.0
"""Of Stillinger and Weber; ε [eV] from 209.2 kJ/mol."""

# Cubic constants C11, C12 [GPa], and the third one as in `constants`.
DFT = (153.214, 56.797, 149.665)
LATTICE = 5.431

# ε [eV] and λ: the original, and three around.
STARTS = ((EPSILON, LAMBDA), (1.6, 25.0), (2.6, 40.0), (1.8, 50.0))

# How often each stands in the 6×6 matrix.
TIMES = np.array([3.0, 6.0, 3.0])

# Steps are over when they are smaller than that, relative.
SMALL = 1e-6
MOST = 15


class Crystal(NamedTuple):
    """The potential, and elastic constants [GPa] and lattice constant [Å] as a function of its params."""

    params: Any
    constants: Callable[[Any], tuple[jax.Array, jax.Array]]


def crystal(repeat: int, *, is_relaxed: bool) -> Crystal:
    """Cubic cells of silicon, at the published lattice constant or relaxed."""
    from ase.build import bulk

    system = difmd.from_ase(bulk("Si", "diamond", a=LATTICE, cubic=True) * repeat)
    potential = difmd.stillinger_weber(["Si"], epsilon=EPSILON, sigma=SIGMA)
    neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff, skin=0.5, slack=1.3)

    def constants(params: Any) -> tuple[jax.Array, jax.Array]:
        """C11, C12 and 2 C44: with the tensor's shears, in which the published constants are."""
        at, current = system, neighbors
        if is_relaxed:
            minimum = minimize(potential, params, system, neighbors, strains=isotropic_strain())
            # What failed to relax has no constants.
            is_good = minimum.status.flags == 0
            at, current = minimum.system, minimum.neighbors
        c = elastic_constants(potential, params, at, current) / units.GPA
        found = jnp.stack([c[0, 0], c[0, 1], 2 * c[3, 3]])
        if is_relaxed:
            found = jnp.where(is_good, found, jnp.nan)
        return found, at.cell[0, 0] / repeat

    return Crystal(potential.init(jax.random.key(0)), constants)


def objective(of: Crystal) -> Term:
    """Residuals whose squares add up to that of the Frobenius norm, in ε and λ."""
    weights = jnp.sqrt(jnp.asarray(TIMES))

    def residuals(chosen: dict[str, jax.Array]) -> jax.Array:
        found, _ = of.constants({**of.params, **chosen})
        return weights * (found - jnp.asarray(DFT))

    return least_squares(residuals, name="elastic")


def fitted(of: Crystal, term: Term, epsilon: float, lambda_: float, folder: Path) -> dict[str, Any]:
    """Gauss–Newton steps in ln ε and ln λ; how many it takes until they are small."""
    start = {
        name: jnp.full_like(of.params[name], value)
        for name, value in (("epsilon", epsilon), ("lambda", lambda_))
    }
    found = fit(
        start, [term], n_iterations=MOST, key=jax.random.key(0), folder=folder,
        optimizer=gauss_newton(max_step=0.3, full_steps=MOST),
    )  # fmt: skip
    history = [
        {
            "epsilon_eV": float(np.ravel(entry["params"]["epsilon"])[0]),
            "lambda": float(np.ravel(entry["params"]["lambda"])[0]),
            "constants_GPa": (np.array(entry["elastic"]["residuals"]) / np.sqrt(TIMES) + DFT).tolist(),
            "norm_GPa": float(np.sqrt(entry["loss"])),
        }
        for entry in found.history
    ]
    at = np.array([[np.log(entry["epsilon_eV"]), np.log(entry["lambda"])] for entry in history])
    steps = np.abs(np.diff(at, axis=0)).max(axis=1)
    # The start is no iteration.
    is_small = steps < SMALL
    n = int(np.argmax(is_small)) if is_small.any() else len(steps)
    return {
        "start": [epsilon, lambda_],
        "iterations": n,
        "is_converged": bool(is_small.any()),
        **history[n],
        "history": history[: n + 1],
    }


def lattice_of(of: Crystal, row: dict[str, Any]) -> float:
    """Lattice constant of a fit [Å]."""
    chosen = {"epsilon": row["epsilon_eV"], "lambda": row["lambda"]}
    params = {**of.params, **{name: jnp.full_like(of.params[name], x) for name, x in chosen.items()}}
    return float(jax.jit(of.constants)(params)[1])


def main() -> int:
    """Original constants, four fits at the published lattice constant, and one with the cell relaxed."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=2, help="cubic cells each way; 2: 64 atoms")
    parser.add_argument("--quick", action="store_true", help="8 atoms and one start, to see that all works")
    parser.add_argument("--out", type=Path, default=Path("runs/silicon_elastic"))
    arguments = parser.parse_args()
    difmd.enable_cache()
    ensure_writable(arguments.out)
    repeat, starts = (1, STARTS[:1]) if arguments.quick else (arguments.repeat, STARTS)
    console = Console()
    began = time.perf_counter()
    rows = []
    for is_relaxed in (False, True):
        of = crystal(repeat, is_relaxed=is_relaxed)
        term = objective(of)
        cell = "relaxed" if is_relaxed else "held"
        console.print(f"compiling, the cell {cell} …")
        for k, start in enumerate(starts[:1] if is_relaxed else starts):
            row = {
                "cell": cell,
                **fitted(of, term, *start, arguments.out / f"{8 * repeat**3}_atoms_{cell}_{k}"),
            }
            row["lattice_A"] = lattice_of(of, row) if is_relaxed else LATTICE
            rows.append(row)
            console.print(
                f"cell {row['cell']}, from ε = {start[0]} eV, λ = {start[1]}: {row['iterations']} iterations "
                f"{'' if row['is_converged'] else '(steps are not small yet) '}"
                f"to ε = {row['epsilon_eV']:.6f} eV, λ = {row['lambda']:.6f}, "
                f"‖C − C_DFT‖ = {row['norm_GPa']:.6f} GPa"
            )
    report = {
        "original_GPa": rows[0]["history"][0]["constants_GPa"],
        "fits": rows,
        "n_atoms": 8 * repeat**3,
        "seed": None,
        "versions": {"difmd": difmd.__version__, "jax": jax.__version__},
        "machine": f"{platform.machine()}, {platform.system()}",
        "wall_s": round(time.perf_counter() - began, 1),
    }
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(arguments.out / "fit.png", rows)
    console.print(as_table(rows))
    console.print(f"{report['wall_s']:.0f} s; report and plot in {arguments.out}")
    return 0


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Constants before and after, beside those of DFT."""
    table = Table(title="Elastic constants [GPa]")
    for name in ("", "C11", "C12", "2 C44", "‖C − C_DFT‖", "a [Å]"):
        table.add_column(name, justify="right")
    table.add_row("DFT", *(f"{c:.3f}" for c in DFT))
    for row in (r for r in rows if r["start"] == list(STARTS[0])):
        for name, entry in (("original", row["history"][0]), ("fitted", row["history"][-1])):
            values = (*entry["constants_GPa"], entry["norm_GPa"])
            lattice = f"{row['lattice_A']:.4f}" if name == "fitted" else ""
            table.add_row(f"{name}, cell {row['cell']}", *(f"{x:.4f}" for x in values), lattice)
    return table


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """How far each fit is above the minimum, against its iterations."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        norms = np.array([entry["norm_GPa"] for entry in row["history"]])
        label = f"ε = {row['start'][0]:g} eV, λ = {row['start'][1]:g}, cell {row['cell']}"
        axis.semilogy(norms, "o-", label=label)
    axis.set(xlabel="iteration", ylabel="‖C − C_DFT‖ [GPa]")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FitInterrupted as stop:
        sys.exit(f"{stop}; the same command goes on")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
    except difmd.DifmdError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: cannot write the results: {error}")
