"""Constant energy: velocity Verlet."""

from __future__ import annotations

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from difmd._internal.fixed_point import Resolution, rounded
from difmd.errors import check_positive
from difmd.integrators.base import ForceFunction, Integrator, MDState, Reversible, start
from difmd.integrators.schedule import Scalar
from difmd.system import System


def velocity_verlet(*, dt: Scalar) -> Integrator:
    """Newton's equations by velocity Verlet: symplectic, time-reversible, second order in `dt`.

    p ← p + ½Δt F(r);  r ← r + Δt p/m;  p ← p + ½Δt F(r).

    Args:
        dt: time step Δt [Å√(amu/eV)]; write `2 * units.FS`.

    Returns:
        `Integrator`; one force evaluation a step.

    Raises:
        InputError: `dt` is not positive.

    References:
        Swope et al., J. Chem. Phys. 76, 637 (1982), doi:10.1063/1.442716.
    """
    check_positive("dt", dt, "Å√(amu/eV)")
    reversible = Reversible(memory=Partial(_no_memory), step=Partial(_reversible_step, dt))
    step, reservoir = Partial(verlet, dt), Partial(_zero)
    return Integrator(init=Partial(start), step=step, dt=dt, reversible=reversible, reservoir=reservoir)


def verlet(dt: Array | float, state: MDState, force: ForceFunction) -> MDState:
    """One step."""
    momenta = state.momenta + 0.5 * dt * state.forces
    system = state.system
    system = system.replace(positions=system.positions + dt * momenta / system.masses[:, None])
    forces = force(system)
    momenta = momenta + 0.5 * dt * forces
    return state.replace(system=system, momenta=momenta, forces=forces, step=state.step + 1)


def _zero(state: MDState) -> Array:
    return jnp.zeros((), state.momenta.dtype)


def _no_memory(system: System, resolution: Resolution, n_steps: int) -> tuple[()]:
    return ()


def _reversible_step(
    dt: Array, state: MDState, memory: tuple[()], force: ForceFunction, sign: Array, resolution: Resolution
) -> tuple[MDState, tuple[()]]:
    # Kick, drift, kick is symmetric, and each part changes only variables that it does not depend on.
    dt = sign * dt
    momenta = state.momenta + rounded(0.5 * dt * state.forces, resolution.momenta)
    system = state.system
    displacements = rounded(dt * momenta / system.masses[:, None], resolution.positions)
    system = system.replace(positions=system.positions + displacements)
    forces = force(system)
    momenta = momenta + rounded(0.5 * dt * forces, resolution.momenta)
    step = state.step + sign.astype(state.step.dtype)
    return state.replace(system=system, momenta=momenta, forces=forces, step=step), memory
