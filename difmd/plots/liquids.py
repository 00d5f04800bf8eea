"""Diffusivities, correlations, and fits to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd import units
from difmd.observables import Diffusivity
from difmd.plots.figure import new_figure, save

if TYPE_CHECKING:
    from difmd.sensitivity import GradientReport


_D_UNIT = 1e-9 * units.M2_PER_S


def plot_diffusivities(
    path: str | Path,
    temperature: Sequence[float],
    *,
    experiment: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    stderr: Sequence[float],
    fitted_at: Sequence[float],
) -> None:
    """D against T with error bars, before and after a fit, and experiment.

    Args:
        path: file to write.
        temperature: [K].
        experiment: measured D [1e-9 m²/s].
        before: D of the starting parameters.
        after: D of the fitted parameters.
        stderr: statistical error of `after`.
        fitted_at: temperatures that the fit saw [K].
    """
    figure, axes = new_figure(1, 1, size=(5.5, 4.2))
    axis = axes[0]
    order = np.argsort(temperature)
    t = np.asarray(temperature)[order]
    fitted = np.isin(t, fitted_at)
    new, error = np.asarray(after)[order], np.asarray(stderr)[order]
    axis.plot(t, np.asarray(before)[order], "^--", color="0.6", label="before the fit")
    for mask, fill, label in (
        (fitted, "C0", "after: fitted temperatures"),
        (~fitted, "white", "after: predicted"),
    ):
        axis.errorbar(t[mask], new[mask], error[mask], fmt="o", color="C0", mfc=fill, capsize=3, label=label)
    axis.plot(t, np.asarray(experiment)[order], "s", color="k", ms=4, label="experiment")
    axis.set(xlabel="temperature [K]", ylabel="D [10⁻⁹ m²/s]")
    axis.legend(frameon=False)
    save(figure, path)


def plot_fit(path: str | Path, history: Sequence[dict[str, Any]]) -> None:
    """Loss and parameters against iteration, from `FitResult.history`."""
    names = list(history[0]["params"]) if history else []
    figure, axes = new_figure(1, 1 + len(names), size=(3.4 * (1 + len(names)), 3.2))
    iterations = np.arange(1, len(history) + 1)
    axes[0].semilogy(iterations, [entry["loss"] for entry in history], "o-")
    axes[0].set(xlabel="iteration", ylabel="loss")
    for axis, name in zip(axes[1:], names, strict=True):
        series = np.asarray([entry["params"][name] for entry in history])
        axis.plot(iterations, series.reshape(len(history), -1), "o-")
        axis.set(xlabel="iteration", ylabel=name)
    save(figure, path)


def plot_gradient_report(path: str | Path, report: GradientReport) -> None:
    """Size of gradients, their error and n_eff against how far they go back, and time and memory of methods.

    Args:
        path: file to write.
        report: of `difmd.sensitivity.gradient_report`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = new_figure(1, 3, size=(11, 3.4))
    t = report.times / units.PS
    for name, mean, error in zip(report.names, report.gradient, report.gradient_stderr, strict=True):
        (line,) = axes[0].plot(t, np.abs(mean), label=name)
        low = np.maximum(np.abs(mean) - error, np.abs(mean).min() / 10)
        axes[0].fill_between(t, low, np.abs(mean) + error, color=line.get_color(), alpha=0.3, lw=0)
    spread = np.linalg.norm(report.gradient_stderr, axis=0)
    growth = spread[-1] * np.exp(report.lyapunov * (report.times - report.times[-1]))
    axes[0].plot(t, growth, "k:", label="exp(λt)")
    axes[0].set(xlabel="horizon [ps]", ylabel="|θ ∂A/∂θ|", yscale="log")
    axes[0].legend(frameon=False, fontsize="small")
    axes[1].plot(t, 100 * report.relative_error, label="error of the gradient")
    axes[1].plot(t, 100 * report.effective, label="n_eff of replicas")
    axes[1].axhline(100 * report.tolerance, color="k", lw=0.5)
    if np.isfinite(report.horizon):
        axes[1].axvline(report.horizon / units.PS, color="C1", ls="--", label="horizon to use")
    axes[1].set(xlabel="horizon [ps]", ylabel="%", yscale="log")
    axes[1].legend(frameon=False, fontsize="small")
    usable = [cost for cost in report.costs if not cost.refusal]
    axes[2].scatter([c.peak_bytes / 1e6 for c in usable], [c.over_forward for c in usable])
    for cost in usable:
        place = (cost.peak_bytes / 1e6, cost.over_forward)
        axes[2].annotate(cost.method, place, xytext=(4, 4), textcoords="offset points", fontsize="small")
    axes[2].set(xlabel="memory [MB]", ylabel="time over that of the rollout", xscale="log")
    axes[2].margins(x=0.4)
    axes[2].set_ylim(0, 1.2 * max(cost.over_forward for cost in usable))
    axes[2].xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes[2].xaxis.set_major_formatter("{x:g}")
    axes[2].xaxis.set_minor_formatter(NullFormatter())
    save(figure, path)


def plot_correlations(path: str | Path, found: Diffusivity, *, title: str = "") -> None:
    """MSD and VACF with error bands, and the window of the fit."""
    figure, axes = new_figure(1, 2, size=(8, 3.4))
    t = found.times / units.PS
    scale = units.PS**2
    for axis, curve, error, label in (
        (axes[0], found.msd, found.msd_stderr, "MSD [Å²]"),
        (axes[1], found.vacf * scale, found.vacf_stderr * scale, "VACF [Å²/ps²]"),
    ):
        axis.fill_between(t, curve - 2 * error, curve + 2 * error, alpha=0.3, lw=0)
        axis.plot(t, curve)
        axis.axvspan(*(w / units.PS for w in found.window), color="C1", alpha=0.2, lw=0)
        axis.set(xlabel="t [ps]", ylabel=label)
    slope = 6 * float(found.einstein.value)
    inside = (found.times >= found.window[0]) & (found.times <= found.window[1])
    offset = np.mean(found.msd[inside] - slope * found.times[inside])
    axes[0].plot(t, offset + slope * found.times, "k--", lw=0.8)
    axes[1].axhline(0, color="k", lw=0.5)
    value, error = found.einstein.value / _D_UNIT, found.einstein.stderr / _D_UNIT
    axes[0].set_title(f"{title}  D = {value:.3f} ± {error:.3f}", fontsize=9)
    value, error = found.green_kubo.value / _D_UNIT, found.green_kubo.stderr / _D_UNIT
    axes[1].set_title(f"D = {value:.3f} ± {error:.3f} · 10⁻⁹ m²/s", fontsize=9)
    save(figure, path)
