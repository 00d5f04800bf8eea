"""Frames of a simulation, in memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from difmd.integrators import MDState
from difmd.system import System
from difmd.units import KB


class Trajectory(NamedTuple):
    """What `simulate` committed; frames lead, then replicas if there are any.

    Attributes:
        system: the start; gives masses, species, cell and pbc.
        times: since the start [Å√(amu/eV)]; [frames].
        positions: unwrapped [Å]; [frames, *replicas, atoms, 3].
        momenta: [amu Å/time]; [frames, *replicas, atoms, 3].
        potential_energy: [eV]; [frames, *replicas].
        stress: from interactions alone, tension positive [eV/Å³]; [frames, *replicas, 3, 3].
        state: the last committed state, to go on from.
        n_replays: how often the neighbour list overflowed and was grown.
    """

    system: System
    times: np.ndarray
    positions: np.ndarray
    momenta: np.ndarray
    potential_energy: np.ndarray
    stress: np.ndarray
    state: MDState
    n_replays: int

    @property
    def kinetic_energy(self) -> np.ndarray:
        """Σ p²/2m [eV]; [frames, *replicas]."""
        masses = np.asarray(self.system.masses, np.float64)[..., None]
        return 0.5 * np.sum(self.momenta.astype(np.float64) ** 2 / masses, axis=(-1, -2))

    @property
    def temperature(self) -> np.ndarray:
        """2K/(3N − 3)k_B, the centre of mass being at rest [K]; [frames, *replicas]."""
        real = int(np.sum(np.asarray(self.system.atomic_numbers).reshape(-1, self._atoms)[0] > 0))
        return 2 * self.kinetic_energy / ((3 * real - 3) * KB)

    @property
    def pressure(self) -> np.ndarray:
        """(2K/3 − tr(stress) V/3)/V [eV/Å³]; [frames, *replicas]."""
        volume = np.abs(np.linalg.det(np.asarray(self.system.cell, np.float64)))
        virial = np.trace(self.stress.astype(np.float64), axis1=-2, axis2=-1)
        return 2 * self.kinetic_energy / (3 * volume) - virial / 3

    @property
    def _atoms(self) -> int:
        return self.positions.shape[-2]
