"""`Trajectory`: the frames of a simulation in memory, with what is computed from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import jax
import numpy as np

from difmd._internal.summaries import html_table, summary
from difmd.errors import InputError
from difmd.integrators import MDState, kinetic_energy
from difmd.system import System
from difmd.trajectory.frames import Frames
from difmd.trajectory.snapshot import Snapshot, pressure, volume
from difmd.trajectory.temperature import kinetic_temperature
from difmd.units import BAR, PS

if TYPE_CHECKING:
    import ase

# Frames that a summary averages over, at most.
_SUMMARISED = 500


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Trajectory:
    """The result of `simulate`: a sequence of frames.

    `len(run)` is the number of frames, `run[i]` a `Snapshot`, `run[::10]` a trajectory of every tenth frame
    with the same `state`; iteration yields snapshots. All arrays are NumPy.

    Attributes:
        system: the initial configuration.
        frames: positions, momenta, energies, stress and cells; each is also an attribute of the trajectory.
        steps: time steps done at each frame, counted from step 0 of the state; [frames].
        dt: time step [Å√(amu/eV)].
        state: after the last step, from which `simulate` continues; at step 0 its forces are NaN. None where
            `read_trajectory` needs the integrator to restore it.
        n_replays: how often the neighbour list was enlarged.
        skin: of the neighbour list [Å].
    """

    system: System
    frames: Frames
    steps: np.ndarray
    dt: float
    state: MDState | None = None
    n_replays: int = 0
    skin: float = float("nan")

    @property
    def time(self) -> np.ndarray:
        """Time since step 0 [ps]; [frames]."""
        return self.steps * (self.dt / PS)

    @property
    def interval(self) -> float:
        """Time from frame to frame [Å√(amu/eV)], NaN for fewer than two frames."""
        return float(self.dt * (self.steps[1] - self.steps[0])) if len(self) > 1 else float("nan")

    @property
    def n_replicas(self) -> int | None:
        """Number of replicas; None for a trajectory of one system."""
        return len(self.system.positions) if self.system.positions.ndim == 3 else None

    @property
    def positions(self) -> np.ndarray:
        """Unwrapped [Å]; [frames, *replicas, atoms, 3]."""
        return self.frames.positions

    @property
    def momenta(self) -> np.ndarray:
        """[amu Å/(Å√(amu/eV))]; [frames, *replicas, atoms, 3]."""
        return self.frames.momenta

    @property
    def potential_energy(self) -> np.ndarray:
        """[eV]; [frames, *replicas]."""
        return self.frames.potential_energy

    @property
    def stress(self) -> np.ndarray:
        """Of the interactions alone, tension positive [eV/Å³]; [frames, *replicas, 3, 3]."""
        return self.frames.stress

    @property
    def cells(self) -> np.ndarray:
        """Rows are lattice vectors [Å]; [frames, *replicas, 3, 3]."""
        if self.frames.cells is not None:
            return self.frames.cells
        cell = np.asarray(self.system.cell)
        return np.broadcast_to(cell, (len(self), *cell.shape))

    @property
    def volume(self) -> np.ndarray:
        """Of the cell [Å³], NaN without three periodic directions; [frames, *replicas]."""
        return volume(self.system.pbc, self.cells)

    @property
    def kinetic_energy(self) -> np.ndarray:
        """Σ p²/2m [eV]; [frames, *replicas]."""
        return kinetic_energy(self.system, self.momenta)

    @property
    def total_energy(self) -> np.ndarray:
        """Potential and kinetic energy, which dynamics without a bath conserve [eV]; [frames, *replicas]."""
        return self.potential_energy.astype(np.float64) + self.kinetic_energy

    @property
    def conserved(self) -> np.ndarray:
        """Total energy plus the energy that baths received, NaN where unknown [eV]; [frames, *replicas]."""
        return self.total_energy + (np.nan if self.frames.reservoir is None else self.frames.reservoir)

    @property
    def temperature(self) -> np.ndarray:
        """2K/(N_f k_B) of the internal motion [K], see `kinetic_temperature`; [frames, *replicas]."""
        return kinetic_temperature(self.system, self.momenta, self.positions)

    @property
    def pressure(self) -> np.ndarray:
        """(2K/3 − tr(stress) V/3)/V [eV/Å³], NaN where there is no volume; [frames, *replicas]."""
        return pressure(self.kinetic_energy, self.stress, self.volume)

    def replica(self, number: int) -> Trajectory:
        """The trajectory of one replica, without their axis; negative numbers count from the end.

        Raises:
            InputError: there is no such replica.
        """
        n = self.n_replicas
        if n is None:
            raise InputError(f"replica = {number!r}, but this trajectory is of one system: leave it out")
        if type(number) is not int or not -n <= number < n:
            raise InputError(f"replica = {number!r} must be an integer from 0 to {n - 1}")
        system, state = jax.tree.map(lambda x: x[number], (self.system, self.state))
        frames = jax.tree.map(lambda x: x[:, number], self.frames)
        return dataclasses.replace(self, system=system, frames=frames, state=state)

    def to_ase(self, *, replica: int | None = None, frames: slice = slice(None)) -> list[ase.Atoms]:
        """Frames of the trajectory, or of one of several replicas, by `Snapshot.to_ase` (host).

        Raises:
            InputError: no such replica, or none given for several.
        """
        if self.n_replicas is not None and replica is None:
            raise InputError(f"choose one of the {self.n_replicas} replicas: to_ase(replica=0)")
        run = self if replica is None else self.replica(replica)
        return [frame.to_ase() for frame in run[frames]]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> Snapshot: ...

    @overload
    def __getitem__(self, index: slice) -> Trajectory: ...

    def __getitem__(self, index: int | slice) -> Snapshot | Trajectory:
        """A frame by its number, or a trajectory of some of the frames."""
        if isinstance(index, slice):
            frames = jax.tree.map(lambda x: x[index], self.frames)
            return dataclasses.replace(self, frames=frames, steps=self.steps[index])
        step = int(self.steps[index])
        system = jax.tree.map(np.asarray, self.system)
        system = system.replace(positions=self.positions[index], cell=self.cells[index])
        return Snapshot(
            system=system, momenta=self.momenta[index], step=step, time=step * self.dt / PS,
            potential_energy=self.potential_energy[index], stress=self.stress[index],
        )  # fmt: skip

    def __iter__(self) -> Iterator[Snapshot]:
        """The frames, one after the other."""
        return (self[n] for n in range(len(self)))

    def _rows(self) -> dict[str, Any]:
        """The rows of a summary."""
        n_atoms = np.sum(np.asarray(self.system.atomic_numbers) > 0, axis=-1)
        replicas = "" if self.n_replicas is None else f" in {self.n_replicas} replicas"
        rows: dict[str, Any] = {"frames": f"{len(self)} of {np.max(n_atoms)} atoms{replicas}"}
        if not len(self):
            return rows
        some = self[:: -(-len(self) // _SUMMARISED)]
        rows["time"] = f"{self.time[0]:.6g} to {self.time[-1]:.6g} ps, {int(self.steps[-1])} steps"
        rows["temperature"] = f"{np.mean(some.temperature):.4g} K (mean)"
        rows["pressure"] = f"{np.mean(some.pressure) / BAR:.4g} bar (mean)"
        conserved = some.conserved
        if np.isfinite(conserved).all():
            drift = np.mean((conserved[-1] - conserved[0]) / n_atoms)
            rows["energy drift"] = f"{1000 * drift:.2g} meV/atom"
        return rows

    def __repr__(self) -> str:
        """Frames, atoms, duration, mean temperature and energy drift."""
        return summary("Trajectory", self._rows())

    def _repr_html_(self) -> str:
        """The same as a table."""
        return html_table("Trajectory", self._rows())
