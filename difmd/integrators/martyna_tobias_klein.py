"""Constant temperature and pressure: the barostat of Martyna, Tobias and Klein."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_integer
from difmd._internal.lattice import product
from difmd.errors import check_positive
from difmd.integrators.base import Forces, Integrator, MDState, check_bath, start_with_virial, virial_of
from difmd.integrators.cell import allowed, as_tensor, check_barostat, exponential, kinetic_tensor
from difmd.integrators.momenta import degrees_of_freedom, kinetic_energy
from difmd.integrators.nose_hoover import Bath, Chain, bath_of, chain_energy, half_step
from difmd.integrators.schedule import Scalar, Schedule, at, is_ramp

_FREE = {"isotropic": 1, "anisotropic": 3, "triclinic": 6}


class Piston(NamedTuple):
    """The symmetric strain rate of the cell [1/(Å√(amu/eV))], and the chains of particles and piston."""

    velocity: Float[Array, "3 3"]
    particles: Chain
    cell: Chain


def martyna_tobias_klein(
    *,
    dt: Scalar,
    temperature: Scalar | Schedule,
    pressure: Scalar | Float[Array | np.ndarray, "*tensor"] | Schedule,
    time_constant: Scalar,
    piston_time: Scalar,
    coupling: str = "isotropic",
    length: int = 3,
) -> Integrator:
    """Deterministic dynamics at constant temperature and pressure, with Nosé–Hoover chains.

    With the strain rate v, N_f = 3N − 3 and W = (N_f + 3) k_BT τ_p²/3

        dr/dt = p/m + v r,  dp/dt = F − (v + tr(v)/N_f) p,  dh/dt = h v,
        W dv/dt = V (P_int − P) + (1/N_f) Σ p²/m,

    with chains for particles and cell as in `nose_hoover`, in a time-reversible splitting. U + K +
    `reservoir`, which contains PV and the energies of piston and chains, is constant up to the error of the
    step. Without net momentum the weight of a configuration is exp(−(U + PV)/k_BT) V^(N−1).

    Args:
        dt: time step Δt [Å√(amu/eV)].
        temperature: T [K], > 0, or a `ramp`, with which there is no `reservoir`.
        pressure: P outside [eV/Å³], `1 * units.BAR`; or a tensor [3, 3], the negative of a stress; or a
            `ramp`. There is a `reservoir` for constant, equal components.
        time_constant: τ of the chains [Å√(amu/eV)], `0.1 * units.PS`.
        piston_time: τ_p [Å√(amu/eV)], the period of volume oscillations over 2π, `0.5 * units.PS`.
        coupling: "isotropic", "anisotropic" or "triclinic".
        length: number of thermostats in a chain.

    Returns:
        `Integrator`; one evaluation of forces and virial a step. Its state holds the virial.

    Raises:
        InputError: a value that is not positive, an unknown coupling; when run, open directions or fixed
            atoms.

    References:
        Martyna, Tobias & Klein, J. Chem. Phys. 101, 4177 (1994), doi:10.1063/1.467468; Tuckerman, Alejandre,
        López-Rendón, Jochim & Martyna, J. Phys. A 39, 5629 (2006), doi:10.1088/0305-4470/39/19/S18.
    """
    check_bath(dt, temperature, time_constant)
    check_positive("piston_time", piston_time, "Å√(amu/eV)")
    check_barostat(pressure, coupling)
    check_integer("length", length)
    numbers = (temperature, pressure, time_constant, piston_time)
    step = Partial(_Step(coupling), dt, *numbers)
    reservoir = Partial(_Reservoir(coupling), *numbers) if _conserves(temperature, pressure) else None
    return Integrator(init=Partial(_Init(length)), step=step, dt=dt, reservoir=reservoir)


def _conserves(temperature: Any, pressure: Any) -> bool:
    """Whether the dynamics conserve an energy; assumed for a traced pressure."""
    if is_ramp(temperature) or is_ramp(pressure):
        return False
    if isinstance(pressure, jax.core.Tracer) or np.ndim(pressure) == 0:
        return True
    tensor = np.asarray(pressure)
    return bool(np.all(tensor == tensor[0, 0] * np.eye(3)))


class _Init(NamedTuple):
    """The initial state, with piston and chains at rest; a tuple, so that equal ones compile once."""

    length: int

    def __call__(self, system: Any, momenta: Array, key: Array, force: Forces) -> MDState:
        zeros = jnp.zeros(self.length, momenta.dtype)
        chain = Chain(zeros, zeros)
        piston = Piston(jnp.zeros((3, 3), momenta.dtype), chain, chain)
        return start_with_virial(system, momenta, key, force).replace(bath=piston)


def _baths(
    coupling: str, state: MDState, temperature: Any, time_constant: Any, piston_time: Any
) -> tuple[Bath, Bath, Array]:
    """Baths of particles and cell, and the mass of the piston."""
    n_free = degrees_of_freedom(state.system)
    kelvin = at(temperature, state.step)
    of_cell = jnp.asarray(_FREE[coupling], n_free.dtype)
    particles, cell = (bath_of(kelvin, time_constant, number) for number in (n_free, of_cell))
    piston_time = jnp.asarray(piston_time, n_free.dtype)
    return particles, cell, (n_free + 3) * particles.kt * piston_time**2 / 3


class _Reservoir(NamedTuple):
    """PV, and the energies of piston and chains."""

    coupling: str

    def __call__(
        self, temperature: Any, pressure: Any, time_constant: Array, piston_time: Array, state: MDState
    ) -> Array:
        particles, cell, mass = _baths(self.coupling, state, temperature, time_constant, piston_time)
        outside = as_tensor(at(pressure, state.step), state.momenta.dtype)
        piston = 0.5 * mass * jnp.sum(state.bath.velocity**2)
        work = jnp.trace(outside) / 3 * state.system.volume
        chains = chain_energy(particles, state.bath.particles) + chain_energy(cell, state.bath.cell)
        return piston + work + chains


class _Step(NamedTuple):
    """One step; a tuple, so that equal ones compile once."""

    coupling: str

    def __call__(
        self, dt: Array, temperature: Any, pressure: Any, time_constant: Array, piston_time: Array,
        state: MDState, force: Forces,
    ) -> MDState:  # fmt: skip
        dtype = state.momenta.dtype
        step = jnp.asarray(dt, dtype)
        particles, cell, mass = _baths(self.coupling, state, temperature, time_constant, piston_time)
        outside = as_tensor(at(pressure, state.step), dtype)
        masses = state.system.masses[:, None]
        n_free = particles.n_free

        def thermostats(state: MDState) -> MDState:
            piston: Piston = state.bath
            twice = 2 * kinetic_energy(state.system, state.momenta)
            factor, first = half_step(step, particles, piston.particles, twice)
            slowed, second = half_step(step, cell, piston.cell, mass * jnp.sum(piston.velocity**2))
            bath = Piston(slowed * piston.velocity, first, second)
            return state.replace(momenta=factor * state.momenta, bath=bath)

        def push(state: MDState) -> MDState:
            """Half a step of the piston, driven by the difference of pressures."""
            assert state.virial is not None
            kinetic = kinetic_tensor(state, state.momenta)
            force = kinetic + state.virial - state.system.volume * outside
            force = force + jnp.trace(kinetic) / n_free * jnp.eye(3, dtype=dtype)
            velocity = state.bath.velocity + 0.5 * step * allowed(self.coupling, force) / mass
            return state.replace(bath=state.bath._replace(velocity=velocity))

        def kick(state: MDState) -> MDState:
            """Half a step of the forces, between two quarter steps of the strain of the momenta."""
            v = state.bath.velocity
            drag = v + jnp.trace(v) / n_free * jnp.eye(3, dtype=dtype)
            quarter = exponential(-0.25 * step * drag)
            momenta = product(state.momenta, quarter) + 0.5 * step * state.forces
            return state.replace(momenta=product(momenta, quarter))

        state = kick(push(thermostats(state)))
        half = exponential(0.5 * step * state.bath.velocity)
        system = state.system
        positions = product(product(system.positions, half) + step * state.momenta / masses, half)
        system = system.replace(positions=positions, cell=product(product(system.cell, half), half))
        forces, virial = virial_of(force)(system)
        state = state.replace(system=system, forces=forces, virial=virial)
        return thermostats(push(kick(state))).replace(step=state.step + 1)
