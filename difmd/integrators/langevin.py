"""Constant temperature: Langevin dynamics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd.errors import InputError, check_positive
from difmd.integrators.base import ForceFunction, Integrator, MDState, start
from difmd.units import KB


def langevin(
    *,
    dt: float | Float[Array, ""],
    temperature: float | Float[Array, ""],
    friction: float | Float[Array, ""],
) -> Integrator:
    """Langevin dynamics at constant temperature, BAOAB splitting.

    One force evaluation a step, weakly second order in `dt`. The O part is
    p ← e^{−γΔt} p + √((1 − e^{−2γΔt}) m k_B T) ξ with ξ ~ N(0, 1). The noise of step n comes from the
    state's key folded with n, so a trajectory does not depend on where it was interrupted.

    Args:
        dt: time step Δt [Å√(amu/eV)]; write `0.5 * units.FS`.
        temperature: bath temperature T [K], > 0.
        friction: γ [1/time], ≥ 0; 0 is velocity Verlet up to rounding. Write `1 / units.PS`.

    Returns:
        `Integrator`; its state holds forces [atoms, 3] in eV/Å.

    Raises:
        InputError: `dt` or `temperature` not positive, or `friction` negative.

    References:
        Leimkuhler & Matthews, AMRX 2013, 34, doi:10.1093/amrx/abs010.
    """
    check_positive("dt", dt, "Å√(amu/eV)")
    check_positive("temperature", temperature, "K")
    if not isinstance(friction, jax.core.Tracer) and not (np.asarray(friction) >= 0).all():
        raise InputError(f"friction = {friction} must not be negative")
    step = jax.tree_util.Partial(_step, dt, temperature, friction)
    return Integrator(init=jax.tree_util.Partial(start), step=step, dt=dt)


def _step(dt: Array, temperature: Array, friction: Array, state: MDState, force: ForceFunction) -> MDState:
    system = state.system
    masses = system.masses[:, None]
    dtype = system.positions.dtype
    kept = jnp.exp(jnp.asarray(-friction * dt, dtype))
    width = jnp.sqrt((1 - kept**2) * masses * (KB * temperature))
    # Padding atoms stay where they are.
    width = jnp.where((system.atomic_numbers > 0)[:, None], width, 0).astype(dtype)
    key = jax.random.fold_in(state.key, state.step)
    noise = jax.random.normal(key, state.momenta.shape, dtype)
    momenta = state.momenta + 0.5 * dt * state.forces
    positions = system.positions + 0.5 * dt * momenta / masses
    momenta = kept * momenta + width * noise
    positions = positions + 0.5 * dt * momenta / masses
    system = system.replace(positions=positions)
    forces = force(system)
    return state.replace(
        system=system,
        momenta=momenta + 0.5 * dt * forces,
        forces=forces,
        step=state.step + 1,
    )
