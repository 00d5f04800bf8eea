"""Rows of a report of the benchmarks, and what is made of them: ratios, a table, a plot."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import lammps_runs
import numpy as np
from rich.table import Table

REPLICAS = (64, 256)
"""Replicas, and atoms of each."""


class Package(NamedTuple):
    """A way to run the same dynamics."""

    name: str
    dtype: str
    version: str | None


def row(
    case: str, package: Package, n_atoms: int, values: list[float], unit: str, **more: Any
) -> dict[str, Any]:
    """A row of the report: the median of the rounds, the best, and all of them.

    On a machine that others use, too, rounds of one package differ by a factor of two; its best tells what it
    can do when they leave it alone.
    """
    return {
        "case": case,
        "package": package.name,
        "version": package.version,
        "n_atoms": n_atoms,
        "dtype": package.dtype,
        "value": float(np.median(values)),
        "best": float(max(values) if unit.endswith("/s") else min(values) if len(values) > 1 else values[0]),
        "unit": unit,
        "rounds": [float(f"{value:.5g}") for value in values],
        **more,
    }


def ratios(rows: list[dict[str, Any]], of: str = "value") -> dict[str, float]:
    """What the rows of one run say of each other, by their `value` or their `best`."""

    def value(case: str, package: str, n_atoms: int, dtype: str) -> float:
        wanted = {"case": case, "package": package, "n_atoms": n_atoms, "dtype": dtype}
        found = [r[of] for r in rows if all(r[k] == v for k, v in wanted.items())]
        return found[0] if found else float("nan")

    n = 32_000
    found = {}
    for dtype in ("float32", "float64"):
        own = value("md", "difmd", n, dtype)
        for policy in lammps_runs.POLICIES:
            peer = value(f"md, rebuilds {policy}", "lammps", n, "float64")
            found[f"32000 atoms, difmd {dtype} over LAMMPS 2 ranks, {policy}"] = own / peer
        found[f"32000 atoms, difmd {dtype}, rebuild over force"] = value(
            "rebuild", "difmd", n, dtype
        ) / value("force", "difmd", n, dtype)
    found["32000 atoms, difmd float32 over jax-md float32"] = value("md", "difmd", n, "float32") / value(
        "md", "jax-md", n, "float32"
    )
    number, each = REPLICAS
    found[f"{number} replicas of {each} over one system, per atom"] = value(
        f"{number} replicas", "difmd", each, "float32"
    ) / value("beside the replicas", "difmd", number * each, "float32")
    speeds = [value("md", "difmd", n, "float32") for n in (4_000, 32_000, 256_000, 1_000_000)]
    found["slowest over fastest of 4000 to 1000000 atoms, difmd float32"] = min(speeds) / max(speeds)
    return {name: ratio for name, ratio in found.items() if np.isfinite(ratio)}


def hardware() -> str:
    """The processor and how many cores of it there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def as_table(rows: list[dict[str, Any]]) -> Table:
    """All rows."""
    table = Table(title="Lennard-Jones fluid, ρ* = 0.8442, cut-off 2.5, skin 0.3")
    for name in ("case", "package", "dtype", "atoms", "value", "unit"):
        table.add_column(name, justify="right" if name in ("atoms", "value") else "left")
    for r in rows:
        table.add_row(r["case"], r["package"], r["dtype"], f"{r['n_atoms']}", f"{r['value']:.4g}", r["unit"])
    return table


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Throughput and memory against the number of atoms."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for r in rows:
        if r["case"] == "md" or r["case"].startswith("md, rebuilds"):
            label = f"{r['package']} {r['dtype']}{r['case'][2:]}"
            lines.setdefault(("speed", label), []).append((r["n_atoms"], r["value"] / 1e6))
        elif r["case"] == "memory of md":
            label = f"{r['package']} {r['dtype']}"
            lines.setdefault(("memory", label), []).append((r["n_atoms"], r["value"] / 1e3))
    for (kind, label), points in lines.items():
        (left if kind == "speed" else right).plot(*zip(*sorted(points), strict=True), "o-", label=label)
    left.set(xscale="log", xlabel="atoms", ylabel="10⁶ atom-steps/s")
    left.set_ylim(bottom=0)
    right.set(xscale="log", yscale="log", xlabel="atoms", ylabel="peak memory of the process [GB]")
    for axes in (left, right):
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
