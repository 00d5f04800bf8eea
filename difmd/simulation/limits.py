"""What makes a run a broken one though all its numbers are finite: energies that jump, atoms too close."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ase.data import covalent_radii
from jax import lax
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_type
from difmd._internal.gather import take
from difmd._internal.pairs import find_pairs
from difmd.errors import Flag, check_not_negative, check_positive
from difmd.neighbors import Neighbors, extended_positions
from difmd.system import System

# Changes of a conserved energy that no time step is to be blamed for [eV/atom].
_QUIET = 0.05

# Of a covalent radius, that of spheres which fill a cell that has collapsed.
_PACKED = 0.5


class Limits(NamedTuple):
    """What `simulate` takes for broken, from frame to frame.

    Attributes:
        energy_jump: largest change of the energy from one frame to the next [eV/atom]. The energy is U + K,
            and what baths received where the integrator tells; such an energy is conserved, and may besides
            not change by more than all of K before, or 0.05 eV/atom. The start counts as a frame where K has
            changed by as much.
        closest: smallest distance of two atoms, in sums of their covalent radii; 0 for atoms that may pass
            through each other.
    """

    energy_jump: float = 1.0
    closest: float = 0.3


def check_limits(limits: Limits) -> None:
    """Refuse limits that are no numbers, or negative.

    Raises:
        InputError: naming the value.
    """
    check_type("limits", limits, Limits, "write difmd.Limits(energy_jump=..., closest=...)")
    check_positive("energy_jump", limits.energy_jump, "eV/atom")
    check_not_negative("closest", limits.closest, "sums of covalent radii")


def closeness(system: System, neighbors: Neighbors) -> Float[Array, ""]:
    """Smallest distance of two atoms in sums of their covalent radii; 10⁵ and more where there is no pair.

    The radii are those of ASE: Cordero et al., Dalton Trans. 2832 (2008), doi:10.1039/b801115j.

    Args:
        system: the configuration.
        neighbors: a current list for it.

    Returns:
        A number without unit; [].
    """
    dtype = system.positions.dtype
    # What is no atom is far from everything, so that its radius does not matter.
    table = jnp.asarray(np.where(np.arange(len(covalent_radii)) > 0, covalent_radii, 1.0), dtype)
    of_atoms = table[system.atomic_numbers]
    radii = jnp.concatenate([take(of_atoms, neighbors.parents), jnp.ones(2, dtype)])
    xyz = extended_positions(system, neighbors)
    own = [take(x, neighbors.centers) for x in xyz]
    own_radii = take(radii, neighbors.centers)

    def nearer(least: Array, slot: Array) -> tuple[Array, None]:
        square = sum((take(x, slot) - at) ** 2 for x, at in zip(xyz, own, strict=True))
        return jnp.minimum(least, square / (take(radii, slot) + own_radii) ** 2), None

    least, _ = lax.scan(nearer, jnp.full(own_radii.shape, jnp.inf, dtype), neighbors.indices)
    return jnp.sqrt(jnp.min(least, initial=jnp.inf))


class NearestPair(NamedTuple):
    """Two atoms, which `str` names.

    Attributes:
        first: number of the one.
        second: number of the other; the same for an atom and its own image.
        distance: [Å].
        relative: the same in sums of their covalent radii.
    """

    first: int
    second: int
    distance: float
    relative: float

    def __str__(self) -> str:
        """Such as "atoms 3 and 17 are 0.21 Å apart"."""
        return f"atoms {self.first} and {self.second} are {self.distance:.2g} Å apart"


def nearest_pair(system: System) -> NearestPair | None:
    """The pair that is nearest for its species, if any is as near as covalent bonds (host).

    None also where positions are not finite, or the cell is so small that a search would not end.

    Args:
        system: one system.
    """
    positions = np.asarray(system.positions, np.float64)
    cell, pbc = np.asarray(system.cell, np.float64), np.asarray(system.pbc)
    numbers = np.asarray(system.atomic_numbers)
    real = np.flatnonzero(numbers > 0)
    if not (len(real) and np.isfinite(positions).all() and np.isfinite(cell).all()):
        return None
    radii = covalent_radii[numbers[real]]
    reach = 2 * radii.max()
    if pbc.any() and (1 / np.linalg.norm(np.linalg.pinv(cell[pbc]), axis=0)).min() < 0.5 * reach:
        return None
    i, j, _, distance = find_pairs(positions[real], cell, pbc, cutoff=reach)
    if not len(distance):
        return None
    relative = distance / (radii[i] + radii[j])
    k = int(np.argmin(relative))
    first, second = sorted((int(real[i[k]]), int(real[j[k]])))
    return NearestPair(first, second, float(distance[k]), float(relative[k]))


def has_moved(limits: Limits, system: System, momenta: Any, frames: Any) -> bool:
    """Whether K has changed from these momenta to the first frame by what the energy may not (host).

    The energy of a start costs an evaluation that must be compiled; of most runs K tells that it is needless.

    Args:
        limits: what is taken for broken.
        system: one system or replicas.
        momenta: of the start; [*replicas, atoms, 3].
        frames: with momenta; [frames, *replicas, atoms, 3].
    """
    n_atoms = np.maximum((np.asarray(system.atomic_numbers) > 0).sum(axis=-1), 1)
    masses = np.asarray(system.masses, np.float64)[..., None]

    def kinetic(momenta: Any) -> np.ndarray:
        return 0.5 * np.sum(np.asarray(momenta, np.float64) ** 2 / masses, axis=(-1, -2)) / n_atoms

    before = kinetic(momenta)
    limit = np.minimum(limits.energy_jump, np.maximum(_QUIET, before))
    return bool(np.any(np.abs(kinetic(frames.momenta[0]) - before) > limit))


def flags_of_frames(
    limits: Limits, system: System, frames: Any, closest: np.ndarray, *, before: Any
) -> np.ndarray:
    """What is wrong with frames (host).

    Args:
        limits: what is taken for broken.
        system: one system or replicas, for what does not change.
        frames: positions, momenta, energy, stress, cell and reservoir of each; [frames, *replicas, ...].
        closest: the `closeness` of each; [frames, *replicas].
        before: the frame before them, with a leading axis of 1; None where they are the first.

    Returns:
        Bits of `Flag`; int [frames, *replicas].
    """
    flags = np.where(np.asarray(closest) < limits.closest, int(Flag.TOO_CLOSE), 0)
    real = np.asarray(system.atomic_numbers) > 0
    n_atoms = np.maximum(real.sum(axis=-1), 1)

    def energies(frames: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        masses = np.asarray(system.masses, np.float64)[..., None]
        kinetic = 0.5 * np.sum(np.asarray(frames.momenta, np.float64) ** 2 / masses, axis=(-1, -2)) / n_atoms
        received = np.asarray(frames.reservoir, np.float64) / n_atoms
        total = np.asarray(frames.energy, np.float64) / n_atoms + kinetic
        return total, kinetic, received

    found = energies(frames)
    first = tuple(x[:1] for x in found) if before is None else energies(before)
    total, kinetic, received = (np.concatenate(both) for both in zip(first, found, strict=True))
    limit = np.full(total[1:].shape, limits.energy_jump)
    if np.isfinite(received).all():
        total = total + received
        limit = np.minimum(limit, np.maximum(_QUIET, kinetic[:-1]))
    flags |= np.where(np.isfinite(total[1:]), 0, int(Flag.NON_FINITE))
    flags |= np.where(np.abs(np.diff(total, axis=0)) > limit, int(Flag.ENERGY_JUMP), 0)
    if np.all(system.pbc):
        radii = _PACKED * covalent_radii[np.asarray(system.atomic_numbers)]
        filled = 4 / 3 * np.pi * np.sum(real * radii**3, axis=-1)
        volume = np.abs(np.linalg.det(np.asarray(frames.cell, np.float64)))
        flags |= np.where(volume < filled, int(Flag.CELL_COLLAPSE), 0)
    return flags
