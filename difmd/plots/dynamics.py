"""Energies of a run, and relaxations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from difmd import units
from difmd.plots.figure import COLORED, new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from difmd.relaxation import Relaxation
    from difmd.trajectory.trajectory import Trajectory


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
    figure, axes = new_figure(1, 2, size=(8.5, 3.4))
    for axis, energy, name in (
        (axes[0], run.total_energy, "total"),
        (axes[1], run.potential_energy.astype(np.float64), "potential"),
    ):
        moved = 1e3 * (energy - energy[0]) / n_atoms
        axis.plot(run.times / units.PS, moved.reshape(len(moved), -1), lw=0.7)
        axis.set(xlabel="t [ps]", ylabel=f"{name} energy, change [meV/atom]")
    save(figure, path)
    return figure


def plot_relaxation(path: str | Path, found: Relaxation | Sequence[Relaxation]) -> Figure:
    """How far the energy is above that of the end, and the largest force, against the step.

    Where the cell was free under a pressure, it is the enthalpy. Differences below its rounding are left out.

    Args:
        path: file to write.
        found: of `difmd.relax`; one structure, a batch or a list of them.

    Returns:
        The figure, which a notebook shows.
    """
    from difmd.relaxation import Relaxation

    if not isinstance(found, Relaxation):
        ones = list(found)
    elif found.positions.ndim == 3:
        ones = [found]
    else:
        ones = [found.at(k) for k in range(found.positions.shape[1])]
    figure, axes = new_figure(1, 2, size=(8, 3.2))
    for k, one in enumerate(ones):
        label = f"structure {k}" if 1 < len(ones) <= COLORED else None
        # A structure of a batch that is at rest waits for the others.
        steps = one.steps <= one.n_steps
        above = one.enthalpies - one.enthalpies[-1]
        rounding = np.finfo(one.positions.dtype).eps * np.abs(one.enthalpies[-1])
        shown = steps & (above > rounding)
        style = {"marker": ".", "ms": 4, "lw": 0.8, "alpha": 1.0 if len(ones) <= COLORED else 0.4}
        axes[0].plot(one.steps[shown], above[shown], label=label, **style)
        axes[1].plot(one.steps[steps], one.largest_forces[steps], label=label, **style)
    axes[1].axhline(ones[0].force_tolerance, color="k", ls="--", lw=0.8)
    name = "enthalpy" if any(one.pressure for one in ones) else "energy"
    axes[0].set(xlabel="step", ylabel=f"{name} above that of the end [eV]", yscale="log")
    axes[1].set(xlabel="step", ylabel="largest force [eV/Å]", yscale="log")
    if 1 < len(ones) <= COLORED:
        axes[1].legend(frameon=False, fontsize=7)
    save(figure, path)
    return figure
