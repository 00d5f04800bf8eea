"""`minimize`: a relaxed structure as a differentiable function of the parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from difmd._internal.summaries import brief_repr
from difmd.errors import Flag, InputError, Status
from difmd.neighbors import Neighbors, update
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.potentials.base import check_arguments
from difmd.relaxation.descent import begin, check_goal, is_running, step
from difmd.relaxation.fire import fire
from difmd.relaxation.implicit import stationary_point
from difmd.relaxation.optimizer import Optimizer
from difmd.relaxation.point import Point, landscape, largest_norm
from difmd.relaxation.strains import check_modes, tether
from difmd.system import System


@brief_repr
class Minimum(NamedTuple):
    """The result of `minimize`.

    Attributes:
        system: relaxed.
        neighbors: a current list for it.
        energy: U [eV].
        largest_force: on atoms that move and, where the cell is free, on strain coordinates [eV/Å].
        n_steps: number of steps.
        status: sticky flags; check it before using the other fields.
    """

    system: System
    neighbors: Neighbors
    energy: Float[Array, ""]
    largest_force: Float[Array, ""]
    n_steps: Int[Array, ""]
    status: Status


def minimize(
    potential: Potential,
    params: Params,
    system: System,
    neighbors: Neighbors,
    *,
    strains: Float[Array, "modes 3 3"] | np.ndarray | None = None,
    pressure: float | Float[Array, ""] = 0.0,
    force_tolerance: float = 1e-4,
    max_steps: int = 2000,
    optimizer: Optimizer | None = None,
) -> Minimum:
    """Relax positions, and the cell by given strain modes; pure, and differentiable in `params`.

    FIRE or L-BFGS, then one Newton step. Derivatives of the result with respect to the parameters, the
    pressure and a fixed cell are those of the minimum, by the implicit function theorem. The enthalpy is
    U + P V; `relaxation.strains` defines coordinates and forces of strains. Fixed atoms are treated as by
    `relax`.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        system: the initial structure.
        neighbors: a current list for it, with skin and, if the cell may change, slack.
        strains: modes in which the cell is free: `any_strain()`, `axial_strain()`, `isotropic_strain()`, or
            others; None: the cell is fixed.
        pressure: P, if the cell is free [eV/Å³].
        force_tolerance: largest force on an atom or strain coordinate at convergence [eV/Å].
        max_steps: largest number of steps; the flag `NOT_CONVERGED` is set if they do not suffice.
        optimizer: `fire()`, the default, or `lbfgs()`.

    Returns:
        `Minimum`.

    Raises:
        InputError: strains that are not symmetric, finite, linearly independent 3×3 matrices, or a cell
            without three periodic directions; a pressure that is not one finite number, or on a fixed cell;
            a tolerance or a number of steps that is not positive; params of another potential, or a list that
            does not fit, is stale or has overflowed; unknown species.

    References:
        Blondel et al., NeurIPS 2022, arXiv:2105.15183 (implicit differentiation of an optimum).
    """
    check_goal(strains, pressure, force_tolerance, max_steps)
    if np.ndim(pressure):
        raise InputError(f"pressure = {pressure} eV/Å³ must be one number")
    check_arguments(potential, params, system, neighbors)
    optimizer = fire() if optimizer is None else optimizer
    modes = jnp.asarray(check_modes(strains, neighbors.periodic), system.positions.dtype)
    surface = landscape(potential, params, system, modes, pressure)
    constant = landscape(potential, *lax.stop_gradient((params, system)), modes, lax.stop_gradient(pressure))
    rough = lax.while_loop(
        lambda descent: is_running(descent, force_tolerance, max_steps),
        lambda descent: step(constant, optimizer, descent, force_tolerance, max_steps),
        begin(optimizer, lax.stop_gradient(system), len(modes), neighbors),
    )
    neighbors, n_steps = rough.neighbors, rough.n_steps

    def tethered(point: Point) -> Point:
        """The gradient, plus that of springs in directions in which the energy is constant."""
        slope = jax.grad(surface.enthalpy)(point, neighbors)
        displacements = point.positions - rough.point.positions
        return slope._replace(positions=slope.positions + tether(system, displacements))

    point = stationary_point(tethered, rough.point)
    relaxed = surface.deformed(point)
    neighbors = update(relaxed, neighbors)
    largest = largest_norm(jax.grad(constant.enthalpy)(lax.stop_gradient(point), neighbors))
    status = check(relaxed, neighbors, rough.status, n_steps, stale=False)
    status = status.raise_flag(Flag.NON_FINITE, ~jnp.isfinite(largest), n_steps)
    status = status.raise_flag(Flag.NOT_CONVERGED, largest > force_tolerance, n_steps)
    energy = potential.apply(params, relaxed, neighbors)
    return Minimum(relaxed, neighbors, energy, largest, n_steps, status)
