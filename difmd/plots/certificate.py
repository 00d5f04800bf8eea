"""Plots of validation certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd import units
from difmd.plots.figure import few_ticks, finish, new_figure, note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from difmd.validation import Certificate, CutoffScan, KineticEnergies, TimeSteps, Volumes


def plot_certificate(certificate: Certificate, *, path: str | Path | None = None) -> Figure:
    """Plot energy conservation, kinetic energies, the cut-off, and volumes against pressure.

    Args:
        certificate: from `difmd.validate`; panels of checks that were not run are marked.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with four panels.
    """
    figure, axes = new_figure(2, 2, size=(9.5, 7))
    _plot_time_steps(axes[0], certificate.time_steps)
    _plot_kinetic(axes[1], certificate.kinetic)
    _plot_scans(axes[2], certificate.scans)
    _plot_volumes(axes[3], certificate.volumes)
    return finish(figure, path)


def _plot_time_steps(axis: Any, steps: TimeSteps | None) -> None:
    axis.set(xlabel="time step [fs]", ylabel="fluctuation, total / kinetic energy")
    if steps is None:
        note(axis, "not checked")
        return
    dt = steps.dt / units.FS
    axis.errorbar(dt, steps.fluctuation, steps.stderr, fmt="o", capsize=3, label="velocity Verlet")
    axis.plot(dt, steps.fluctuation[-1] * (dt / dt[-1]) ** 2, "k--", lw=0.8, label="∝ dt²")
    axis.axvline(steps.largest_dt / units.FS, color="C1", ls=":", label="largest time step")
    axis.set(xscale="log", yscale="log")
    few_ticks(axis)
    axis.legend(frameon=False, fontsize="small")


def _plot_kinetic(axis: Any, kinetic: KineticEnergies | None) -> None:
    axis.set(xlabel="kinetic energy / (N_f kT/2)", ylabel="probability density")
    if kinetic is None:
        note(axis, "not checked")
        return
    from scipy.stats import gamma

    half = kinetic.n_free.sum() / 2
    samples = kinetic.total.ravel() / half
    axis.hist(samples, bins=50, density=True, alpha=0.5, label="sampled with a thermostat")
    x = np.linspace(samples.min(), samples.max(), 200)
    axis.plot(x, gamma(half, scale=1 / half).pdf(x), "k", lw=1, label="gamma distribution")
    axis.legend(frameon=False, fontsize="small")


def _plot_scans(axis: Any, scans: Sequence[CutoffScan]) -> None:
    axis.set(xlabel="interatomic distance [Å]", ylabel="energy [meV], force [meV/Å]")
    if not scans:
        note(axis, "not checked")
        return
    heights = []
    for k, scan in enumerate(scans):
        name = "–".join(scan.pair)
        for values, style, label in (
            (scan.energies, "-", f"{name}, {scan.kind}"), (scan.forces, "--", f"force, {name}"),
        ):  # fmt: skip
            axis.plot(scan.distances, 1e3 * values, style, color=f"C{k}", lw=1.2, label=label)
            # The limits of the axis follow the last tenth, next to the cut-off.
            late = scan.distances > 0.9 * scan.distances[-1]
            heights.append(1e3 * np.max(np.abs(values[late])))
    limit = 1.3 * max(heights) or 1.0
    axis.set(xlim=(0.88 * scans[0].distances[-1], scans[0].distances[-1]), ylim=(-limit, limit))
    axis.axhline(0, color="k", lw=0.5)
    axis.legend(frameon=False, fontsize="small")


def _plot_volumes(axis: Any, volumes: Volumes | None) -> None:
    axis.set(xlabel="pressure [bar]", ylabel="mean volume ⟨V⟩ [Å³]")
    if volumes is None:
        note(axis, "not checked")
        return
    from difmd.validation.histograms import jackknife

    pressure = volumes.pressures / units.BAR
    means = [jackknife(np.mean, samples) for samples in volumes.samples]
    values = np.array([mean.value for mean in means])
    axis.errorbar(pressure, values, [mean.stderr for mean in means], fmt="o", capsize=3, label="⟨V⟩")
    slope = -jackknife(np.var, volumes.samples[1]).value / (units.KB * volumes.temperature) * units.BAR
    line = values[1] + slope * (pressure - pressure[1])
    axis.plot(pressure, line, "k--", lw=0.8, label="slope −⟨δV²⟩/kT")
    axis.legend(frameon=False, fontsize="small")
