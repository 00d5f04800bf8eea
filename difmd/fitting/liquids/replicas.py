"""Replicas of a liquid at a state point, and their neighbour lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, Status
from difmd.fitting.liquids.sampling import Sampling
from difmd.neighbors import Neighbors, neighbor_list
from difmd.neighbors.types import check_belongs
from difmd.potentials import Params, Potential, validate_inputs
from difmd.potentials.base import validate_structure
from difmd.system import System

# Skin over cut-off. Many replicas share a rebuild, and cold liquids are simulated with long steps.
_SKIN = 0.15


@brief_repr
class Replicas(NamedTuple):
    """Equilibrated boxes of one state point.

    Attributes:
        systems: [replicas, ...].
        neighbors: neighbour lists with sufficient capacity; [replicas, ...].
        n_refrozen: replicas replaced so far because they had crystallised.
    """

    systems: System
    neighbors: Neighbors
    n_refrozen: int = 0


class Checked(NamedTuple):
    """A value and the status of the run that gave it, as `replay` requires."""

    value: Any
    status: Status


def given_replicas(potential: Potential, systems: Sequence[System], *, sampling: Sampling) -> Replicas:
    """Replicas of a liquid of any composition from given boxes, such as frames of a simulation.

    Args:
        potential: the energy model.
        systems: one for each replica, all of one composition and cell; `equilibrate` them before measuring.
        sampling: how they will be simulated.

    Returns:
        `Replicas` with neighbour lists.

    Raises:
        InputError: the number of boxes or atoms differs from that of the sampling, the boxes differ, or
            the potential has no parameters for a species.
    """
    if len(systems) != sampling.n_replicas:
        raise InputError(f"{len(systems)} boxes, but the sampling has {sampling.n_replicas} replicas")
    first = systems[0]
    for k, system in enumerate(systems):
        if system.n_atoms != sampling.n_atoms:
            raise InputError(f"box {k} has {system.n_atoms} atoms, the sampling {sampling.n_atoms}")
        for name in ("atomic_numbers", "masses", "pbc"):
            if not np.array_equal(getattr(system, name), getattr(first, name)):
                raise InputError(f"boxes 0 and {k} differ in {name}: give replicas of one liquid")
        if not np.allclose(system.cell, first.cell, atol=1e-4):
            raise InputError(f"boxes 0 and {k} differ in their cells: give replicas of one liquid")
    validate_structure(potential, first)
    batch = jax.tree.map(lambda *x: jnp.stack(x), *systems)
    return Replicas(batch, liquid_neighbors(potential, batch, sampling, None))


def liquid_neighbors(
    potential: Potential, systems: System, sampling: Sampling, like: Neighbors | None
) -> Neighbors:
    """A neighbour list for replicas of a liquid, of the shape of `like` where its capacity suffices."""
    skin = _SKIN * potential.cutoff if sampling.skin is None else sampling.skin
    return neighbor_list(
        systems, cutoff=potential.cutoff, skin=skin, slack=1.1, like=like,
        reverse_edges=potential.uses_reverse_edges,
    )  # fmt: skip


def check_replicas(potential: Potential, params: Params, replicas: Replicas) -> None:
    """Raise `InputError` for replicas that the potential and its parameters cannot be evaluated for."""
    if not isinstance(replicas, Replicas):
        raise InputError(
            f"replicas = {type(replicas).__name__} must be Replicas: use melt(...) or given_replicas(...)"
        )
    first, list_of_first = first_replica((replicas.systems, replicas.neighbors))
    validate_inputs(potential, params, first)
    check_belongs(first, list_of_first, "make the replicas with this potential")
    if replicas.neighbors.cutoff < potential.cutoff:
        raise InputError(
            f"the neighbour lists of the replicas reach {replicas.neighbors.cutoff:g} Å, the potential "
            f"{potential.cutoff:g} Å: make the replicas with this potential"
        )


def first_replica(systems: Any) -> Any:
    """The first of a batch of systems, or of their lists."""
    return jax.tree.map(lambda x: x[0], systems)
