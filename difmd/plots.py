"""Plots of what difmd computes; matplotlib is imported when one is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd import units
from difmd.observables import Diffusivity

if TYPE_CHECKING:
    from difmd.data import Frame

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


def plot_data(path: str | Path, frames: Sequence[Frame]) -> None:
    """What a data set covers: energies by kind, forces, nearest distances, and volumes, as histograms.

    Args:
        path: file to write.
        frames: as `difmd.data.read` gives them; energies are shown over the reference energies that
            `difmd.data.reference_energies` finds.
    """
    from difmd.data import excess_energies, is_isolated_atom, reference_energies
    from difmd.data.geometry import find_pairs_once

    together = [frame for frame in frames if not is_isolated_atom(frame)]
    figure, axes = _figure(2, 2, size=(8.5, 6.4))
    labelled = any(frame.energy is not None for frame in together)
    energies = (
        excess_energies(together, reference_energies(frames)) if labelled else np.full(len(together), np.nan)
    )
    by_kind: dict[str, list[float]] = {}
    for frame, energy in zip(together, energies, strict=True):
        if np.isfinite(energy):
            by_kind.setdefault(frame.kind or "all", []).append(float(energy))
    # The most frequent kinds have a colour of their own.
    kinds = sorted(by_kind, key=lambda kind: -len(by_kind[kind]))
    shown = [(kind, by_kind[kind]) for kind in kinds[:8]]
    if kinds[8:]:
        shown.append(("others", [energy for kind in kinds[8:] for energy in by_kind[kind]]))
    forces = [frame.forces.ravel() for frame in together if frame.forces is not None]
    nearest, volumes = [], []
    # Distances are needed of some hundred thousand atoms at most.
    step = max(1, sum(frame.n_atoms for frame in together) // 200_000)
    for frame in together[::step]:
        pairs = find_pairs_once(frame, 6.0)
        closest = np.full(frame.n_atoms, np.inf)
        np.minimum.at(closest, pairs.i, pairs.distances)
        np.minimum.at(closest, pairs.j, pairs.distances)
        nearest.append(closest[np.isfinite(closest)])
    volumes = [frame.volume / frame.n_atoms for frame in together if frame.volume is not None]
    _histogram(
        axes[0], [values for _, values in shown], "energy − references [eV/atom]", [k for k, _ in shown]
    )
    _histogram(axes[1], forces and [np.concatenate(forces)], "force components [eV/Å]")
    _histogram(axes[2], nearest and [np.concatenate(nearest)], "nearest neighbour of an atom [Å]")
    _histogram(axes[3], volumes and [volumes], "volume per atom [Å³]")
    axes[1].set_yscale("log" if forces else "linear")
    _save(figure, path)


def _histogram(axis: Any, series: Sequence[Any], label: str, names: Sequence[str] = ()) -> None:
    """Stacked histograms; an axis without data says so."""
    axis.set(xlabel=label, ylabel="count")
    finite = [values for entry in series if len(values := np.asarray(entry)[np.isfinite(entry)])]
    if not finite:
        axis.text(0.5, 0.5, "none in the data", ha="center", va="center", transform=axis.transAxes)
        return
    axis.hist(finite, bins=60, stacked=True, label=list(names) or None)
    if len(names) > 1:
        axis.legend(frameon=False, fontsize=7)


def _figure(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    # Not through pyplot, which would choose a window system and keep the figure alive.
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).ravel())


def _save(figure: Any, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
