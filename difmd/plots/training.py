"""Plots of data sets, learning curves and parity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd.errors import InputError
from difmd.plots.figure import COLORED, few_ticks, finish, histogram, new_figure, note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from difmd.data import Frame
    from difmd.training import CommitteeResult, Residuals, TrainingResult


# A panel with more points shows their density.
_MANY_POINTS = 5000


def plot_data(frames: Sequence[Frame], *, path: str | Path | None = None) -> Figure:
    """Plot histograms of energies by kind, force components, nearest-neighbour distances and volumes.

    Args:
        frames: from `difmd.data.read`; energies are shown relative to `difmd.data.reference_energies`.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with four panels.
    """
    from difmd.data import is_isolated_atom

    bound = [frame for frame in frames if not is_isolated_atom(frame)]
    figure, axes = new_figure(2, 2, size=(8.5, 6.4))
    by_kind = _energies_by_kind(bound, frames)
    histogram(axes[0], list(by_kind.values()), "energy − reference energies [eV/atom]", list(by_kind))
    forces = [frame.forces.ravel() for frame in bound if frame.forces is not None]
    histogram(axes[1], forces and [np.concatenate(forces)], "force component [eV/Å]")
    axes[1].set_yscale("log" if forces else "linear")
    # Some hundred thousand distances are enough.
    step = max(1, sum(frame.n_atoms for frame in bound) // 200_000)
    nearest = [_nearest_distances(frame) for frame in bound[::step]]
    histogram(axes[2], nearest and [np.concatenate(nearest)], "distance to the nearest neighbour [Å]")
    volumes = [frame.volume / frame.n_atoms for frame in bound if frame.volume is not None]
    histogram(axes[3], volumes and [volumes], "volume per atom [Å³]")
    return finish(figure, path)


def _energies_by_kind(bound: Sequence[Frame], frames: Sequence[Frame]) -> dict[str, list[float]]:
    """Energies [eV/atom] of the most frequent kinds, the others together."""
    from difmd.data import excess_energies, reference_energies

    if all(frame.energy is None for frame in bound):
        return {}
    energies = excess_energies(bound, reference_energies(frames))
    by_kind: dict[str, list[float]] = {}
    for frame, energy in zip(bound, energies, strict=True):
        if np.isfinite(energy):
            by_kind.setdefault(frame.kind or "all", []).append(float(energy))
    kinds = sorted(by_kind, key=lambda kind: -len(by_kind[kind]))
    shown = {kind: by_kind[kind] for kind in kinds[:COLORED]}
    if kinds[COLORED:]:
        shown["others"] = [energy for kind in kinds[COLORED:] for energy in by_kind[kind]]
    return shown


def _nearest_distances(frame: Frame) -> np.ndarray:
    """Distance of each atom to its nearest neighbour within 6 Å [Å]."""
    from difmd.data.examination.geometry import find_pairs_once

    pairs = find_pairs_once(frame, 6.0)
    closest = np.full(frame.n_atoms, np.inf)
    np.minimum.at(closest, pairs.i, pairs.distances)
    np.minimum.at(closest, pairs.j, pairs.distances)
    return closest[np.isfinite(closest)]


_CURVES = ("train_loss", "valid_loss", "energy_rmse", "forces_rmse", "learning_rate")
_WEIGHTS = {"energy": "C2", "forces": "C3", "stress": "C4"}


def plot_training(result: TrainingResult | CommitteeResult, *, path: str | Path | None = None) -> Figure:
    """Plot loss, validation errors, learning rate and loss weights against the epoch.

    Args:
        result: from `difmd.training.train` or `train_committee`, with at least one validation.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with three panels; each member of a committee is a line.

    Raises:
        InputError: `result` has no validation.
    """
    from difmd.training import CommitteeResult

    style: dict[str, Any] = {"lw": 1.4}
    if isinstance(result, CommitteeResult):
        histories, bests, style = result.histories, result.best_epochs, {"lw": 0.9, "alpha": 0.7}
    else:
        histories, bests = [result.history], (result.best_epoch,)
    if not histories[0]:
        raise InputError("there is nothing to plot: training ended before its first validation")
    figure, axes = new_figure(1, 3, size=(11.5, 3.4))
    epochs = [entry["epoch"] + 1 for entry in histories[0]]
    style["marker"] = "." if len(epochs) <= 30 else None
    for k, (history, best) in enumerate(zip(histories, bests, strict=True)):
        _plot_curves(axes, epochs, history, best, is_labelled=k == 0, style=style)
    for axis, label in zip(axes, ("loss", "validation RMSE", "learning rate"), strict=True):
        axis.set(xlabel="epoch", ylabel=label, yscale="log")
    weights = axes[2].twinx()
    for name, entry in histories[0][0]["weights"].items():
        values = [entry["weights"][name] for entry in histories[0]]
        if max(values) > 0:
            weights.plot(epochs, values, "--", color=_WEIGHTS.get(name), lw=1.2, label=f"weight of {name}")
    weights.set(ylabel="weight in the loss", yscale="log")
    for axis in axes[:2]:
        if max(epochs) > 30:
            axis.set_xscale("log")
        axis.legend(fontsize=8, framealpha=0.7, edgecolor="none")
    for axis in (*axes, weights):
        few_ticks(axis)
    lines = [line for axis in (axes[2], weights) for line in axis.get_lines() if line.get_label()[0] != "_"]
    weights.legend(handles=lines, fontsize=7, loc="center left", framealpha=0.7, edgecolor="none")
    return finish(figure, path)


def _plot_curves(
    axes: Sequence[Any],
    epochs: Sequence[int],
    history: Sequence[dict[str, Any]],
    best: int,
    *,
    is_labelled: bool,
    style: dict[str, Any],
) -> None:
    """The curves of one training."""
    series = {name: np.array([entry[name] for entry in history], float) for name in _CURVES}
    for axis, values, color, label in (
        (axes[0], series["train_loss"], "C0", "training"),
        (axes[0], series["valid_loss"], "C1", "validation"),
        (axes[1], 1e3 * series["energy_rmse"], "C2", "energy [meV/atom]"),
        (axes[1], 1e3 * series["forces_rmse"], "C3", "forces [meV/Å]"),
        (axes[2], series["learning_rate"], "k", "learning rate"),
    ):
        axis.plot(epochs, values, color=color, label=label if is_labelled else None, **style)
    if best >= 0:
        for axis in axes[:2]:
            axis.axvline(best + 1, color="0.7", lw=0.8, ls=":", label="best epoch" if is_labelled else None)


def plot_parity(
    residuals: Residuals, *, frames: Sequence[Frame] = (), path: str | Path | None = None
) -> Figure:
    """Plot predicted energies per atom and force components against their labels.

    Args:
        residuals: from `difmd.training.residuals`, or an entry of `Report.residuals`.
        frames: the frames that were evaluated, coloured by kind; if there is only one kind, forces are
            coloured by element. Panels with many points show their density.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with two panels.

    Raises:
        InputError: the number of frames differs from that of the residuals.
    """
    from ase.data import chemical_symbols

    if frames and len(frames) != len(residuals.frame):
        raise InputError(
            f"{len(residuals.frame)} frames were evaluated, but {len(frames)} are given: pass the same frames"
        )
    kinds = np.array([frame.kind or "no kind" for frame in frames] or ["all"] * len(residuals.frame))
    groups = kinds[np.searchsorted(residuals.frame, residuals.atom_frame)]
    if len(set(kinds)) == 1 and len(set(residuals.element)) > 1:
        groups = np.array([chemical_symbols[z] for z in residuals.element])
    errors = residuals.errors()
    energies, labels = residuals.energy / residuals.n_atoms, residuals.energy_label / residuals.n_atoms
    figure, (left, right) = new_figure(1, 2, size=(9, 4.4))
    _plot_panel(left, labels, energies, kinds, "energy − reference energies [eV/atom]")
    forces, labels = residuals.forces.ravel(), residuals.forces_label.ravel()
    _plot_panel(right, labels, forces, np.repeat(groups, 3), "force component [eV/Å]")
    for axis, name, rmse, mae, unit in (
        (left, "energy", errors.energy_rmse, errors.energy_mae, "meV/atom"),
        (right, "forces", errors.forces_rmse, errors.forces_mae, "meV/Å"),
    ):
        axis.set_title(f"{name}: RMSE {1e3 * rmse:.3g}, MAE {1e3 * mae:.3g} {unit}", fontsize=9)
    return finish(figure, path)


def _plot_panel(axis: Any, label: np.ndarray, value: np.ndarray, group: np.ndarray, quantity: str) -> None:
    """Predictions against labels, or a note that there are none."""
    is_finite = np.isfinite(label) & np.isfinite(value)
    axis.set(xlabel=f"label: {quantity}", ylabel=f"prediction: {quantity}")
    if not is_finite.any():
        note(axis, "none in the data")
        return
    label, value, group = label[is_finite], value[is_finite], group[is_finite]
    low, high = min(label.min(), value.min()), max(label.max(), value.max())
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin
    axis.axline((low, low), (high, high), color="k", lw=0.7, zorder=0)
    if len(label) > _MANY_POINTS:
        shown = axis.hexbin(
            label, value, gridsize=120, extent=(low, high, low, high), bins="log", mincnt=1, lw=0.1
        )
        axis.figure.colorbar(shown, ax=axis, label="points", shrink=0.8)
    else:
        names, counts = np.unique(group, return_counts=True)
        names = names[np.argsort(-counts, kind="stable")]
        style = {"s": 14 if len(label) < 500 else 5, "alpha": 0.6, "lw": 0}
        sets = [(group == name, name, f"C{k}") for k, name in enumerate(names[:COLORED])]
        if len(names) > COLORED:
            sets.append((np.isin(group, names[COLORED:]), "others", "0.5"))
        for chosen, name, color in sets:
            axis.scatter(label[chosen], value[chosen], color=color, label=name, **style)
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=7, markerscale=1.5)
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
