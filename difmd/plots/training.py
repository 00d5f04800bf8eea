"""Data, how a training went, and predictions against labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd.plots.figure import COLORED, few_ticks, histogram, new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from difmd.data import Frame
    from difmd.training import CommitteeResult, Residuals, TrainingResult


# Points of a panel beyond which their density is shown.
_MANY_POINTS = 5000


def plot_data(path: str | Path, frames: Sequence[Frame]) -> None:
    """What a data set covers: energies by kind, forces, nearest distances, and volumes, as histograms.

    Args:
        path: file to write.
        frames: as `difmd.data.read` gives them; energies are shown over the reference energies that
            `difmd.data.reference_energies` finds.
    """
    from difmd.data import excess_energies, is_isolated_atom, reference_energies
    from difmd.data.examination.geometry import find_pairs_once

    together = [frame for frame in frames if not is_isolated_atom(frame)]
    figure, axes = new_figure(2, 2, size=(8.5, 6.4))
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
    histogram(
        axes[0], [values for _, values in shown], "energy − references [eV/atom]", [k for k, _ in shown]
    )
    histogram(axes[1], forces and [np.concatenate(forces)], "force components [eV/Å]")
    histogram(axes[2], nearest and [np.concatenate(nearest)], "nearest neighbour of an atom [Å]")
    histogram(axes[3], volumes and [volumes], "volume per atom [Å³]")
    axes[1].set_yscale("log" if forces else "linear")
    save(figure, path)


def plot_training(path: str | Path, result: TrainingResult | CommitteeResult) -> Figure:
    """Learning curves of a training or of all members of a committee, with learning rate and weights.

    Args:
        path: file to write.
        result: with at least one validation.

    Returns:
        The figure, which a notebook shows.

    Raises:
        InputError: no validation.
    """
    from difmd.errors import InputError
    from difmd.training import CommitteeResult

    is_committee = isinstance(result, CommitteeResult)
    histories = result.histories if isinstance(result, CommitteeResult) else [result.history]
    bests = result.best_epochs if isinstance(result, CommitteeResult) else (result.best_epoch,)
    if not histories[0]:
        raise InputError("there is nothing to plot: the training ended before its first validation")
    figure, axes = new_figure(1, 3, size=(11.5, 3.4))
    figure.get_layout_engine().set(wspace=0.05)
    epochs = [entry["epoch"] + 1 for entry in histories[0]]
    style: dict[str, Any] = {"lw": 0.9, "alpha": 0.7} if is_committee else {"lw": 1.4}
    style["marker"] = "." if len(epochs) <= 30 else None
    for k, (history, best) in enumerate(zip(histories, bests, strict=True)):
        series = {name: np.array([entry[name] for entry in history], float) for name in _CURVES}
        named = k == 0
        axes[0].plot(epochs, series["train_loss"], color="C0", label="training" if named else None, **style)
        axes[0].plot(epochs, series["valid_loss"], color="C1", label="validation" if named else None, **style)
        for name, color, label in (
            ("energy_rmse", "C2", "energy [meV/atom]"),
            ("forces_rmse", "C3", "forces [meV/Å]"),
        ):
            axes[1].plot(epochs, 1e3 * series[name], color=color, label=label if named else None, **style)
        axes[2].plot(
            epochs, series["learning_rate"], color="k", label="learning rate" if named else None, **style
        )
        if best >= 0:
            for axis in axes[:2]:
                axis.axvline(best + 1, color="0.7", lw=0.8, ls=":", label="best" if named else None)
    axes[0].set(xlabel="epoch", ylabel="loss", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="RMSE of the validation frames", yscale="log")
    axes[2].set(xlabel="epoch", ylabel="learning rate", yscale="log")
    weights = axes[2].twinx()
    names = [name for name in histories[0][0]["weights"] if any(e["weights"][name] > 0 for e in histories[0])]
    for name in names:
        values = [entry["weights"][name] for entry in histories[0]]
        weights.plot(epochs, values, "--", color=_WEIGHTS.get(name), lw=1.2, label=f"weight of {name}")
    weights.set(ylabel="weight in the loss", yscale="log")
    for axis in axes[:2]:
        if max(epochs) > 30:
            axis.set_xscale("log")
    for axis in (*axes, weights):
        few_ticks(axis)
    for axis in axes[:2]:
        axis.legend(fontsize=8, framealpha=0.7, edgecolor="none")
    lines = [line for axis in (axes[2], weights) for line in axis.get_lines() if line.get_label()[0] != "_"]
    weights.legend(handles=lines, fontsize=7, loc="center left", framealpha=0.7, edgecolor="none")
    save(figure, path)
    return figure


_CURVES = ("train_loss", "valid_loss", "energy_rmse", "forces_rmse", "learning_rate")
_WEIGHTS = {"energy": "C2", "forces": "C3", "stress": "C4"}


def plot_parity(path: str | Path, found: Residuals, *, frames: Sequence[Frame] = ()) -> Figure:
    """Energies per atom and force components, predicted against labels, with their errors.

    Args:
        path: file to write.
        found: of `difmd.training.residuals`, or one of `Report.residuals`.
        frames: the same frames, of which the kinds give colours; without several kinds, forces have the
            colours of elements. Panels of many points show their density.

    Returns:
        The figure, which a notebook shows.

    Raises:
        InputError: another number of frames.
    """
    from ase.data import chemical_symbols

    from difmd.errors import InputError

    if frames and len(frames) != len(found.frame):
        raise InputError(f"{len(found.frame)} frames were evaluated, but {len(frames)} are given: give those")
    kinds = np.array([frame.kind or "no kind" for frame in frames] or ["all"] * len(found.frame))
    of_atoms = kinds[np.searchsorted(found.frame, found.atom_frame)]
    if len(set(kinds)) == 1 and len(set(found.element)) > 1:
        of_atoms = np.array([chemical_symbols[z] for z in found.element])
    errors = found.errors()
    figure, axes = new_figure(1, 2, size=(9, 4.4))
    _parity(
        figure,
        axes[0],
        found.energy_label / found.n_atoms,
        found.energy / found.n_atoms,
        kinds,
        "energy − references [eV/atom]",
        f"energy: RMSE {1e3 * errors.energy_rmse:.3g}, MAE {1e3 * errors.energy_mae:.3g} meV/atom",
    )
    _parity(
        figure,
        axes[1],
        found.forces_label.ravel(),
        found.forces.ravel(),
        np.repeat(of_atoms, 3),
        "force component [eV/Å]",
        f"forces: RMSE {1e3 * errors.forces_rmse:.3g}, MAE {1e3 * errors.forces_mae:.3g} meV/Å",
    )
    save(figure, path)
    return figure


def _parity(
    figure: Any, axis: Any, label: np.ndarray, value: np.ndarray, group: np.ndarray, name: str, title: str
) -> None:
    """Predicted against labels; an axis without labels says so."""
    is_known = np.isfinite(label) & np.isfinite(value)
    axis.set(xlabel=f"label: {name}", ylabel=f"predicted: {name}")
    if not is_known.any():
        axis.text(0.5, 0.5, "none in the data", ha="center", va="center", transform=axis.transAxes)
        return
    axis.set_title(title, fontsize=9)
    label, value, group = label[is_known], value[is_known], group[is_known]
    low, high = min(label.min(), value.min()), max(label.max(), value.max())
    margin = 0.04 * (high - low) or 0.5
    low, high = low - margin, high + margin
    axis.axline((low, low), (high, high), color="k", lw=0.7, zorder=0)
    if len(label) > _MANY_POINTS:
        shown = axis.hexbin(
            label, value, gridsize=120, extent=(low, high, low, high), bins="log", mincnt=1, lw=0.1
        )
        figure.colorbar(shown, ax=axis, label="points", shrink=0.8)
    else:
        names, counts = np.unique(group, return_counts=True)
        names = names[np.argsort(-counts, kind="stable")]
        size = 14 if len(label) < 500 else 5
        for k, own in enumerate(names[:COLORED]):
            chosen = group == own
            axis.scatter(label[chosen], value[chosen], s=size, alpha=0.6, lw=0, color=f"C{k}", label=own)
        if len(names) > COLORED:
            chosen = np.isin(group, names[COLORED:])
            axis.scatter(label[chosen], value[chosen], s=size, alpha=0.6, lw=0, color="0.5", label="others")
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=7, markerscale=1.5)
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
