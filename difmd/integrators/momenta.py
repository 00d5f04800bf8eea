"""Momenta: kinetic energy, degrees of freedom, and random momenta without drift and rotation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from difmd._internal.argument_checks import check_key
from difmd.errors import check_not_negative
from difmd.integrators.base import check_momenta
from difmd.system import System, check_single
from difmd.units import KB


def kinetic_energy(system: System, momenta: Any) -> Any:
    """Kinetic energy Σ p²/2m, traced or on the host.

    Args:
        system: gives the masses.
        momenta: p [amu Å/(Å√(amu/eV))]; [*frames, *replicas, atoms, 3].

    Returns:
        Kinetic energies [eV]; [*frames, *replicas], in NumPy and float64 for momenta in NumPy.
    """
    if isinstance(momenta, np.ndarray):
        masses = np.asarray(system.masses, np.float64)[..., None]
        return 0.5 * np.sum(momenta.astype(np.float64) ** 2 / masses, axis=(-1, -2))
    return 0.5 * jnp.sum(momenta**2 / system.masses[..., None], axis=(-1, -2))


def degrees_of_freedom(system: System) -> Float[Array, ""]:
    """Degrees of freedom of a system without net momentum; at least 1.

    3N − 3 in a periodic cell; without periodic directions 3N − 6, as the angular momentum is zero as well, or
    1 for two atoms; with fixed atoms 3 for each that moves. Other linear molecules bend, and padding does not
    count.

    Args:
        system: one system.

    Returns:
        The number, in the dtype of the positions.

    Raises:
        InputError: not a single system.
    """
    check_single(system)
    n_atoms = jnp.sum(system.is_mobile, dtype=system.positions.dtype)
    rotations = jnp.where(n_atoms == 2, 2, jnp.where(n_atoms > 2, 3, 0)).astype(n_atoms.dtype)
    removed = 3 + jnp.where(jnp.any(system.pbc), 0, rotations)
    if system.fixed is not None:
        removed = jnp.where(system.holds_atoms, 0, removed)
    return jnp.maximum(3 * n_atoms - removed, 1)


def draw_momenta(
    key: Key[Array, ""], system: System, temperature: Float[Array, ""] | float
) -> Float[Array, "atoms 3"]:
    """Momenta from the Maxwell–Boltzmann distribution, without net momentum.

    Without periodic directions they have no angular momentum either; with fixed atoms neither is removed.
    Each of the `degrees_of_freedom` has the mean energy ½kT; a linear molecule of three or more atoms has one
    more, until it bends.

    Args:
        key: JAX key.
        system: masses, and positions for the angular momentum; padding and fixed atoms get zero.
        temperature: [K], ≥ 0.

    Returns:
        Momenta [amu Å/(Å√(amu/eV))]; [atoms, 3].

    Raises:
        InputError: a temperature that is negative or not finite, an invalid key, or not a single system.

    References:
        Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, §5.7.3.
    """
    check_key(key)
    check_single(system)
    check_not_negative("temperature", temperature, "K")
    masses = jnp.where(system.is_mobile, system.masses, 0)[:, None]
    noise = jax.random.normal(key, system.positions.shape, system.positions.dtype)
    momenta = jnp.sqrt(masses * KB * temperature) * noise
    # A normal distribution conditioned on linear constraints is its projection on their kernel.
    no_drift = _without_drift(momenta, masses)
    at_rest = jnp.where(jnp.any(system.pbc), no_drift, _without_rotation(no_drift, system.positions, masses))
    return at_rest if system.fixed is None else jnp.where(system.holds_atoms, momenta, at_rest)


def remove_drift(momenta: Float[Array, "atoms 3"], system: System) -> Float[Array, "atoms 3"]:
    """Subtract the velocity of the centre of mass: p − m Σp/Σm.

    Args:
        momenta: p, zero for padding and fixed atoms [amu Å/(Å√(amu/eV))]; [atoms, 3].
        system: gives the masses of atoms that move.

    Returns:
        Momenta without net momentum; [atoms, 3].

    Raises:
        InputError: momenta and system of different shapes or precision, or replicas.
    """
    return _without_drift(momenta, _mobile_masses(momenta, system))


def remove_rotation(momenta: Float[Array, "atoms 3"], system: System) -> Float[Array, "atoms 3"]:
    """Subtract the rotation about the centre of mass: p − m ω × r with ω = I⁻¹ L.

    Args:
        momenta: p, without net momentum [amu Å/(Å√(amu/eV))]; [atoms, 3].
        system: gives positions, and masses of atoms that move.

    Returns:
        Momenta without angular momentum; [atoms, 3].

    Raises:
        InputError: momenta and system of different shapes or precision, or replicas.
    """
    return _without_rotation(momenta, system.positions, _mobile_masses(momenta, system))


def _mobile_masses(momenta: Array, system: System) -> Float[Array, "atoms 1"]:
    check_single(system)
    check_momenta(momenta, system)
    return jnp.where(system.is_mobile, system.masses, 0)[:, None]


def _without_drift(momenta: Array, masses: Array) -> Array:
    return momenta - masses * jnp.sum(momenta, axis=0, keepdims=True) / jnp.sum(masses)


def _without_rotation(momenta: Array, positions: Array, masses: Array) -> Array:
    """Project on the complement of the rotations about x, y and z, in coordinates weighted by √m."""
    r = positions - jnp.sum(masses * positions, axis=0, keepdims=True) / jnp.sum(masses)
    roots = jnp.sqrt(masses)
    weighted = momenta / jnp.where(masses > 0, roots, 1)
    size = jnp.sum(masses * r**2)
    rotations: list[Array] = []
    # Gram–Schmidt instead of an inverse: rounding spoils that of the inertia of a tilted linear molecule.
    for axis in jnp.eye(3, dtype=r.dtype):
        rotation = roots * jnp.cross(axis[None], r)
        for other in 2 * rotations:
            rotation = rotation - jnp.vdot(other, rotation) * other
        square = jnp.vdot(rotation, rotation)
        is_new = square > 10 * jnp.finfo(r.dtype).eps * size
        rotations.append(jnp.where(is_new, rotation, 0) / jnp.sqrt(jnp.where(is_new, square, 1)))
        weighted = weighted - jnp.vdot(rotations[-1], weighted) * rotations[-1]
    return roots * weighted
