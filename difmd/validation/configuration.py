"""The configuration of the static checks, and evaluations of it and its deformations."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from difmd.errors import InputError
from difmd.forces import Evaluation, evaluate
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials import Params, Potential
from difmd.system import System
from difmd.validation.checks import Check, judged

# Standard deviation of displacements: forces of a perfect crystal vanish, and hide errors [Å].
_DISPLACEMENT = 0.05

# Small displacements need no new list [Å].
_SKIN = 0.5


class Configuration(NamedTuple):
    """A displaced system, its list and evaluation, that of the original system, and its number of atoms."""

    system: System
    neighbors: Neighbors
    evaluation: Evaluation
    undisplaced: Evaluation
    largest_force: float
    n_atoms: int


def displaced(potential: Potential, params: Params, system: System, key: Key[Array, ""]) -> Configuration:
    """Evaluate a system without and with random displacements of 0.05 Å, which has to have finite forces."""
    real = np.asarray(system.atomic_numbers) > 0
    noise = jax.random.normal(key, system.positions.shape, system.positions.dtype)
    positions = np.asarray(system.positions) + np.where(real[:, None], _DISPLACEMENT * np.asarray(noise), 0)
    moved = system.replace(positions=jnp.asarray(positions, system.positions.dtype))
    neighbors = list_of(potential, moved)
    evaluation = evaluated(potential, params, moved, neighbors)
    size = float(np.max(np.abs(np.asarray(evaluation.forces))))
    if not np.isfinite(size) or not np.isfinite(float(evaluation.energy)):
        raise InputError(
            "energy or forces of the system are not finite: atoms overlap, or params are out of range"
        )
    if size == 0:
        raise InputError(
            f"no force acts on any atom: give a system with atoms closer than {potential.cutoff:g} Å"
        )
    undisplaced = evaluated(potential, params, system, list_of(potential, system, neighbors))
    return Configuration(moved, neighbors, evaluation, undisplaced, size, int(real.sum()))


def check_finite(configuration: Configuration) -> Check:
    """Check energy, forces and stress of the undisplaced system, as its symmetry may make them diverge."""
    values = [configuration.undisplaced.energy, configuration.undisplaced.forces]
    if np.asarray(configuration.system.pbc).all():
        values.append(configuration.undisplaced.stress)
    n_bad = sum(int(np.sum(~np.isfinite(np.asarray(x)))) for x in values)
    remedy = (
        "energy, forces or stress of the system are not finite, though they are once atoms are displaced: "
        "look for roots, angles and quotients that diverge at high symmetry, and use safe operands"
    )
    return judged("derivatives", "non-finite values at the input", n_bad, 0, remedy)


def list_of(potential: Potential, system: System, like: Neighbors | None = None) -> Neighbors:
    """A list for a system, if possible with the shape of another list, to avoid compilation."""
    if like is not None and like.rank.shape[0] != system.n_atoms:
        like = None
    return neighbor_list(
        system, cutoff=potential.cutoff, skin=_SKIN, slack=1.3, like=like,
        reverse_edges=potential.uses_reverse_edges,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def evaluated(potential: Potential, params: Params, system: System, neighbors: Neighbors) -> Evaluation:
    """`evaluate`, compiled."""
    return evaluate(potential, params, system, neighbors)


@functools.partial(jax.jit, static_argnums=0)
def energies_of(
    potential: Potential, params: Params, system: System, neighbors: Neighbors, displacements: Array,
    strains: Array,
) -> Array:  # fmt: skip
    """Energies after displacements [n, atoms, 3] [Å], then strains [n, 3, 3]; the list must hold."""

    def energy(change: Any) -> Array:
        displacement, strain = change
        deformation = jnp.eye(3, dtype=strain.dtype) + strain
        positions = (system.positions + displacement) @ deformation
        moved = system.replace(positions=positions, cell=system.cell @ deformation)
        return potential.apply(params, moved, neighbors)

    return jax.lax.map(energy, (displacements, strains))
