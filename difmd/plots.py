"""Plots of what difmd computes; matplotlib is imported when one is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd import units
from difmd.observables import Diffusivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from difmd.data import Frame
    from difmd.gradients import GradientReport
    from difmd.relaxation import Relaxation
    from difmd.training import CommitteeResult, Residuals, TrainingResult
    from difmd.trajectory import Trajectory
    from difmd.validation import Certificate, CutoffScan, KineticEnergies, TimeSteps, Volumes

_D_UNIT = 1e-9 * units.M2_PER_S

# Kinds or elements with a colour of their own, and points of a panel beyond which their density is shown.
_COLORED, _MANY_POINTS = 8, 5000


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


def plot_gradient_report(path: str | Path, report: GradientReport) -> None:
    """Size of gradients, their error and n_eff against how far they go back, and time and memory of methods.

    Args:
        path: file to write.
        report: of `difmd.gradients.gradient_report`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = _figure(1, 3, size=(11, 3.4))
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
    figure, axes = _figure(1, 3, size=(11.5, 3.4))
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
        _few_ticks(axis)
    for axis in axes[:2]:
        axis.legend(fontsize=8, framealpha=0.7, edgecolor="none")
    lines = [line for axis in (axes[2], weights) for line in axis.get_lines() if line.get_label()[0] != "_"]
    weights.legend(handles=lines, fontsize=7, loc="center left", framealpha=0.7, edgecolor="none")
    _save(figure, path)
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
    figure, axes = _figure(1, 2, size=(9, 4.4))
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
    _save(figure, path)
    return figure


def plot_energy(path: str | Path, run: Trajectory) -> Figure:
    """Total energy per atom against time, less that of the first frame, beside the potential energy.

    Args:
        path: file to write.
        run: of `difmd.simulate`; of replicas each is a line.

    Returns:
        The figure, which a notebook shows.

    Raises:
        InputError: fewer than two frames.
    """
    from difmd.errors import InputError

    if len(run.times) < 2:
        raise InputError("a plot of energies takes two frames or more: simulate with a smaller save_every")
    n_atoms = np.sum(np.asarray(run.system.atomic_numbers) > 0, axis=-1)
    figure, axes = _figure(1, 2, size=(8.5, 3.4))
    for axis, energy, name in (
        (axes[0], run.total_energy, "total"),
        (axes[1], run.potential_energy.astype(np.float64), "potential"),
    ):
        moved = 1e3 * (energy - energy[0]) / n_atoms
        axis.plot(run.times / units.PS, moved.reshape(len(moved), -1), lw=0.7)
        axis.set(xlabel="t [ps]", ylabel=f"{name} energy, change [meV/atom]")
    _save(figure, path)
    return figure


def plot_relaxation(path: str | Path, found: Relaxation | Sequence[Relaxation]) -> None:
    """How far the energy is above that of the end, and the largest force, against the step.

    Where the cell was free under a pressure, it is the enthalpy. Differences below its rounding are left out.

    Args:
        path: file to write.
        found: of `difmd.relax`; one structure, a batch or a list of them.
    """
    from difmd.relaxation import Relaxation

    if not isinstance(found, Relaxation):
        ones = list(found)
    elif found.positions.ndim == 3:
        ones = [found]
    else:
        ones = [found.at(k) for k in range(found.positions.shape[1])]
    figure, axes = _figure(1, 2, size=(8, 3.2))
    for k, one in enumerate(ones):
        label = f"structure {k}" if 1 < len(ones) <= _COLORED else None
        # A structure of a batch that is at rest waits for the others.
        steps = one.steps <= one.n_steps
        above = one.enthalpies - one.enthalpies[-1]
        rounding = np.finfo(one.positions.dtype).eps * np.abs(one.enthalpies[-1])
        shown = steps & (above > rounding)
        style = {"marker": ".", "ms": 4, "lw": 0.8, "alpha": 1.0 if len(ones) <= _COLORED else 0.4}
        axes[0].plot(one.steps[shown], above[shown], label=label, **style)
        axes[1].plot(one.steps[steps], one.largest_forces[steps], label=label, **style)
    axes[1].axhline(ones[0].force_tolerance, color="k", ls="--", lw=0.8)
    name = "enthalpy" if any(one.pressure for one in ones) else "energy"
    axes[0].set(xlabel="step", ylabel=f"{name} above that of the end [eV]", yscale="log")
    axes[1].set(xlabel="step", ylabel="largest force [eV/Å]", yscale="log")
    if 1 < len(ones) <= _COLORED:
        axes[1].legend(frameon=False, fontsize=7)
    _save(figure, path)


