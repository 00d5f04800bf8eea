"""Plots of diffusivities, correlation functions, fits and gradient reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd import units
from difmd.observables import Diffusivity
from difmd.plots.figure import finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from difmd.sensitivity import GradientReport


def plot_diffusivities(
    temperatures: Sequence[float],
    *,
    experiment: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    stderr: Sequence[float],
    fitted_at: Sequence[float],
    path: str | Path | None = None,
) -> Figure:
    """Plot D against temperature: experiment, and the simulation before and after a fit.

    Args:
        temperatures: [K].
        experiment: measured D [1e-9 m²/s].
        before: D with the initial parameters [1e-9 m²/s].
        after: D with the fitted parameters [1e-9 m²/s].
        stderr: standard error of `after` [1e-9 m²/s].
        fitted_at: temperatures that were fitted [K]; the others are predictions.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure.
    """
    figure, (axis,) = new_figure(1, 1, size=(5.5, 4.2))
    order = np.argsort(temperatures)
    t = np.asarray(temperatures)[order]
    fitted = np.isin(t, fitted_at)
    new, error = np.asarray(after)[order], np.asarray(stderr)[order]
    axis.plot(t, np.asarray(before)[order], "^--", color="0.6", label="before the fit")
    for mask, fill, kind in ((fitted, "C0", "fitted temperatures"), (~fitted, "white", "predictions")):
        style = {"fmt": "o", "color": "C0", "mfc": fill, "capsize": 3, "label": f"after the fit: {kind}"}
        axis.errorbar(t[mask], new[mask], error[mask], **style)
    axis.plot(t, np.asarray(experiment)[order], "s", color="k", ms=4, label="experiment")
    axis.set(xlabel="temperature [K]", ylabel="D [10⁻⁹ m²/s]")
    axis.legend(frameon=False)
    return finish(figure, path)


def plot_fit(history: Sequence[dict[str, Any]], *, path: str | Path | None = None) -> Figure:
    """Plot loss and parameters against the iteration of a fit.

    Args:
        history: `FitResult.history`.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with a panel for the loss and one for each parameter.
    """
    names = list(history[0]["params"]) if history else []
    figure, axes = new_figure(1, 1 + len(names), size=(3.4 * (1 + len(names)), 3.2))
    iterations = np.arange(1, len(history) + 1)
    axes[0].semilogy(iterations, [entry["loss"] for entry in history], "o-")
    axes[0].set(xlabel="iteration", ylabel="loss")
    for axis, name in zip(axes[1:], names, strict=True):
        series = np.asarray([entry["params"][name] for entry in history])
        axis.plot(iterations, series.reshape(len(history), -1), "o-")
        axis.set(xlabel="iteration", ylabel=name)
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return finish(figure, path)


def plot_gradient_report(report: GradientReport, *, path: str | Path | None = None) -> Figure:
    """Plot gradients, their errors and the effective number of replicas against the horizon, and costs.

    Args:
        report: from `difmd.sensitivity.gradient_report`.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with three panels.
    """
    figure, axes = new_figure(1, 3, size=(11, 3.4))
    t = report.times / units.PS
    for name, mean, error in zip(report.names, report.gradient, report.gradient_stderr, strict=True):
        (line,) = axes[0].plot(t, np.abs(mean), label=name)
        low = np.maximum(np.abs(mean) - error, np.abs(mean).min() / 10)
        axes[0].fill_between(t, low, np.abs(mean) + error, color=line.get_color(), alpha=0.3, lw=0)
    spread = np.linalg.norm(report.gradient_stderr, axis=0)
    growth = spread[-1] * np.exp(report.lyapunov * (report.times - report.times[-1]))
    axes[0].plot(t, growth, "k:", label="∝ exp(λt), λ: Lyapunov exponent")
    axes[0].set(xlabel="horizon [ps]", ylabel="|θ ∂A/∂θ|", yscale="log")
    axes[1].plot(t, 100 * report.relative_error, label="standard error of the gradient")
    axes[1].plot(t, 100 * report.effective, label="effective fraction of replicas")
    axes[1].axhline(100 * report.tolerance, color="k", lw=0.5, label="tolerated error")
    if np.isfinite(report.horizon):
        axes[1].axvline(report.horizon / units.PS, color="C1", ls="--", label="recommended horizon")
    axes[1].set(xlabel="horizon [ps]", ylabel="%", yscale="log")
    for axis in axes[:2]:
        axis.legend(fontsize="small", framealpha=0.7, edgecolor="none")
    _plot_costs(axes[2], report)
    return finish(figure, path)


def _plot_costs(axis: Any, report: GradientReport) -> None:
    """Time against memory of the gradient methods that can be used."""
    from matplotlib.ticker import LogLocator, NullFormatter

    usable = [cost for cost in report.costs if not cost.refusal]
    axis.scatter([c.peak_bytes / 1e6 for c in usable], [c.over_forward for c in usable])
    for cost in usable:
        place = (cost.peak_bytes / 1e6, cost.over_forward)
        axis.annotate(cost.method, place, xytext=(4, 4), textcoords="offset points", fontsize="small")
    axis.set(xlabel="peak memory [MB]", ylabel="time / time of the rollout", xscale="log")
    axis.margins(x=0.4)
    axis.set_ylim(0, 1.2 * max(cost.over_forward for cost in usable))
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def plot_correlations(diffusivity: Diffusivity, *, title: str = "", path: str | Path | None = None) -> Figure:
    """Plot MSD and velocity autocorrelation with bands of two standard errors, and the fitted window.

    Args:
        diffusivity: from `difmd.observables.diffusivity` or a fit.
        title: text in front of the value of D.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with two panels.
    """
    figure, axes = new_figure(1, 2, size=(8, 3.4))
    t = diffusivity.times / units.PS
    einstein, green_kubo, scale = diffusivity.einstein, diffusivity.green_kubo, units.PS**2
    vacf, vacf_stderr = diffusivity.vacf * scale, diffusivity.vacf_stderr * scale
    for axis, curve, stderr, label, route, estimate in (
        (axes[0], diffusivity.msd, diffusivity.msd_stderr, "MSD [Å²]", "Einstein", einstein),
        (axes[1], vacf, vacf_stderr, "VACF [Å²/ps²]", "Green–Kubo", green_kubo),
    ):
        axis.fill_between(t, curve - 2 * stderr, curve + 2 * stderr, alpha=0.3, lw=0)
        axis.plot(t, curve)
        axis.axvspan(*(edge / units.PS for edge in diffusivity.window), color="C1", alpha=0.2, lw=0)
        axis.set(xlabel="time [ps]", ylabel=label)
        value, error = estimate.value / units.D, estimate.stderr / units.D
        axis.set_title(f"{title} {route}, D = {value:.3f} ± {error:.3f} · 10⁻⁹ m²/s".strip(), fontsize=9)
    slope = 6 * float(einstein.value)
    inside = (diffusivity.times >= diffusivity.window[0]) & (diffusivity.times <= diffusivity.window[1])
    offset = np.mean(diffusivity.msd[inside] - slope * diffusivity.times[inside])
    axes[0].plot(t, offset + slope * diffusivity.times, "k--", lw=0.8)
    axes[1].axhline(0, color="k", lw=0.5)
    return finish(figure, path)
