"""Limits that end a run although all its numbers are finite: energy jumps, atoms too close."""

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
from difmd.errors import Flag, Status, check_not_negative, check_positive
from difmd.integrators import MDState, kinetic_energy
from difmd.neighbors import Neighbors, extended_positions
from difmd.system import System

# Changes of a conserved energy that are always allowed [eV/atom].
_QUIET = 0.05

# Radius of the spheres that fill a collapsed cell, in covalent radii.
_PACKED = 0.5


class Limits(NamedTuple):
    """Limits on the frames of a run; a run that exceeds one ends with a `SimulationError`.

    Attributes:
        energy_jump: largest change of the energy from one frame to the next [eV/atom]. The energy is U + K,
            plus the energy that baths received where the integrator accounts for it; such a sum is conserved,
            and may in addition not change by more than the larger of K before and 0.05 eV/atom. The initial
            state counts as a frame if K changed by more than that.
        closest: smallest distance of two atoms, in sums of their covalent radii; 0 for atoms that may pass
            through each other.
    """

    energy_jump: float = 1.0
    closest: float = 0.3


DEFAULT_LIMITS = Limits()


def check_limits(limits: Limits) -> None:
    """Require limits that are numbers and not negative, or raise `InputError`."""
    check_type("limits", limits, Limits, "write difmd.Limits(energy_jump=..., closest=...)")
    check_positive("energy_jump", limits.energy_jump, "eV/atom")
    check_not_negative("closest", limits.closest, "sums of covalent radii")


def closeness(system: System, neighbors: Neighbors) -> Float[Array, ""]:
    """Smallest distance of two atoms in sums of their covalent radii; 10⁵ and more where there is no pair.

    The radii are those of ASE: Cordero et al., Dalton Trans. 2832 (2008), doi:10.1039/b801115j.
    """
    dtype = system.positions.dtype
    # Padding is far from everything, so that its radius does not matter.
    table = jnp.asarray(np.where(np.arange(len(covalent_radii)) > 0, covalent_radii, 1.0), dtype)
    of_atoms = table[system.atomic_numbers]
    radii = jnp.concatenate([take(of_atoms, neighbors.parents), jnp.ones(2, dtype)])
    xyz = extended_positions(system, neighbors)
    centers = [take(x, neighbors.centers) for x in xyz]
    center_radii = take(radii, neighbors.centers)

    def closer(least: Array, slot: Array) -> tuple[Array, None]:
        square = sum((take(x, slot) - at) ** 2 for x, at in zip(xyz, centers, strict=True))
        return jnp.minimum(least, square / (take(radii, slot) + center_radii) ** 2), None

    least, _ = lax.scan(closer, jnp.full(center_radii.shape, jnp.inf, dtype), neighbors.indices)
    return jnp.sqrt(jnp.min(least, initial=jnp.inf))


class NearestPair(NamedTuple):
    """Indices of two atoms, the same for periodic images, and their distance [Å; sums of covalent radii]."""

    first: int
    second: int
    distance: float
    relative: float

    def __str__(self) -> str:
        """Such as "atoms 3 and 17 are 0.21 Å apart"."""
        return f"atoms {self.first} and {self.second} are {self.distance:.2g} Å apart"


def nearest_pair(system: System) -> NearestPair | None:
    """The pair with the smallest distance in sums of covalent radii (host).

    None if no two atoms are within two of the largest covalent radii, if positions are not finite, or if the
    cell is so small that a search would take too long.
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


def has_heated(limits: Limits, state: MDState, kinetic: np.ndarray) -> bool:
    """Whether K changed by more than the energy may between the initial state and the first frame (host).

    Otherwise the energy of the initial state, which costs a compilation, is not needed.
    """
    n_atoms = _n_atoms(state)
    before = kinetic_energy(state.system, np.asarray(state.momenta)) / n_atoms
    limit = np.minimum(limits.energy_jump, np.maximum(_QUIET, before))
    return bool(np.any(np.abs(np.asarray(kinetic[0], np.float64) / n_atoms - before) > limit))


def status_of_frames(limits: Limits, state: MDState, checks: Any, *, before: Any, save_every: int) -> Status:
    """The `Status` [*replicas] of the frames after a state, from their `Checks` [frames, *replicas] (host).

    `before` are the `Checks` of the frame before, with a leading axis of 1; None where there is none.
    """
    flags = _flags_of_frames(limits, state, checks, before)
    is_bad = flags != 0
    step = np.asarray(state.step) + (np.argmax(is_bad, axis=0) + 1) * save_every
    union, first = np.bitwise_or.reduce(flags, axis=0), np.where(is_bad.any(axis=0), step, -1)
    return Status(flags=union.astype(np.int32), first_bad_step=first.astype(np.int32))  # type: ignore[arg-type]


def _flags_of_frames(limits: Limits, state: MDState, checks: Any, before: Any) -> np.ndarray:
    """Bits of `Flag` for each frame; int [frames, *replicas]."""
    flags = np.where(np.asarray(checks.closest) < limits.closest, int(Flag.TOO_CLOSE), 0)
    n_atoms = _n_atoms(state)

    def per_atom(checks: Any) -> tuple[np.ndarray, ...]:
        series = (checks.potential_energy, checks.kinetic_energy, checks.reservoir)
        return tuple(np.asarray(x, np.float64) / n_atoms for x in series)

    after = per_atom(checks)
    first = tuple(x[:1] for x in after) if before is None else per_atom(before)
    potential, kinetic, reservoir = (np.concatenate(both) for both in zip(first, after, strict=True))
    total = potential + kinetic
    limit = np.full(total[1:].shape, limits.energy_jump)
    if np.isfinite(reservoir).all():
        total = total + reservoir
        limit = np.minimum(limit, np.maximum(_QUIET, kinetic[:-1]))
    flags |= np.where(np.isfinite(total[1:]), 0, int(Flag.NON_FINITE))
    flags |= np.where(np.abs(np.diff(total, axis=0)) > limit, int(Flag.ENERGY_JUMP), 0)
    if np.all(state.system.pbc):
        numbers = np.asarray(state.system.atomic_numbers)
        radii = _PACKED * covalent_radii[numbers]
        filled = 4 / 3 * np.pi * np.sum((numbers > 0) * radii**3, axis=-1)
        volume = np.abs(np.linalg.det(np.asarray(checks.cell, np.float64)))
        flags |= np.where(volume < filled, int(Flag.CELL_COLLAPSE), 0)
    return flags


def _n_atoms(state: MDState) -> np.ndarray:
    """Atoms without padding, at least 1; [*replicas]."""
    return np.maximum((np.asarray(state.system.atomic_numbers) > 0).sum(axis=-1), 1)
