"""Constant temperature: Langevin dynamics."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array

from difmd._internal.fixed_point import Resolution, rounded
from difmd.errors import check_not_negative, check_positive
from difmd.integrators.base import ForceFunction, Integrator, MDState, Reversible, check_temperature, start
from difmd.integrators.contraction import Bits, bits_for, contract, expand
from difmd.integrators.schedule import Scalar, Schedule, at
from difmd.system import System
from difmd.units import KB


def langevin(*, dt: Scalar, temperature: Scalar | Schedule, friction: Scalar) -> Integrator:
    """Langevin dynamics at constant temperature, BAOAB splitting, weakly second order in `dt`.

    The O part is p ← e^{−γΔt} p + √((1 − e^{−2γΔt}) m k_B T) ξ with ξ ~ N(0, 1). The noise of step n comes
    from the key of the state folded with n, so that interruptions do not change a trajectory.

    Args:
        dt: time step Δt [Å√(amu/eV)]; write `0.5 * units.FS`.
        temperature: bath temperature T [K], > 0, or a `ramp`.
        friction: γ [1/(Å√(amu/eV))], ≥ 0; 0 is velocity Verlet up to rounding. Write `1 / units.PS`.

    Returns:
        `Integrator`; one force evaluation a step.

    Raises:
        InputError: `dt` or `temperature` not positive, or `friction` negative.

    References:
        Leimkuhler & Matthews, AMRX 2013, 34, doi:10.1093/amrx/abs010.
    """
    check_positive("dt", dt, "Å√(amu/eV)")
    check_temperature(temperature)
    check_not_negative("friction", friction, "1/time")
    step = Partial(_step, dt, temperature, friction)
    undoable = Partial(_reversible_step, dt, temperature, friction)
    reversible = Reversible(memory=Partial(_memory, dt, friction), step=undoable)
    return Integrator(init=Partial(start), step=step, dt=dt, reversible=reversible)


def _step(dt: Array, temperature: Any, friction: Array, state: MDState, force: ForceFunction) -> MDState:
    system = state.system
    masses = system.masses[:, None]
    decay = jnp.exp(jnp.asarray(-friction * dt, system.positions.dtype))
    noise = noise_of(decay, temperature, state, state.step)
    momenta = state.momenta + 0.5 * dt * state.forces
    positions = system.positions + 0.5 * dt * momenta / masses
    momenta = decay * momenta + noise
    positions = positions + 0.5 * dt * momenta / masses
    system = system.replace(positions=positions)
    forces = force(system)
    momenta = momenta + 0.5 * dt * forces
    return state.replace(system=system, momenta=momenta, forces=forces, step=state.step + 1)


def noise_of(decay: Array, temperature: Any, state: MDState, step: Array) -> Array:
    """√((1 − c²) m kT) ξ of a step, with the decay c of the momenta; [atoms, 3]."""
    system = state.system
    dtype = system.positions.dtype
    kelvin = at(temperature, step)
    width = jnp.sqrt((1 - decay**2) * system.masses[:, None] * (KB * kelvin))
    # Padding and fixed atoms get no noise.
    width = jnp.where(system.is_mobile[:, None], width, 0).astype(dtype)
    return width * jax.random.normal(jax.random.fold_in(state.key, step), state.momenta.shape, dtype)


def _memory(dt: Array, friction: Array, system: System, resolution: Resolution, n_steps: int) -> Bits:
    is_known = not any(isinstance(x, jax.core.Tracer) for x in (dt, friction))
    lost = float(np.max(1 - np.exp(-np.asarray(friction) * np.asarray(dt)))) if is_known else None
    return bits_for(system.positions.shape, system.positions.dtype, lost, n_steps)


def _reversible_step(
    dt: Array, temperature: Any, friction: Array, state: MDState, bits: Bits, force: ForceFunction,
    sign: Array, resolution: Resolution,
) -> tuple[MDState, Bits]:  # fmt: skip
    system = state.system
    scale = 2.0**resolution.momenta
    decay = jnp.exp(jnp.asarray(-friction * dt, system.positions.dtype))
    lost = 1 - decay
    # A step has the number of its initial state, also backward.
    number = state.step + jnp.where(sign > 0, 0, -1).astype(state.step.dtype)
    noise = rounded(noise_of(decay, temperature, state, number), resolution.momenta)

    def apply_friction(momenta: Array, bits: Bits) -> tuple[Array, Bits]:
        momenta, bits = contract(momenta / scale, lost, bits, number)
        return momenta * scale + noise, bits

    def undo_friction(momenta: Array, bits: Bits) -> tuple[Array, Bits]:
        momenta, bits = expand((momenta - noise) / scale, lost, bits, number)
        return momenta * scale, bits

    def drift(positions: Array, momenta: Array) -> Array:
        return positions + rounded(0.5 * sign * dt * momenta / system.masses[:, None], resolution.positions)

    momenta = state.momenta + rounded(0.5 * sign * dt * state.forces, resolution.momenta)
    positions = drift(system.positions, momenta)
    momenta, bits = lax.cond(sign > 0, apply_friction, undo_friction, momenta, bits)
    system = system.replace(positions=drift(positions, momenta))
    forces = force(system)
    momenta = momenta + rounded(0.5 * sign * dt * forces, resolution.momenta)
    step = state.step + sign.astype(state.step.dtype)
    return state.replace(system=system, momenta=momenta, forces=forces, step=step), bits
