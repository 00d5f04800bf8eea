"""The configuration that checks without dynamics look at, and energy and forces of what becomes of it."""

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

# Forces of a perfect crystal vanish, and what vanishes shows no error [Å].
_SHAKEN = 0.05

# Small displacements need no new list [Å].
_SKIN = 0.5


class Rest(NamedTuple):
    """A configuration off its lattice sites, and what the potential says of it.

    Attributes:
        system: the configuration.
        neighbors: its list, with a skin of 0.5 Å.
        found: energy, forces and stress.
        given: those of the configuration as it was given, before it was shaken.
        largest_force: [eV/Å].
        n_atoms: without padding.
    """

    system: System
    neighbors: Neighbors
    found: Evaluation
    given: Evaluation
    largest_force: float
    n_atoms: int


def at_rest(potential: Potential, params: Params, system: System, key: Key[Array, ""]) -> Rest:
    """Evaluate a system as it is, and shaken by 0.05 Å.

    Raises:
        InputError: energy or forces of the shaken system are not finite, or all of them vanish.
    """
    real = np.asarray(system.atomic_numbers) > 0
    noise = jax.random.normal(key, system.positions.shape, system.positions.dtype)
    shaken = np.asarray(system.positions) + np.where(real[:, None], _SHAKEN * np.asarray(noise), 0)
    moved = system.replace(positions=jnp.asarray(shaken, system.positions.dtype))
    neighbors = list_of(potential, moved)
    found = evaluated(potential, params, moved, neighbors)
    size = float(np.max(np.abs(np.asarray(found.forces))))
    if not np.isfinite(size) or not np.isfinite(float(found.energy)):
        raise InputError(
            "energy or forces of the system are not finite: atoms overlap, or params are out of range"
        )
    if size == 0:
        raise InputError(
            f"no force acts on any atom: give a system with atoms closer than {potential.cutoff:g} Å"
        )
    given = evaluated(potential, params, system, list_of(potential, system, neighbors))
    return Rest(moved, neighbors, found, given, size, int(real.sum()))


def check_given(rest: Rest) -> Check:
    """Whether energy, forces and, in a periodic system, stress of the configuration as given are finite.

    High symmetry is where angles are 0 or π and bonds along axes, and what shaking hides dynamics begin with.

    Args:
        rest: the configuration.

    Returns:
        A row that counts the numbers that are not finite.
    """
    found = [rest.given.energy, rest.given.forces]
    if np.asarray(rest.system.pbc).all():
        found.append(rest.given.stress)
    n_bad = sum(int(np.sum(~np.isfinite(np.asarray(x)))) for x in found)
    return judged(
        "derivatives", "numbers not finite as given", n_bad, 0,
        "energy, forces or stress of the system as given are not finite, though they are once it is shaken: "
        "look for roots, angles and quotients that diverge at high symmetry, and use safe operands",
    )  # fmt: skip


def list_of(potential: Potential, system: System, like: Neighbors | None = None) -> Neighbors:
    """A list for a system, if possible of the shape of another one, so that nothing is compiled again."""
    return neighbor_list(
        system,
        cutoff=potential.cutoff,
        skin=_SKIN,
        slack=1.3,
        like=like,
        reverse_edges=potential.uses_reverse_edges,
    )


@functools.partial(jax.jit, static_argnums=0)
def evaluated(potential: Potential, params: Params, system: System, neighbors: Neighbors) -> Evaluation:
    """`evaluate`, compiled."""
    return evaluate(potential, params, system, neighbors)


@functools.partial(jax.jit, static_argnums=0)
def energies_of(
    potential: Potential, params: Params, system: System, neighbors: Neighbors, moves: Array, strains: Array
) -> Array:
    """Energies after displacements and strains that are so small that the list still holds [eV].

    Args:
        potential: the energy model.
        params: its parameters.
        system: where to start.
        neighbors: a list for it, with a skin.
        moves: displacements [Å]; [moves, atoms, 3].
        strains: applied to positions and cell after them; [moves, 3, 3].
    """

    def one(change: Any) -> Array:
        move, strain = change
        grown = jnp.eye(3, dtype=strain.dtype) + strain
        moved = system.replace(positions=(system.positions + move) @ grown, cell=system.cell @ grown)
        return potential.apply(params, moved, neighbors)

    return jax.lax.map(one, (moves, strains))
