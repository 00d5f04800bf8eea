"""Constant temperature and pressure: stochastic cell rescaling."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from difmd.errors import check_positive
from difmd.integrators.base import (
    Forces,
    Integrator,
    MDState,
    check_temperature,
    start_with_virial,
    virial_of,
)
from difmd.integrators.cell import allowed, as_tensor, check_barostat, internal_pressure, strained
from difmd.integrators.langevin import noise_of
from difmd.integrators.schedule import Scalar, Schedule, at
from difmd.units import BAR, KB

# Separates the noise of the cell from that of the thermostat in the same step.
_CELL = 0x63656C6C

WATER = 4.5e-5 / BAR
"""Isothermal compressibility of water at 298 K [Å³/eV]; Kell, J. Chem. Eng. Data 20, 97 (1975)."""


def cell_rescaling(
    *,
    dt: Scalar,
    temperature: Scalar | Schedule,
    pressure: Scalar | Float[Array | np.ndarray, "*tensor"] | Schedule,
    friction: Scalar,
    time_constant: Scalar,
    compressibility: Scalar = WATER,
    coupling: str = "isotropic",
) -> Integrator:
    """Stochastic cell rescaling: Langevin dynamics at constant temperature and pressure.

    In each step, between the two halves of the drift of BAOAB, cell and positions are strained by

        ε = (β_T Δt/3τ) (P_int − P) + √(2 k_BT β_T Δt/(3 V τ)) ξ,

    with P_int = (Σ p pᵀ/m + virial)/V, normal numbers ξ on the diagonal of ε and ξ/√2 off the diagonal. The
    weight of a configuration is exp(−(U + PV)/k_BT) V^N; the volume relaxes without oscillations. The
    isotropic coupling uses the mean of the diagonal.

    Args:
        dt: time step Δt [Å√(amu/eV)].
        temperature: T [K], > 0, or a `ramp`.
        pressure: P outside [eV/Å³], `1 * units.BAR`; or a tensor [3, 3], the negative of a stress, for
            solids; or a `ramp`.
        friction: of the Langevin dynamics γ [1/(Å√(amu/eV))], `1 / units.PS`.
        time_constant: relaxation time τ of the volume for this compressibility [Å√(amu/eV)]; 0.5 to 5 ps.
        compressibility: β_T [Å³/eV], which affects the relaxation of the volume, but not its distribution.
            Default: that of water; for a solid use `1 / (bulk modulus)`.
        coupling: "isotropic", "anisotropic" or "triclinic".

    Returns:
        `Integrator`; one evaluation of forces and virial a step. Its state holds the virial.

    Raises:
        InputError: a value that is not positive, an unknown coupling; when run, open directions or fixed
            atoms.

    References:
        Bernetti & Bussi, J. Chem. Phys. 153, 114107 (2020), doi:10.1063/5.0020514 (isotropic); Del Tatto,
        Raiteri, Bernetti & Bussi, Appl. Sci. 12, 1139 (2022), doi:10.3390/app12031139 (anisotropic).
    """
    check_positive("dt", dt, "Å√(amu/eV)")
    check_temperature(temperature)
    check_positive("friction", friction, "1/time")
    check_positive("time_constant", time_constant, "Å√(amu/eV)")
    check_positive("compressibility", compressibility, "Å³/eV")
    check_barostat(pressure, coupling)
    step = Partial(_Step(coupling), dt, temperature, pressure, friction, time_constant, compressibility)
    return Integrator(init=Partial(start_with_virial), step=step, dt=dt)


class _Step(NamedTuple):
    """One step; a tuple, so that equal ones compile once."""

    coupling: str

    def __call__(
        self, dt: Array, temperature: Any, pressure: Any, friction: Array, time_constant: Array,
        compressibility: Array, state: MDState, force: Forces,
    ) -> MDState:  # fmt: skip
        dtype = state.momenta.dtype
        masses = state.system.masses[:, None]
        kelvin = jnp.asarray(at(temperature, state.step), dtype)
        step = jnp.asarray(dt, dtype)

        def drift(state: MDState) -> MDState:
            system = state.system
            moved = system.positions + 0.5 * step * state.momenta / masses
            return state.replace(system=system.replace(positions=moved))

        state = state.replace(momenta=state.momenta + 0.5 * step * state.forces)
        state = drift(state)
        decay = jnp.exp(jnp.asarray(-friction * dt, dtype))
        state = state.replace(momenta=decay * state.momenta + noise_of(decay, kelvin, state, state.step))
        rate = jnp.asarray(compressibility / time_constant, dtype) * step / 3
        outside = as_tensor(at(pressure, state.step), dtype)
        pull = rate * allowed(self.coupling, internal_pressure(state, state.momenta) - outside)
        width = jnp.sqrt(2 * rate * (KB * kelvin) / state.system.volume)
        state = strained(state, pull + width * _noise(self.coupling, state))
        state = drift(state)
        forces, virial = virial_of(force)(state.system)
        momenta = state.momenta + 0.5 * step * forces
        return state.replace(momenta=momenta, forces=forces, virial=virial, step=state.step + 1)


def _noise(coupling: str, state: MDState) -> Float[Array, "3 3"]:
    """Normal numbers for the strains of a coupling, each direction with variance 1; [3, 3]."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), _CELL)
    dtype = state.momenta.dtype
    if coupling == "isotropic":
        # The only direction is (1, 1, 1)/√3.
        return jax.random.normal(key, (), dtype) / jnp.sqrt(jnp.asarray(3, dtype)) * jnp.eye(3, dtype=dtype)
    diagonal = jnp.diag(jax.random.normal(key, (3,), dtype))
    if coupling == "anisotropic":
        return diagonal
    xy, xz, yz = jax.random.normal(jax.random.fold_in(key, 1), (3,), dtype) / jnp.sqrt(jnp.asarray(2, dtype))
    zero = jnp.zeros((), dtype)
    return diagonal + jnp.stack([zero, xy, xz, xy, zero, yz, xz, yz, zero]).reshape(3, 3)
