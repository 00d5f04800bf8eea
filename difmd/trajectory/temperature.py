"""The kinetic temperature of stored frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from difmd.integrators import kinetic_energy
from difmd.system import System
from difmd.units import KB


def kinetic_temperature(system: System, momenta: Any, positions: Any = None) -> np.ndarray:
    """Temperature of the internal motion, 2K'/(N_f k_B) (host).

    K' excludes the motion of the centre of mass and, where no direction is periodic, the rotation:
    N_f = 3N − 3 or 3N − 6, see `degrees_of_freedom`. With fixed atoms all motion counts, and N_f = 3 for each
    mobile atom. NaN for a single atom.

    Args:
        system: one system, or a batch of replicas.
        momenta: [amu Å/(Å√(amu/eV))]; [*frames, *replicas, atoms, 3].
        positions: [Å], of the same shape; default: those of the system.

    Returns:
        [K]; [*frames, *replicas].
    """
    mobile = np.asarray(system.is_mobile)
    masses = np.where(mobile, np.asarray(system.masses, np.float64), 0)
    p = np.asarray(momenta, np.float64) * mobile[..., None]
    r = np.asarray(system.positions if positions is None else positions, np.float64)
    kinetic = kinetic_energy(system, p)
    n_mobile = np.sum(mobile, axis=-1)
    is_free = ~np.asarray(system.holds_atoms)
    total_mass = np.sum(masses, axis=-1)[..., None]
    total_momentum = np.sum(p, axis=-2)
    kinetic = kinetic - is_free * 0.5 * np.sum(total_momentum**2 / total_mass, axis=-1)
    rotates = is_free & ~np.any(np.asarray(system.pbc), axis=-1)
    if rotates.any():
        r = r - (np.sum(masses[..., None] * r, axis=-2) / total_mass)[..., None, :]
        spin = np.sum(np.cross(r, p), axis=-2)
        square = np.sum(masses[..., None] * r**2, axis=(-1, -2))[..., None, None]
        inertia = square * np.eye(3) - np.einsum("...a,...ai,...aj->...ij", masses, r, r)
        # A linear molecule has no moment of inertia about its axis.
        inverse = np.linalg.pinv(inertia, rcond=1e-12, hermitian=True)
        kinetic = kinetic - rotates * 0.5 * np.einsum("...i,...ij,...j->...", spin, inverse, spin)
    rotations = np.where(n_mobile == 2, 2, np.where(n_mobile > 2, 3, 0))
    freedoms = 3.0 * n_mobile - np.where(is_free, 3, 0) - np.where(rotates, rotations, 0)
    return np.asarray(2 * kinetic / (np.where(freedoms > 0, freedoms, np.nan) * KB))
