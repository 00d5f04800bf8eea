"""The weak-coupling thermostat of Berendsen, for equilibration only."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from difmd.integrators.base import ForceFunction, Integrator, MDState, check_bath, start
from difmd.integrators.momenta import degrees_of_freedom, kinetic_energy
from difmd.integrators.schedule import Scalar, Schedule, at
from difmd.integrators.velocity_verlet import verlet
from difmd.units import KB


def berendsen(*, dt: Scalar, temperature: Scalar | Schedule, time_constant: Scalar) -> Integrator:
    """Berendsen thermostat: momenta are rescaled so that the temperature relaxes to that of the bath.

    After each step they are multiplied by √(1 + Δt/τ (T/T_now − 1)). This samples no ensemble, and transfers
    energy into the slowest motions. Use it to equilibrate only; `csvr` costs the same and is canonical.

    Args:
        dt: time step Δt [Å√(amu/eV)].
        temperature: bath temperature T [K], > 0, or a `ramp`.
        time_constant: τ [Å√(amu/eV)], at least `dt`.

    Returns:
        `Integrator`; one force evaluation a step.

    Raises:
        InputError: a value that is not positive.

    Warns:
        UserWarning: always.

    References:
        Berendsen et al., J. Chem. Phys. 81, 3684 (1984), doi:10.1063/1.448118; Harvey, Tan & Cheatham, J.
        Comput. Chem. 19, 726 (1998) (artefacts).
    """
    check_bath(dt, temperature, time_constant)
    warnings.warn("berendsen() samples no ensemble: use it to equilibrate, csvr() for averages", stacklevel=2)
    return Integrator(init=Partial(start), step=Partial(_step, dt, temperature, time_constant), dt=dt)


def _step(dt: Array, temperature: Any, time_constant: Array, state: MDState, force: ForceFunction) -> MDState:
    kelvin = at(temperature, state.step)
    state = verlet(dt, state, force)
    target = 0.5 * degrees_of_freedom(state.system) * (KB * kelvin)
    ratio = target / jnp.maximum(kinetic_energy(state.system, state.momenta), 1e-30)
    # Momenta at most double in a step, however cold the system is.
    square = jnp.clip(1 + dt / time_constant * (ratio - 1), 0, 4)
    return state.replace(momenta=jnp.sqrt(square).astype(state.momenta.dtype) * state.momenta)
