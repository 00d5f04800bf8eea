"""`Relaxation`: what `relax` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from difmd.errors import InputError, Status
from difmd.system import System, to_ase

if TYPE_CHECKING:
    import ase


class Relaxation(NamedTuple):
    """Relaxed structures, and frames of the way there; for a batch with leading `structures`.

    Frames are every so many steps, the start and the end among them. A structure of a batch that stopped
    stays as it is until all have.

    Attributes:
        system: relaxed.
        energy: U [eV]; [*structures].
        largest_force: of all atoms that move, and of the cell where it is free, as `relax` says [eV/Å];
            [*structures].
        n_steps: taken; [*structures].
        status: sticky flags.
        pressure: P [eV/Å³]; [*structures].
        force_tolerance: largest force at which to stop [eV/Å].
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

    @property
    def is_converged(self) -> np.ndarray | np.bool:
        """Whether forces are below the tolerance, and nothing is wrong; bool [*structures]."""
        return np.asarray(self.status.flags) == 0

    @property
    def enthalpies(self) -> np.ndarray:
        """U + P V [eV]; [frames, *structures]."""
        volumes = np.abs(np.linalg.det(self.cells.astype(np.float64)))
        return self.energies + self.pressure * volumes

    def to_ase(self) -> list[ase.Atoms]:
        """The frames of one structure, with energies; `ase.io.write("way.extxyz", found.to_ase())`.

        Step and largest force are in `info`. Padding is left out.

        Raises:
            InputError: of a batch.
        """
        from ase.calculators.singlepoint import SinglePointCalculator

        if self.positions.ndim > 3:
            raise InputError("these are frames of a batch: `at(k)` takes structure k out")
        found = []
        for k, step in enumerate(self.steps):
            atoms = to_ase(self.system.replace(positions=self.positions[k], cell=self.cells[k]))
            atoms.info.update(step=int(step), largest_force=float(self.largest_forces[k]))
            atoms.calc = SinglePointCalculator(atoms, energy=float(self.energies[k]))
            found.append(atoms)
        return found

    def at(self, k: int) -> Relaxation:
        """Structure `k` of a batch by itself.

        Raises:
            InputError: this is no batch.
        """
        if self.positions.ndim == 3:
            raise InputError("this is one structure, and no batch")
        ends = {"energy", "largest_force", "n_steps", "pressure"}
        frames = {"positions", "cells", "energies", "largest_forces"}
        changes = {name: getattr(self, name)[k] for name in ends}
        changes |= {name: getattr(self, name)[:, k] for name in frames}
        system, status = jax.tree.map(lambda x: x[k], (self.system, self.status))
        return self._replace(system=system, status=status, **changes)
