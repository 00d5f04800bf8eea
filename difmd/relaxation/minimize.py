"""`minimize`: a relaxed structure as a differentiable function of the parameters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from difmd.errors import Flag, InputError, Status
from difmd.neighbors import Neighbors, update
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.relaxation.descent import begin, check_goal, goes_on, step
from difmd.relaxation.fire import fire
from difmd.relaxation.implicit import stationary_point
from difmd.relaxation.optimizer import Optimizer
from difmd.relaxation.point import Point, landscape, longest
from difmd.relaxation.strains import checked_modes, tether
from difmd.system import System


class Minimum(NamedTuple):
    """The result of `minimize`.

    Attributes:
        system: relaxed.
        neighbors: a list that is current for it.
        energy: U [eV].
        largest_force: of all atoms, and of the cell where it is free, as `minimize` says [eV/Å].
        n_steps: taken.
        status: sticky flags; look at it before you use the rest.
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
    """Relax positions, and the cell by given strains; pure, and differentiable in `params`.

    FIRE or L-BFGS, then one step of Newton's method. Derivatives of the result in the
    parameters, the pressure and a cell that is held are those of the minimum itself (see
    `gradients.implicit`), not of the way there. The enthalpy is U + P V; where the cell is free its strains
    have coordinates and forces as `relaxation.strains` defines them. Fixed atoms stay where they are; in a
    cell that is free, at their fractional coordinates. No force on them counts.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        system: where to start.
        neighbors: a current list for it, with skin and, if the cell may change, slack.
        strains: modes in which the cell is free: `any_strain()`, `axial_strain()`, `isotropic_strain()`, or
            others; None: the cell is held.
        pressure: P, for a cell that is free [eV/Å³].
        force_tolerance: largest force f of an atom, or of a strain's coordinate, at which to stop [eV/Å];
            stresses are then below f L/V, with the length L of `relaxation.strains`. The Newton step squares
            what is left.
        max_steps: to take at most; `NOT_CONVERGED` tells when they were not enough.
        optimizer: `fire()`, the default, or `lbfgs()`.

    Returns:
        `Minimum`.

    Raises:
        InputError: strains that are not symmetric 3×3 matrices, finite and independent of each other, or of
            a cell without three periodic directions; a pressure that is not one finite number, or on a cell
            that is held; a tolerance or a number of steps that is not positive.
    """
    check_goal(strains, pressure, force_tolerance, max_steps)
    if np.ndim(pressure):
        raise InputError(f"pressure = {pressure} eV/Å³ must be one number")
    optimizer = fire() if optimizer is None else optimizer
    modes = jnp.asarray(checked_modes(strains, neighbors.periodic), system.positions.dtype)
    surface = landscape(potential, params, system, modes, pressure)
    held = landscape(potential, *lax.stop_gradient((params, system)), modes, lax.stop_gradient(pressure))
    rough = lax.while_loop(
        lambda now: goes_on(now, force_tolerance, max_steps),
        lambda now: step(held, optimizer, now, force_tolerance, max_steps),
        begin(optimizer, lax.stop_gradient(system), len(modes), neighbors),
    )
    neighbors, n_steps = rough.neighbors, rough.n_steps

    def tethered(point: Point) -> Point:
        """The gradient, with what it does not determine tied to where it is."""
        slope = jax.grad(surface.enthalpy)(point, neighbors)
        moves = point.positions - rough.point.positions
        return slope._replace(positions=slope.positions + tether(system, moves))

    point = stationary_point(tethered, rough.point)
    found = surface.deformed(point)
    neighbors = update(found, neighbors)
    largest = longest(jax.grad(held.enthalpy)(lax.stop_gradient(point), neighbors))
    status = check(found, neighbors, rough.status, n_steps, stale=False)
    status = status.raise_flag(Flag.NON_FINITE, ~jnp.isfinite(largest), n_steps)
    status = status.raise_flag(Flag.NOT_CONVERGED, largest > force_tolerance, n_steps)
    energy = potential.apply(params, found, neighbors)
    return Minimum(found, neighbors, energy, largest, n_steps, status)
