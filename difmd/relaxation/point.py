"""The variables of a relaxation, and the enthalpy as a function of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from difmd._internal.summaries import brief_repr
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.relaxation.strains import deform
from difmd.system import System


@brief_repr
class Point(NamedTuple):
    """The variables of a relaxation; also a gradient with respect to them, a displacement or a velocity.

    Attributes:
        positions: in the unstrained cell [Å]; [atoms, 3].
        strains: the coordinate s of each strain mode, see `relaxation.strains` [Å]; [modes].
    """

    positions: Float[Array, "*batch atoms 3"]
    strains: Float[Array, "*batch modes"]


class Landscape(NamedTuple):
    """The system at a point, where fixed atoms and padding move with the cell only, and U + P V [eV]."""

    deformed: Callable[[Point], System]
    enthalpy: Callable[[Point, Neighbors], Float[Array, ""]]


def landscape(potential: Potential, params: Params, system: System, modes: Array, pressure: Any) -> Landscape:
    """The enthalpy as a function of positions and the coordinates of strain modes [modes, 3, 3]."""
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
        system = deformed(point)
        energy = potential.apply(params, system, neighbors)
        return energy + pressure * system.volume if len(modes) else energy

    return Landscape(deformed, enthalpy)


def dot(a: Point, b: Point) -> Float[Array, ""]:
    """Scalar product of two gradients or displacements."""
    exact = lax.Precision.HIGHEST
    atoms = jnp.vdot(a.positions, b.positions, precision=exact)
    return atoms + jnp.vdot(a.strains, b.strains, precision=exact)


def largest_norm(point: Point) -> Float[Array, ""]:
    """The largest norm of an atom's vector, or absolute value of a strain coordinate."""
    atoms = jnp.sqrt(jnp.max(jnp.sum(point.positions**2, axis=-1)))
    return jnp.maximum(atoms, jnp.max(jnp.abs(point.strains), initial=0))
