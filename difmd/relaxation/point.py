"""What is free in a relaxation, and the enthalpy as its function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.relaxation.strains import deform
from difmd.system import System


class Point(NamedTuple):
    """What is free; also a gradient with respect to it, a move or a velocity.

    Attributes:
        positions: in the cell before it is strained [Å]; [atoms, 3].
        strains: the coordinate s of each mode, as `relaxation.strains` defines it [Å]; [modes].
    """

    positions: Float[Array, "*batch atoms 3"]
    strains: Float[Array, "*batch modes"]


class Landscape(NamedTuple):
    """The enthalpy around a system.

    Attributes:
        deformed: `deformed(point)`, the system there; fixed atoms and padding move with the cell only.
        enthalpy: `enthalpy(point, neighbors)`, U + P V [eV].
    """

    deformed: Callable[[Point], System]
    enthalpy: Callable[[Point, Neighbors], Float[Array, ""]]


def landscape(potential: Potential, params: Params, system: System, modes: Array, pressure: Any) -> Landscape:
    """The enthalpy as a function of positions and of the coordinates of strains, see `relaxation.strains`.

    Args:
        potential: the energy model.
        params: its parameters.
        system: before it is strained.
        modes: in which the cell is free; [modes, 3, 3], perhaps none.
        pressure: P [eV/Å³].
    """
    mobile = system.is_mobile[:, None]
    length: Any = 1.0
    if len(modes):
        n_atoms = jnp.sum(system.atomic_numbers > 0).astype(system.positions.dtype)
        length = lax.stop_gradient(system.volume ** (1 / 3) * n_atoms ** (1 / 6))

    def deformed(point: Point) -> System:
        strain = jnp.tensordot(point.strains / length, modes, 1, precision=lax.Precision.HIGHEST)
        moved = jnp.where(mobile, point.positions, system.positions)
        return deform(system.replace(positions=moved), strain)

    def enthalpy(point: Point, neighbors: Neighbors) -> Array:
        found = deformed(point)
        energy = potential.apply(params, found, neighbors)
        return energy + pressure * found.volume if len(modes) else energy

    return Landscape(deformed, enthalpy)


def dot(one: Point, other: Point) -> Float[Array, ""]:
    """Scalar product of two gradients or moves."""
    exact = lax.Precision.HIGHEST
    atoms = jnp.vdot(one.positions, other.positions, precision=exact)
    return atoms + jnp.vdot(one.strains, other.strains, precision=exact)


def longest(point: Point) -> Float[Array, ""]:
    """Largest norm of an atom's vector, or magnitude of a strain's number."""
    atoms = jnp.sqrt(jnp.max(jnp.sum(point.positions**2, axis=-1)))
    return jnp.maximum(atoms, jnp.max(jnp.abs(point.strains), initial=0))
