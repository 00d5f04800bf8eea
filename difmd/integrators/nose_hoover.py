"""Constant temperature: Nosé–Hoover chains."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_integer
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
from difmd.integrators.schedule import Schedule, at, is_ramp
from difmd.system import System
from difmd.units import KB

# Parts of half a step, whose errors cancel up to the fourth order.
_PART = 1 / (4 - 4 ** (1 / 3))
_PARTS = (_PART, _PART, 1 - 4 * _PART, _PART, _PART)


class Chain(NamedTuple):
    """Thermostats, the first of which acts on the momenta and each further one on that before it.

    Attributes:
        positions: η; [thermostats].
        velocities: dη/dt [1/time]; [thermostats].
    """

    positions: Float[Array, "thermostats"]
    velocities: Float[Array, "thermostats"]


def nose_hoover(
    *,
    dt: float | Float[Array, ""],
    temperature: float | Float[Array, ""] | Schedule,
    time_constant: float | Float[Array, ""],
    length: int = 3,
) -> Integrator:
    """Deterministic dynamics in the canonical ensemble, with a chain of thermostats.

    A time-reversible splitting: half a step of the chain, velocity Verlet, half a step of the chain. U + K
    and the energy of the chain, `reservoir`, sum to a constant up to the error of the step. The masses of
    the thermostats are Q₁ = N_f k_BT τ² and Q_k = k_BT τ², with N_f `degrees_of_freedom`. Few or harmonic
    ones are not sampled well, unlike with `csvr` and `langevin`.

    Args:
        dt: time step [Å√(amu/eV)].
        temperature: of the bath T [K], > 0, or a `ramp`, with which nothing is conserved: there is no
            `reservoir` then.
        time_constant: τ [time], about the period of what moves fastest up to `0.1 * units.PS`.
        length: thermostats of the chain.

    Returns:
        `Integrator`; one force evaluation a step. The whole must be at rest, neither drifting nor, where
        nothing is periodic, turning, as in momenta that `simulate` draws: its motion is counted as heat.

    Raises:
        InputError: a value that is not positive.

    References:
        Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992), doi:10.1063/1.463940; Martyna, Tuckerman,
        Tobias & Klein, Mol. Phys. 87, 1117 (1996), doi:10.1080/00268979600100761 (the splitting); Yoshida,
        Phys. Lett. A 150, 262 (1990), and Suzuki, Phys. Lett. A 146, 319 (1990) (the parts).
    """
    check_bath(dt, temperature, time_constant)
    check_integer("length", length)
    energy = jax.tree_util.Partial(_energy, temperature, time_constant)
    return Integrator(
        init=jax.tree_util.Partial(_Init(length)),
        step=jax.tree_util.Partial(_step, dt, temperature, time_constant),
        dt=dt,
        reservoir=None if is_ramp(temperature) else energy,
    )


class _Init(NamedTuple):
    """A chain at rest, beside momenta of the temperature; a tuple, so that equal ones compile once."""

    length: int

    def __call__(self, system: System, momenta: Array, key: Array, force: ForceFunction) -> MDState:
        zeros = jnp.zeros(self.length, momenta.dtype)
        return start(system, momenta, key, force).replace(bath=Chain(zeros, zeros))


class Bath(NamedTuple):
    """What a chain acts on, and how.

    Attributes:
        kt: k_BT [eV].
        time_constant: τ [time].
        n_free: degrees of freedom.
    """

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
    """The `Bath` of so many degrees of freedom."""
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


def half_step(dt: Array | float, bath: Bath, chain: Chain, twice: Array) -> tuple[Array, Chain]:
    """Half a step of a chain, in parts.

    Args:
        dt: time step.
        bath: what it acts on.
        chain: before.
        twice: twice the kinetic energy of that [eV].

    Returns:
        The factor of the momenta, and the chain.
    """
    dtype = twice.dtype
    kt, n_free, length = bath.kt, bath.n_free, len(chain.velocities)
    masses = bath.masses(length)
    factor = jnp.ones((), dtype)
    positions, velocities = chain

    def pull(k: int, velocities: list[Array], twice: Array) -> Array:
        """The acceleration of thermostat k."""
        if k == 0:
            return (twice - n_free * kt) / masses[0]
        return (masses[k - 1] * velocities[k - 1] ** 2 - kt) / masses[k]

    def push(k: int, v: list[Array], part: Array) -> None:
        """Half of what a part does to a thermostat: its own pull, dragged by the next one."""
        kick = 0.25 * part * pull(k, v, twice)
        if k + 1 == length:
            v[k] = v[k] + kick
        else:
            drag = jnp.exp(-0.125 * part * v[k + 1])
            v[k] = drag * (drag * v[k] + kick)

    v = [velocities[k] for k in range(length)]
    for weight in _PARTS:
        part = weight * jnp.asarray(dt, dtype)
        for k in reversed(range(length)):
            push(k, v, part)
        scale = jnp.exp(-0.5 * part * v[0])
        factor, twice = factor * scale, twice * scale**2
        positions = positions + 0.5 * part * jnp.stack(v)
        for k in range(length):
            push(k, v, part)
    return factor, Chain(positions, jnp.stack(v))
