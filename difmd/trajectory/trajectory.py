"""Frames of a simulation, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from difmd.errors import InputError
from difmd.integrators import MDState
from difmd.system import System, to_ase
from difmd.units import KB, PS

if TYPE_CHECKING:
    import ase


class Trajectory(NamedTuple):
    """What `simulate` committed; frames lead, then replicas if there are any.

    Attributes:
        system: the start; gives masses, species, cell and pbc.
        times: since step 0 of the state [Å√(amu/eV)]; [frames].
        positions: unwrapped [Å]; [frames, *replicas, atoms, 3].
        momenta: [amu Å/time]; [frames, *replicas, atoms, 3].
        potential_energy: [eV]; [frames, *replicas].
        stress: from interactions alone, tension positive [eV/Å³]; [frames, *replicas, 3, 3].
        state: the last committed state; `simulate` goes on from it. At step 0 its forces are NaN, as they are
            yet to be found. None where `read_trajectory` was not given the integrator that can tell.
        n_replays: how often the neighbour list overflowed and was grown.
        skin: of the neighbour list [Å].
        cells: rows are lattice vectors [Å]; [frames, *replicas, 3, 3]. None: that of `system` throughout.
        reservoir: energy that thermostats and barostats have received [eV], NaN where the integrator does
            not keep it; [frames, *replicas].
    """

    system: System
    times: np.ndarray
    positions: np.ndarray
    momenta: np.ndarray
    potential_energy: np.ndarray
    stress: np.ndarray
    state: MDState | None
    n_replays: int
    skin: float
    cells: np.ndarray | None = None
    reservoir: np.ndarray | None = None

    @property
    def volume(self) -> np.ndarray:
        """Of the cell [Å³], NaN without three periodic directions; [frames, *replicas]."""
        if self.cells is None:
            cells = np.broadcast_to(np.asarray(self.system.cell), (*self.stress.shape[:-2], 3, 3))
        else:
            cells = self.cells
        has_one = np.all(np.asarray(self.system.pbc), axis=-1)
        return np.where(has_one, np.abs(np.linalg.det(cells.astype(np.float64))), np.nan)

    @property
    def kinetic_energy(self) -> np.ndarray:
        """Σ p²/2m [eV]; [frames, *replicas]."""
        masses = np.asarray(self.system.masses, np.float64)[..., None]
        return 0.5 * np.sum(self.momenta.astype(np.float64) ** 2 / masses, axis=(-1, -2))

    @property
    def total_energy(self) -> np.ndarray:
        """Potential and kinetic energy, which dynamics without a bath conserve [eV]; [frames, *replicas]."""
        return self.potential_energy.astype(np.float64) + self.kinetic_energy

    @property
    def conserved(self) -> np.ndarray:
        """Total energy and what baths have received [eV], constant but for the error of the steps.

        NaN for integrators that do not keep account; [frames, *replicas].
        """
        return self.total_energy + (np.nan if self.reservoir is None else self.reservoir)

    @property
    def temperature(self) -> np.ndarray:
        """2K/(N_f k_B) with K relative to the motion of the whole [K]; [frames, *replicas]."""
        return kinetic_temperature(self.system, self.momenta, self.positions)

    @property
    def pressure(self) -> np.ndarray:
        """(2K/3 − tr(stress) V/3)/V [eV/Å³], NaN where there is no volume; [frames, *replicas]."""
        virial = np.trace(self.stress.astype(np.float64), axis1=-2, axis2=-1)
        return 2 * self.kinetic_energy / (3 * self.volume) - virial / 3

    def to_ase(self, *, replica: int | None = None, frames: slice = slice(None)) -> list[ase.Atoms]:
        """Frames as `ase.Atoms`, to look at or to export (host).

        Args:
            replica: which one; needed where there are several, and only there.
            frames: which of the frames.

        Returns:
            Atoms with unwrapped positions, velocities, cell, `info["time_ps"]`, and a `SinglePointCalculator`
            with the energy and, with three periodic directions, the stress of interactions alone. Padding is
            left out.

        Raises:
            InputError: a replica that there is not, or none given where there are several.
        """
        from ase.calculators.singlepoint import SinglePointCalculator

        at: tuple[int, ...] = ()
        if self.system.positions.ndim == 3:
            n_replicas = len(self.system.positions)
            if type(replica) is not int or not 0 <= replica < n_replicas:
                raise InputError(
                    f"replica = {replica} must be a number 0 .. {n_replicas - 1}: to_ase(replica=0)"
                )
            at = (replica,)
        elif replica is not None:
            raise InputError(f"replica = {replica}, but this trajectory is of one system: leave it out")
        own = jax.tree.map(lambda x: np.asarray(x)[at], self.system)
        real = np.asarray(own.atomic_numbers) > 0
        found = []
        for n in range(len(self.times))[frames]:
            cell = own.cell if self.cells is None else self.cells[(n, *at)]
            atoms = to_ase(own.replace(positions=self.positions[(n, *at)], cell=cell))
            # A unit of time here, Å√(amu/eV), is one of ASE's.
            momenta = np.asarray(self.momenta[(n, *at)], np.float64)[real]
            atoms.set_momenta(momenta, apply_constraint=False)
            atoms.info["time_ps"] = float(self.times[n] / PS)
            results: dict[str, Any] = {"energy": float(self.potential_energy[(n, *at)])}
            if atoms.pbc.all():
                # Voigt's order: xx, yy, zz, yz, xz, xy.
                stress = np.asarray(self.stress[(n, *at)], np.float64)
                results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
            atoms.calc = SinglePointCalculator(atoms, **results)
            found.append(atoms)
        return found


def kinetic_temperature(system: System, momenta: Any, positions: Any = None) -> np.ndarray:
    """Temperature of the motion relative to that of the whole, 2K'/(N_f k_B) (host).

    The motion of the whole is that of the centre of mass, and where no direction is periodic the rotation,
    too: N_f = 3N − 3 or 3N − 6, see `degrees_of_freedom`. It is the same mean for dynamics that keep the
    whole at rest and for those that thermostat it. With fixed atoms all motion counts, N_f = 3 for each atom
    that moves. NaN for one atom.

    Args:
        system: one system, or a batch of replicas.
        momenta: [amu Å/time]; [*frames, *replicas, atoms, 3].
        positions: [Å], of the same shape; default: those of the system.

    Returns:
        [K]; [*frames, *replicas].
    """
    mobile = np.asarray(system.is_mobile)
    masses = np.where(mobile, np.asarray(system.masses, np.float64), 0)
    p = np.asarray(momenta, np.float64) * mobile[..., None]
    r = np.asarray(system.positions if positions is None else positions, np.float64)
    kinetic = 0.5 * np.sum(p**2 / np.where(mobile, masses, 1)[..., None], axis=(-1, -2))
    n_mobile = np.sum(mobile, axis=-1)
    is_free = ~np.asarray(system.holds_atoms)
    whole = np.sum(masses, axis=-1)[..., None]
    total = np.sum(p, axis=-2)
    kinetic = kinetic - is_free * 0.5 * np.sum(total**2 / whole, axis=-1)
    turns = is_free & ~np.any(np.asarray(system.pbc), axis=-1)
    if turns.any():
        r = r - (np.sum(masses[..., None] * r, axis=-2) / whole)[..., None, :]
        spin = np.sum(np.cross(r, p), axis=-2)
        square = np.sum(masses[..., None] * r**2, axis=(-1, -2))[..., None, None]
        inertia = square * np.eye(3) - np.einsum("...a,...ai,...aj->...ij", masses, r, r)
        # A linear molecule has no inertia about its axis.
        inverse = np.linalg.pinv(inertia, rcond=1e-12, hermitian=True)
        kinetic = kinetic - turns * 0.5 * np.einsum("...i,...ij,...j->...", spin, inverse, spin)
    rotations = np.where(n_mobile == 2, 2, np.where(n_mobile > 2, 3, 0))
    freedoms = 3.0 * n_mobile - np.where(is_free, 3, 0) - np.where(turns, rotations, 0)
    return np.asarray(2 * kinetic / (np.where(freedoms > 0, freedoms, np.nan) * KB))
