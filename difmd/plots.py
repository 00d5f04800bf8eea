"""Plots of what difmd computes; matplotlib is imported when one is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from difmd import units
from difmd.observables import Diffusivity

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
    figure, axes = _figure(1, 1, size=(5.5, 4.2))
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
    _save(figure, path)


def plot_fit(path: str | Path, history: Sequence[dict[str, Any]]) -> None:
    """Loss and parameters against iteration, from `FitResult.history`."""
    names = list(history[0]["params"]) if history else []
    figure, axes = _figure(1, 1 + len(names), size=(3.4 * (1 + len(names)), 3.2))
    iterations = np.arange(1, len(history) + 1)
    axes[0].semilogy(iterations, [entry["loss"] for entry in history], "o-")
    axes[0].set(xlabel="iteration", ylabel="loss")
    for axis, name in zip(axes[1:], names, strict=True):
        series = np.asarray([entry["params"][name] for entry in history])
        axis.plot(iterations, series.reshape(len(history), -1), "o-")
        axis.set(xlabel="iteration", ylabel=name)
    _save(figure, path)


def plot_correlations(path: str | Path, found: Diffusivity, *, title: str = "") -> None:
    """MSD and VACF with error bands, and the window of the fit."""
    figure, axes = _figure(1, 2, size=(8, 3.4))
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
    _save(figure, path)


def _figure(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    # Not through pyplot, which would choose a window system and keep the figure alive.
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).ravel())


def _save(figure: Any, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
