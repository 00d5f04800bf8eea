"""Constant temperature: Nosé–Hoover chains."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_integer
from difmd.integrators.base import ForceFunction, Integrator, MDState, check_bath, start
from difmd.integrators.momenta import degrees_of_freedom, kinetic_energy
from difmd.integrators.schedule import Scalar, Schedule, at, is_ramp
from difmd.integrators.velocity_verlet import verlet
from difmd.system import System
from difmd.units import KB

# Weights of a Suzuki–Yoshida splitting of half a step, of fourth order.
_PART = 1 / (4 - 4 ** (1 / 3))
_PARTS = (_PART, _PART, 1 - 4 * _PART, _PART, _PART)


class Chain(NamedTuple):
    """Positions η and velocities dη/dt of thermostats; the first acts on momenta, others on the previous."""

    positions: Float[Array, "thermostats"]
    velocities: Float[Array, "thermostats"]


def nose_hoover(
    *, dt: Scalar, temperature: Scalar | Schedule, time_constant: Scalar, length: int = 3
) -> Integrator:
    """Nosé–Hoover chain: deterministic dynamics in the canonical ensemble.

    A time-reversible splitting: half a step of the chain, velocity Verlet, half a step of the chain. U + K +
    `reservoir`, the energy of the chain, is constant up to the error of the step. The masses of thermostats
    are Q₁ = N_f k_BT τ² and Q_k = k_BT τ², with N_f `degrees_of_freedom`. Small or harmonic systems are
    sampled poorly, unlike with `csvr` and `langevin`.

    Args:
        dt: time step [Å√(amu/eV)].
        temperature: bath temperature T [K], > 0, or a `ramp`, with which there is no `reservoir`.
        time_constant: τ [Å√(amu/eV)], between the shortest vibrational period and `0.1 * units.PS`.
        length: number of thermostats in the chain.

    Returns:
        `Integrator`; one force evaluation a step. Initial momenta must have no net momentum and, without
        periodic directions, no angular momentum, as those of `draw_momenta`.

    Raises:
        InputError: a value that is not positive.

    References:
        Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992), doi:10.1063/1.463940; Martyna, Tuckerman,
        Tobias & Klein, Mol. Phys. 87, 1117 (1996), doi:10.1080/00268979600100761 (the splitting); Yoshida,
        Phys. Lett. A 150, 262 (1990), and Suzuki, Phys. Lett. A 146, 319 (1990) (the weights).
    """
    check_bath(dt, temperature, time_constant)
    check_integer("length", length)
    step = Partial(_step, dt, temperature, time_constant)
    energy = None if is_ramp(temperature) else Partial(_energy, temperature, time_constant)
    return Integrator(init=Partial(_Init(length)), step=step, dt=dt, reservoir=energy)


class _Init(NamedTuple):
    """The initial state, with a chain at rest; a tuple, so that equal ones compile once."""

    length: int

    def __call__(self, system: System, momenta: Array, key: Array, force: ForceFunction) -> MDState:
        zeros = jnp.zeros(self.length, momenta.dtype)
        return start(system, momenta, key, force).replace(bath=Chain(zeros, zeros))


class Bath(NamedTuple):
    """Parameters of a chain: k_BT [eV], τ [Å√(amu/eV)], and the degrees of freedom it acts on."""

    kt: Array
    time_constant: Array
    n_free: Array

    def numbers(self, length: int) -> Float[Array, "thermostats"]:
        """Degrees of freedom that each thermostat acts on."""
        return jnp.ones(length, self.kt.dtype).at[0].set(self.n_free)

    def masses(self, length: int) -> Float[Array, "thermostats"]:
        """Q of each thermostat."""
        return self.numbers(length) * self.time_constant**2 * self.kt


def bath_of(temperature: Any, time_constant: Any, n_free: Array) -> Bath:
    """The `Bath` of a number of degrees of freedom."""
    kt, tau = (jnp.asarray(x, n_free.dtype) for x in (temperature, time_constant))
    return Bath(KB * kt, tau, n_free)


def chain_energy(bath: Bath, chain: Chain) -> Float[Array, ""]:
    """Kinetic and potential energy of the thermostats [eV]."""
    length = len(chain.velocities)
    kinetic = 0.5 * bath.masses(length) * chain.velocities**2
    return jnp.sum(kinetic + bath.kt * bath.numbers(length) * chain.positions)


def _energy(temperature: Any, time_constant: Array, state: MDState) -> Array:
    bath = bath_of(at(temperature, state.step), time_constant, degrees_of_freedom(state.system))
    return chain_energy(bath, state.bath)


def _step(dt: Array, temperature: Any, time_constant: Array, state: MDState, force: ForceFunction) -> MDState:
    bath = bath_of(at(temperature, state.step), time_constant, degrees_of_freedom(state.system))
    return _half(dt, bath, verlet(dt, _half(dt, bath, state), force))


def _half(dt: Array, bath: Bath, state: MDState) -> MDState:
    twice = 2 * kinetic_energy(state.system, state.momenta)
    factor, chain = half_step(dt, bath, state.bath, twice)
    return state.replace(momenta=factor * state.momenta, bath=chain)


def half_step(dt: Array | float, bath: Bath, chain: Chain, twice_kinetic: Array) -> tuple[Array, Chain]:
    """Half a step of a chain: the scale factor of the momenta, and the chain."""
    twice = twice_kinetic
    dtype = twice.dtype
    kt, n_free, length = bath.kt, bath.n_free, len(chain.velocities)
    masses = bath.masses(length)
    factor = jnp.ones((), dtype)
    positions, velocities = chain

    def acceleration(k: int, velocities: list[Array], twice: Array) -> Array:
        if k == 0:
            return (twice - n_free * kt) / masses[0]
        return (masses[k - 1] * velocities[k - 1] ** 2 - kt) / masses[k]

    def kick(k: int, v: list[Array], part: Array) -> None:
        """Half of a part for a thermostat: its acceleration, damped by the next thermostat."""
        change = 0.25 * part * acceleration(k, v, twice)
        if k + 1 == length:
            v[k] = v[k] + change
        else:
            drag = jnp.exp(-0.125 * part * v[k + 1])
            v[k] = drag * (drag * v[k] + change)

    v = [velocities[k] for k in range(length)]
    for weight in _PARTS:
        part = weight * jnp.asarray(dt, dtype)
        for k in reversed(range(length)):
            kick(k, v, part)
        scale = jnp.exp(-0.5 * part * v[0])
        factor, twice = factor * scale, twice * scale**2
        positions = positions + 0.5 * part * jnp.stack(v)
        for k in range(length):
            kick(k, v, part)
    return factor, Chain(positions, jnp.stack(v))
