"""Weak coupling to a bath: to bring a system to its temperature, not to sample it."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd.integrators.base import (
    ForceFunction,
    Integrator,
    MDState,
    check_bath,
    degrees_of_freedom,
    kinetic_energy,
    start,
)
from difmd.integrators.nve import verlet
from difmd.integrators.schedule import Schedule, at
from difmd.units import KB


def berendsen(
    *,
    dt: float | Float[Array, ""],
    temperature: float | Float[Array, ""] | Schedule,
    time_constant: float | Float[Array, ""],
) -> Integrator:
    """Newton's equations, with all momenta scaled so that the temperature relaxes to that of the bath.

    After each step they are multiplied by √(1 + Δt/τ (T/T_now − 1)). Fluctuations of the kinetic energy are
    suppressed: this samples no ensemble, and energy flows into the slowest motions. Equilibrate with it, and
    then take `csvr`, which costs the same and is canonical.

    Args:
        dt: time step Δt [Å√(amu/eV)].
        temperature: of the bath T [K], > 0.
        time_constant: τ [time], at least `dt`.

    Returns:
        `Integrator`; one force evaluation a step.

    Raises:
        InputError: a value that is not positive.

    Warns:
        UserWarning: always.

    References:
        Berendsen et al., J. Chem. Phys. 81, 3684 (1984), doi:10.1063/1.448118; Harvey, Tan & Cheatham, J.
        Comput. Chem. 19, 726 (1998) (what goes wrong).
    """
    check_bath(dt, temperature, time_constant)
    warnings.warn(
        "berendsen() samples no ensemble: use it to equilibrate only, and csvr() for averages", stacklevel=2
    )
    return Integrator(
        init=jax.tree_util.Partial(start),
        step=jax.tree_util.Partial(_step, dt, temperature, time_constant),
        dt=dt,
    )


def _step(dt: Array, temperature: Any, time_constant: Array, state: MDState, force: ForceFunction) -> MDState:
    kelvin = at(temperature, state.step)
    state = verlet(dt, state, force)
    wanted = 0.5 * degrees_of_freedom(state.system) * (KB * kelvin)
    ratio = wanted / jnp.maximum(kinetic_energy(state.system, state.momenta), 1e-30)
    # A system that is far too cold is not heated more than twofold in a step.
    square = jnp.clip(1 + dt / time_constant * (ratio - 1), 0, 4)
    return state.replace(momenta=jnp.sqrt(square).astype(state.momenta.dtype) * state.momenta)
