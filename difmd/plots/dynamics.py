"""Plots of trajectories and relaxations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from difmd.errors import InputError
from difmd.plots.figure import COLORED, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from difmd.relaxation import Relaxation
    from difmd.trajectory import Trajectory


def plot_energy(run: Trajectory, *, path: str | Path | None = None) -> Figure:
    """Plot the change of total and potential energy per atom since the first frame against time.

    Args:
        run: from `difmd.simulate`; each replica is a line.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with two panels.

    Raises:
        InputError: `run` has fewer than two frames.
    """
    if len(run) < 2:
        raise InputError("plot_energy needs at least two frames: simulate with a smaller save_every")
    n_atoms = np.sum(np.asarray(run.system.atomic_numbers) > 0, axis=-1)
    figure, axes = new_figure(1, 2, size=(8.5, 3.4))
    energies = {"total": run.total_energy, "potential": run.potential_energy.astype(np.float64)}
    for axis, (name, energy) in zip(axes, energies.items(), strict=True):
        change = 1e3 * (energy - energy[0]) / n_atoms
        axis.plot(run.time, change.reshape(len(change), -1), lw=0.7)
        axis.set(xlabel="time [ps]", ylabel=f"change of {name} energy [meV/atom]")
    return finish(figure, path)


def plot_relaxation(
    relaxation: Relaxation | Sequence[Relaxation], *, path: str | Path | None = None
) -> Figure:
    """Plot the energy above the final energy, and the largest force, against the step.

    With a free cell under pressure, the enthalpy replaces the energy. Differences below its rounding error
    are omitted.

    Args:
        relaxation: from `difmd.relax`: one structure, a batch, or a list.
        path: image file to write; its folder is created.

    Returns:
        A Matplotlib figure with two panels.
    """
    structures = _structures(relaxation)
    figure, axes = new_figure(1, 2, size=(8, 3.2))
    for k, structure in enumerate(structures):
        label = f"structure {k}" if 1 < len(structures) <= COLORED else None
        # Converged structures of a batch wait for the others.
        steps = structure.steps <= structure.n_steps
        above = structure.enthalpies - structure.enthalpies[-1]
        rounding = np.finfo(structure.positions.dtype).eps * np.abs(structure.enthalpies[-1])
        shown = steps & (above > rounding)
        style = {"marker": ".", "ms": 4, "lw": 0.8, "alpha": 1.0 if len(structures) <= COLORED else 0.4}
        axes[0].plot(structure.steps[shown], above[shown], label=label, **style)
        axes[1].plot(structure.steps[steps], structure.largest_forces[steps], label=label, **style)
    axes[1].axhline(structures[0].force_tolerance, color="k", ls="--", lw=0.8, label="force tolerance")
    name = "enthalpy" if any(structure.pressure for structure in structures) else "energy"
    axes[0].set(xlabel="step", ylabel=f"{name} − final {name} [eV]", yscale="log")
    axes[1].set(xlabel="step", ylabel="largest force [eV/Å]", yscale="log")
    axes[1].legend(frameon=False, fontsize=7)
    return finish(figure, path)


def _structures(relaxation: Relaxation | Sequence[Relaxation]) -> list[Relaxation]:
    """The structures as separate objects."""
    from difmd.relaxation import Relaxation

    if not isinstance(relaxation, Relaxation):
        return list(relaxation)
    if relaxation.positions.ndim == 3:
        return [relaxation]
    return [relaxation.at(k) for k in range(relaxation.positions.shape[1])]
