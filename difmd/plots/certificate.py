"""Plots of validation certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    panels: tuple[tuple[str, str, Callable[[Any, Any], None], Any], ...] = (
        ("time step [fs]", "fluctuation, total / kinetic energy", _plot_time_steps, certificate.time_steps),
        ("kinetic energy / (N_f kT/2)", "probability density", _plot_kinetic, certificate.kinetic),
        ("interatomic distance [Å]", "energy [meV], force [meV/Å]", _plot_scans, certificate.scans),
        ("pressure [bar]", "mean volume ⟨V⟩ [Å³]", _plot_volumes, certificate.volumes),
    )
    figure, axes = new_figure(2, 2, size=(9.5, 7))
    for axis, (xlabel, ylabel, plot, results) in zip(axes, panels, strict=True):
        axis.set(xlabel=xlabel, ylabel=ylabel)
        if results:
            plot(axis, results)
            axis.legend(frameon=False, fontsize="small")
        else:
            note(axis, "not checked")
    return finish(figure, path)


def _plot_time_steps(axis: Any, steps: TimeSteps) -> None:
    dt = steps.dt / units.FS
    axis.errorbar(dt, steps.fluctuation, steps.stderr, fmt="o", capsize=3, label="velocity Verlet")
    axis.plot(dt, steps.fluctuation[-1] * (dt / dt[-1]) ** 2, "k--", lw=0.8, label="∝ dt²")
    axis.axvline(steps.largest_dt / units.FS, color="C1", ls=":", label="largest time step")
    axis.set(xscale="log", yscale="log")
    few_ticks(axis)


def _plot_kinetic(axis: Any, kinetic: KineticEnergies) -> None:
    from scipy.stats import gamma

    half = kinetic.n_free.sum() / 2
    samples = kinetic.total.ravel() / half
    axis.hist(samples, bins=50, density=True, alpha=0.5, label="sampled with a thermostat")
    x = np.linspace(samples.min(), samples.max(), 200)
    axis.plot(x, gamma(half, scale=1 / half).pdf(x), "k", lw=1, label="gamma distribution")


def _plot_scans(axis: Any, scans: Sequence[CutoffScan]) -> None:
    heights = []
    for k, scan in enumerate(scans):
        name = "–".join(scan.pair)
        energies, forces = 1e3 * scan.energies, 1e3 * scan.forces
        axis.plot(scan.distances, energies, "-", color=f"C{k}", lw=1.2, label=f"{name}, {scan.kind}")
        axis.plot(scan.distances, forces, "--", color=f"C{k}", lw=1.2, label=f"force, {name}")
        # The limits of the axis follow the last tenth, next to the cut-off.
        late = scan.distances > 0.9 * scan.distances[-1]
        heights.append(np.max(np.abs([energies[late], forces[late]])))
    limit = 1.3 * max(heights) or 1.0
    axis.set(xlim=(0.88 * scans[0].distances[-1], scans[0].distances[-1]), ylim=(-limit, limit))
    axis.axhline(0, color="k", lw=0.5)


def _plot_volumes(axis: Any, volumes: Volumes) -> None:
    from difmd.validation.histograms import jackknife

    pressure = volumes.pressures / units.BAR
    means = [jackknife(np.mean, samples) for samples in volumes.samples]
    values = np.array([mean.value for mean in means])
    axis.errorbar(pressure, values, [mean.stderr for mean in means], fmt="o", capsize=3, label="⟨V⟩")
    slope = -jackknife(np.var, volumes.samples[1]).value / (units.KB * volumes.temperature) * units.BAR
    line = values[1] + slope * (pressure - pressure[1])
    axis.plot(pressure, line, "k--", lw=0.8, label="slope −⟨δV²⟩/kT")
