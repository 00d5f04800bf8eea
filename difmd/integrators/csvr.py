"""Constant temperature: stochastic velocity rescaling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from difmd.integrators.base import ForceFunction, Integrator, MDState, check_bath, start
from difmd.integrators.momenta import degrees_of_freedom, kinetic_energy
from difmd.integrators.schedule import Scalar, Schedule, at
from difmd.integrators.velocity_verlet import verlet
from difmd.system import System
from difmd.units import KB


def csvr(*, dt: Scalar, temperature: Scalar | Schedule, time_constant: Scalar) -> Integrator:
    """Canonical sampling by velocity rescaling: velocity Verlet, and a random rescaling after each step.

    The kinetic energy K relaxes to K̄ = ½ N_f k_BT with the time constant τ, and has canonical fluctuations,
    with N_f `degrees_of_freedom`. With c = e^{−Δt/τ} momenta are multiplied by α,

        α² = c + (1 − c) K̄/(N_f K) (ξ₁² + Σ_{i=2}^{N_f} ξ_i²) + 2 ξ₁ √(c (1 − c) K̄/(N_f K)).

    Interruptions do not change the noise. `reservoir` is the energy that the bath has received.

    Args:
        dt: time step Δt [Å√(amu/eV)]; write `2 * units.FS`.
        temperature: bath temperature T [K], > 0, or a `ramp`.
        time_constant: τ [Å√(amu/eV)], such as `0.1 * units.PS`.

    Returns:
        `Integrator`; one force evaluation a step. Initial momenta must have no net momentum and, without
        periodic directions, no angular momentum, as those of `draw_momenta`.

    Raises:
        InputError: a value that is not positive.

    References:
        Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 014101 (2007), doi:10.1063/1.2408420, equation A7.
    """
    check_bath(dt, temperature, time_constant)
    step = Partial(_step, dt, temperature, time_constant)
    return Integrator(init=Partial(_init), step=step, dt=dt, reservoir=Partial(_received))


def _init(system: System, momenta: Array, key: Array, force: ForceFunction) -> MDState:
    return start(system, momenta, key, force).replace(bath=jnp.zeros((), momenta.dtype))


def _received(state: MDState) -> Array:
    return state.bath


def _step(dt: Array, temperature: Any, time_constant: Array, state: MDState, force: ForceFunction) -> MDState:
    noise_key = jax.random.fold_in(state.key, state.step)
    kelvin = at(temperature, state.step)
    state = verlet(dt, state, force)
    before = kinetic_energy(state.system, state.momenta)
    dtype = before.dtype
    factor = rescaling(
        before,
        n_free=degrees_of_freedom(state.system),
        decay=jnp.exp(jnp.asarray(-dt / time_constant, dtype)),
        temperature=jnp.asarray(kelvin, dtype),
        key=noise_key,
    )
    return state.replace(momenta=factor * state.momenta, bath=state.bath + (1 - factor**2) * before)


def rescaling(
    kinetic: Float[Array, ""],
    *,
    n_free: Float[Array, ""],
    decay: Float[Array, ""],
    temperature: Float[Array, ""],
    key: Array,
) -> Float[Array, ""]:
    """The scale factor α of the momenta, see `csvr`, from K, N_f, c and T.

    References:
        Bussi, Donadio & Parrinello 2007, equation A7; the sign of α as in Bussi & Parrinello, Comput. Phys.
        Commun. 179, 26 (2008), doi:10.1016/j.cpc.2008.01.006.
    """
    first, second = jax.random.split(key)
    xi = jax.random.normal(first, (), kinetic.dtype)
    # The sum of the squares of N_f − 1 normal numbers, with safe operands for N_f = 1.
    shape = jnp.maximum(0.5 * (n_free - 1), 0.5)
    others = jnp.where(n_free > 1, 2 * jax.random.gamma(second, shape, (), kinetic.dtype), 0)
    ratio = (1 - decay) * (0.5 * KB * temperature) / jnp.maximum(kinetic, jnp.finfo(kinetic.dtype).tiny)
    square = decay + ratio * (xi**2 + others) + 2 * xi * jnp.sqrt(decay * ratio)
    # The root has the sign of ξ₁ + √(c/ratio).
    sign = jnp.where(xi + jnp.sqrt(decay / ratio) >= 0, 1, -1).astype(kinetic.dtype)
    return sign * jnp.sqrt(jnp.maximum(square, 0))
