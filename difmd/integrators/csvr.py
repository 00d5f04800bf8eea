"""Constant temperature: stochastic velocity rescaling."""

from __future__ import annotations

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
from difmd.system import System
from difmd.units import KB


def csvr(
    *,
    dt: float | Float[Array, ""],
    temperature: float | Float[Array, ""] | Schedule,
    time_constant: float | Float[Array, ""],
) -> Integrator:
    """Newton's equations, with all momenta scaled after each step so that their energy is canonical.

    The kinetic energy K relaxes to K̄ = ½ N_f k_BT with the time constant τ, and fluctuates as it does in the
    canonical ensemble, with N_f `degrees_of_freedom`. Momenta keep their directions, so that dynamics suffer
    little; with c = e^{−Δt/τ} they are multiplied by α,

        α² = c + (1 − c) K̄/(N_f K) (ξ₁² + Σ_{i=2}^{N_f} ξ_i²) + 2 ξ₁ √(c (1 − c) K̄/(N_f K)).

    The noise of step n comes from the state's key folded with n, so that a trajectory does not depend on
    where it was interrupted. `reservoir` tells the energy that the bath has received.

    Args:
        dt: time step Δt [Å√(amu/eV)]; write `2 * units.FS`.
        temperature: of the bath T [K], > 0.
        time_constant: τ [time], such as `0.1 * units.PS`.

    Returns:
        `Integrator`; one force evaluation a step. The whole must be at rest, neither drifting nor, where
        nothing is periodic, turning, as in momenta that `simulate` draws: its motion is counted as heat.

    Raises:
        InputError: a value that is not positive.

    References:
        Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 014101 (2007), doi:10.1063/1.2408420, equation A7.
    """
    check_bath(dt, temperature, time_constant)
    return Integrator(
        init=jax.tree_util.Partial(_init),
        step=jax.tree_util.Partial(_step, dt, temperature, time_constant),
        dt=dt,
        reservoir=jax.tree_util.Partial(_received),
    )


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
        kept=jnp.exp(jnp.asarray(-dt / time_constant, dtype)),
        temperature=jnp.asarray(kelvin, dtype),
        key=noise_key,
    )
    return state.replace(momenta=factor * state.momenta, bath=state.bath + (1 - factor**2) * before)


def rescaling(
    kinetic: Float[Array, ""],
    *,
    n_free: Float[Array, ""],
    kept: Float[Array, ""],
    temperature: Float[Array, ""],
    key: Array,
) -> Float[Array, ""]:
    """The factor α of all momenta, see `csvr`.

    Args:
        kinetic: K before [eV].
        n_free: degrees of freedom N_f.
        kept: c.
        temperature: T [K].
        key: of the noise.

    References:
        Bussi, Donadio & Parrinello 2007, equation A7; the sign of α as in Bussi & Parrinello, Comput. Phys.
        Commun. 179, 26 (2008), doi:10.1016/j.cpc.2008.01.006.
    """
    first, rest = jax.random.split(key)
    xi = jax.random.normal(first, (), kinetic.dtype)
    # The sum of N_f − 1 squares of normal numbers; safe where there are none.
    shape = jnp.maximum(0.5 * (n_free - 1), 0.5)
    others = jnp.where(n_free > 1, 2 * jax.random.gamma(rest, shape, (), kinetic.dtype), 0)
    ratio = (1 - kept) * (0.5 * KB * temperature) / jnp.maximum(kinetic, jnp.finfo(kinetic.dtype).tiny)
    square = kept + ratio * (xi**2 + others) + 2 * xi * jnp.sqrt(kept * ratio)
    # It is that of one of two roots; which, the sign of ξ₁ + √(c/ratio) tells.
    sign = jnp.where(xi + jnp.sqrt(kept / ratio) >= 0, 1, -1).astype(kinetic.dtype)
    return sign * jnp.sqrt(jnp.maximum(square, 0))