def plot_certificate(path: str | Path, certificate: Certificate) -> Figure:
    """Energy fluctuation against the time step, kinetic energies, the cut-off, and volumes against pressure.

    Args:
        path: file to write.
        certificate: of `difmd.validate`; panels of what was not looked at say so.

    Returns:
        The figure, which a notebook shows.
    """
    figure, axes = _figure(2, 2, size=(9.5, 7))
    _plot_time_steps(axes[0], certificate.time_steps)
    _plot_kinetic(axes[1], certificate.kinetic)
    _plot_scans(axes[2], certificate.scans)
    _plot_volumes(axes[3], certificate.volumes)
    _save(figure, path)
    return figure


def _plot_time_steps(axis: Any, found: TimeSteps | None) -> None:
    axis.set(xlabel="dt [fs]", ylabel="fluctuation of total / kinetic energy")
    if found is None:
        _say_nothing(axis)
        return
    dt = found.dt / units.FS
    axis.errorbar(dt, found.fluctuation, found.stderr, fmt="o", capsize=3, label="velocity Verlet")
    axis.plot(dt, found.fluctuation[-1] * (dt / dt[-1]) ** 2, "k--", lw=0.8, label="∝ dt²")
    axis.axvline(found.largest_dt / units.FS, color="C1", ls=":", label="largest dt")
    axis.set(xscale="log", yscale="log")
    _few_ticks(axis)
    axis.legend(frameon=False, fontsize="small")


def _plot_kinetic(axis: Any, found: KineticEnergies | None) -> None:
    axis.set(xlabel="kinetic energy / (N_f kT/2)", ylabel="probability density")
    if found is None:
        _say_nothing(axis)
        return
    from scipy.stats import gamma

    half = found.n_free.sum() / 2
    samples = found.total.ravel() / half
    axis.hist(samples, bins=50, density=True, alpha=0.5, label="with a thermostat")
    x = np.linspace(samples.min(), samples.max(), 200)
    axis.plot(x, gamma(half, scale=1 / half).pdf(x), "k", lw=1, label="gamma distribution")
    axis.legend(frameon=False, fontsize="small")


def _plot_scans(axis: Any, scans: Sequence[CutoffScan]) -> None:
    axis.set(xlabel="distance of two atoms [Å]", ylabel="energy [meV], force [meV/Å]")
    if not scans:
        _say_nothing(axis)
        return
    heights = []
    for k, scan in enumerate(scans):
        name = "–".join(scan.pair)
        for values, style, label in (
            (scan.energies, "-", f"{name}, {scan.kind}"), (scan.forces, "--", f"force {name}"),
        ):  # fmt: skip
            axis.plot(scan.distances, 1e3 * values, style, color=f"C{k}", lw=1.2, label=label)
            # The last tenth is what this is about.
            late = scan.distances > 0.9 * scan.distances[-1]
            heights.append(1e3 * np.max(np.abs(values[late])))
    limit = 1.3 * max(heights) or 1.0
    axis.set(xlim=(0.88 * scans[0].distances[-1], scans[0].distances[-1]), ylim=(-limit, limit))
    axis.axhline(0, color="k", lw=0.5)
    axis.legend(frameon=False, fontsize="small")


def _plot_volumes(axis: Any, found: Volumes | None) -> None:
    axis.set(xlabel="pressure [bar]", ylabel="⟨V⟩ [Å³]")
    if found is None:
        _say_nothing(axis)
        return
    from difmd.validation.histograms import jackknife

    pressure = found.pressures / units.BAR
    means = [jackknife(np.mean, samples) for samples in found.samples]
    values = np.array([mean.value for mean in means])
    axis.errorbar(pressure, values, [mean.stderr for mean in means], fmt="o", capsize=3, label="⟨V⟩")
    slope = -jackknife(np.var, found.samples[1]).value / (units.KB * found.temperature) * units.BAR
    line = values[1] + slope * (pressure - pressure[1])
    axis.plot(pressure, line, "k--", lw=0.8, label="slope −⟨δV²⟩/kT")
    axis.legend(frameon=False, fontsize="small")


def _say_nothing(axis: Any) -> None:
    axis.text(0.5, 0.5, "not looked at", ha="center", va="center", transform=axis.transAxes)


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
        for k, own in enumerate(names[:_COLORED]):
            chosen = group == own
            axis.scatter(label[chosen], value[chosen], s=size, alpha=0.6, lw=0, color=f"C{k}", label=own)
        if len(names) > _COLORED:
            chosen = np.isin(group, names[_COLORED:])
            axis.scatter(label[chosen], value[chosen], s=size, alpha=0.6, lw=0, color="0.5", label="others")
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=7, markerscale=1.5)
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")


def _few_ticks(axis: Any) -> None:
    """Logarithmic axes that span a decade or two have readable ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for one, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        if one.get_scale() == "log" and high / low < 300:
            subs: tuple[float, ...] = (1, 2, 5) if high / low > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
            one.set_major_locator(LogLocator(subs=subs))
            one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            one.set_minor_formatter(NullFormatter())


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
