"""`Snapshot`: one frame of a trajectory."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from difmd._internal.summaries import summary
from difmd.integrators import kinetic_energy
from difmd.system import System, to_ase
from difmd.trajectory.temperature import kinetic_temperature
from difmd.units import BAR

if TYPE_CHECKING:
    import ase


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Snapshot:
    """One frame of a `Trajectory`, as `run[i]` returns it; arrays lead with replicas if there are any.

    Attributes:
        system: the configuration of this frame, in NumPy; positions are unwrapped.
        momenta: [amu Å/(Å√(amu/eV))]; [*replicas, atoms, 3].
        step: time steps since step 0 of the run.
        time: the same in ps.
        potential_energy: [eV]; [*replicas].
        stress: of the interactions alone, tension positive [eV/Å³]; [*replicas, 3, 3].
    """

    system: System
    momenta: np.ndarray
    step: int
    time: float
    potential_energy: Any
    stress: np.ndarray

    @property
    def kinetic_energy(self) -> Any:
        """Σ p²/2m [eV]; [*replicas]."""
        return kinetic_energy(self.system, self.momenta)

    @property
    def temperature(self) -> Any:
        """2K/(N_f k_B) of the internal motion [K]; [*replicas]."""
        return kinetic_temperature(self.system, self.momenta)[()]

    @property
    def volume(self) -> Any:
        """Of the cell [Å³], NaN without three periodic directions; [*replicas]."""
        return volume(self.system.pbc, self.system.cell)

    @property
    def pressure(self) -> Any:
        """(2K/3 − tr(stress) V/3)/V [eV/Å³], NaN where there is no volume; [*replicas]."""
        return pressure(self.kinetic_energy, self.stress, self.volume)

    def to_ase(self) -> ase.Atoms:
        """The frame of one system as `ase.Atoms` (host).

        Returns:
            Atoms without padding, with unwrapped positions, velocities, cell, `info["time_ps"]`, energy and,
            with three periodic directions, the stress of the interactions alone.

        Raises:
            InputError: there are several replicas: choose one by `run.replica(k)[i]`.
        """
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms = to_ase(self.system)
        is_atom = np.asarray(self.system.atomic_numbers) > 0
        # The unit of time here, Å√(amu/eV), is that of ASE.
        atoms.set_momenta(self.momenta.astype(np.float64)[is_atom], apply_constraint=False)
        atoms.info["time_ps"] = self.time
        results: dict[str, Any] = {"energy": float(self.potential_energy)}
        if atoms.pbc.all():
            # Voigt order: xx, yy, zz, yz, xz, xy.
            stress = np.asarray(self.stress, np.float64)
            results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    def __repr__(self) -> str:
        """Time and means over replicas."""
        rows = {
            "atoms": f"{self.system.n_atoms}",
            "time": f"{self.time:.6g} ps (step {self.step})",
            "temperature": f"{np.mean(self.temperature):.4g} K",
            "potential energy": f"{np.mean(self.potential_energy):.8g} eV",
            "pressure": f"{np.mean(self.pressure) / BAR:.4g} bar",
        }
        return summary("Snapshot", rows)


def volume(pbc: Any, cells: Any) -> Any:
    """|det cell| in float64 [Å³], NaN without three periodic directions; [*frames, *replicas]."""
    has_volume = np.all(np.asarray(pbc), axis=-1)
    return np.where(has_volume, np.abs(np.linalg.det(np.asarray(cells, np.float64))), np.nan)[()]


def pressure(kinetic: Any, stress: Any, volume: Any) -> Any:
    """(2K/3 − tr(stress) V/3)/V [eV/Å³]; [*frames, *replicas]."""
    virial = np.trace(np.asarray(stress, np.float64), axis1=-2, axis2=-1)
    return 2 * kinetic / (3 * volume) - virial / 3
