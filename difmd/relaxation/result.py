"""`Relaxation`, the result of `relax`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from difmd._internal.summaries import summary
from difmd.errors import InputError, Status
from difmd.system import System, to_ase

if TYPE_CHECKING:
    import ase


class Relaxation(NamedTuple):
    """Relaxed structures and the frames of their relaxation; those of a batch have leading `structures`.

    Frames include the initial and the final structure. Converged structures of a batch do not change while
    others continue.

    Attributes:
        system: relaxed.
        energy: U [eV]; [*structures].
        largest_force: on atoms that move and, where the cell is free, on strain coordinates [eV/Å];
            [*structures].
        n_steps: number of steps; [*structures].
        status: sticky flags.
        pressure: P [eV/Å³]; [*structures].
        force_tolerance: largest force of a converged structure [eV/Å].
        steps: of the frames; [frames].
        positions: [Å]; [frames, *structures, atoms, 3].
        cells: rows are lattice vectors [Å]; [frames, *structures, 3, 3].
        energies: U [eV]; [frames, *structures].
        largest_forces: [eV/Å]; [frames, *structures].
    """

    system: System
    energy: np.ndarray | np.floating
    largest_force: np.ndarray | np.floating
    n_steps: np.ndarray | np.integer
    status: Status
    pressure: np.ndarray | np.floating
    force_tolerance: float
    steps: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    energies: np.ndarray
    largest_forces: np.ndarray

    def __repr__(self) -> str:
        """A line for one structure, two for a batch."""
        n_atoms, converged = self.system.n_atoms, np.asarray(self.is_converged)
        force = float(np.max(self.largest_force))
        if converged.ndim:
            title = f"Relaxation of {converged.size} structures of up to {n_atoms} atoms"
            text = f"{int(converged.sum())} of {converged.size}, forces up to {force:.1e} eV/Å"
            return summary(title, {"converged": text})
        state = "converged" if converged else "not converged"
        return (
            f"Relaxation({n_atoms} atoms, {state} after {int(self.n_steps)} steps, "
            f"energy {float(self.energy):.6f} eV, forces up to {force:.1e} eV/Å)"
        )

    @property
    def is_converged(self) -> np.ndarray | np.bool:
        """Whether forces are below the tolerance and no flag is set; bool [*structures]."""
        return np.asarray(self.status.flags) == 0

    @property
    def enthalpies(self) -> np.ndarray:
        """U + P V [eV]; [frames, *structures]."""
        volumes = np.abs(np.linalg.det(self.cells.astype(np.float64)))
        return self.energies + self.pressure * volumes

    def to_ase(self) -> list[ase.Atoms]:
        """The frames of one structure with their energies, as for `ase.io.write("relaxation.extxyz", …)`.

        They are without padding; step and largest force are in `info`.

        Raises:
            InputError: a batch.
        """
        from ase.calculators.singlepoint import SinglePointCalculator

        if self.positions.ndim > 3:
            raise InputError("these are the frames of a batch: select structure k with `at(k)`")
        frames = []
        for k, step in enumerate(self.steps):
            atoms = to_ase(self.system.replace(positions=self.positions[k], cell=self.cells[k]))
            atoms.info.update(step=int(step), largest_force=float(self.largest_forces[k]))
            atoms.calc = SinglePointCalculator(atoms, energy=float(self.energies[k]))
            frames.append(atoms)
        return frames

    def at(self, k: int) -> Relaxation:
        """The relaxation of structure `k` of a batch, counted from 0.

        Raises:
            InputError: not a batch.
        """
        if self.positions.ndim == 3:
            raise InputError("this is a single structure, not a batch")
        ends = {"energy", "largest_force", "n_steps", "pressure"}
        frames = {"positions", "cells", "energies", "largest_forces"}
        changes = {name: getattr(self, name)[k] for name in ends}
        changes |= {name: getattr(self, name)[:, k] for name in frames}
        system, status = jax.tree.map(lambda x: x[k], (self.system, self.status))
        return self._replace(system=system, status=status, **changes)
