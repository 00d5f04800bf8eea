"""Checks of the arguments that the functions of this package share."""

from __future__ import annotations

import jax

from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.potentials.base import check_shapes, validate_inputs
from difmd.system import System


def check_rebuildable(potential: Potential, params: Params, system: System, neighbors: Neighbors) -> None:
    """Raise `InputError` for arguments that do not fit together; the list need not be current.

    Of traced arrays only the shapes are checked.
    """
    check_shapes(potential, params, system, neighbors)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, system))):
        validate_inputs(potential, params, system)
