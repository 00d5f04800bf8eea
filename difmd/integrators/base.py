"""The `Integrator` protocol and the state that integrators carry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from difmd._internal.argument_checks import check_key
from difmd._internal.fixed_point import Resolution
from difmd.errors import InputError, check_not_negative, check_positive
from difmd.integrators.schedule import Schedule, values_of
from difmd.system import System, check_system
from difmd.units import KB

ForceFunction: TypeAlias = Callable[[System], Float[Array, "atoms 3"]]


@dataclasses.dataclass(frozen=True)
class Forces:
    """A force function that can tell the virial as well, which barostats need. None acts on fixed atoms.

    Attributes:
        alone: `alone(system)` → forces [eV/Å]; [atoms, 3].
        with_virial: `with_virial(system)` → forces, and −∂U/∂strain [eV]; [3, 3].
    """

    alone: Callable[[System], Array]
    with_virial: Callable[[System], tuple[Array, Array]]

    def __call__(self, system: System) -> Array:
        """The forces, zero on fixed atoms."""
        return on_mobile(system, self.alone(system))


def on_mobile(system: System, vectors: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
    """Forces or momenta, with those of fixed atoms zero."""
    return vectors if system.fixed is None else jnp.where(system.fixed[:, None], 0, vectors)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MDState:
    """A point of a trajectory.

    Attributes:
        system: positions, masses, cell.
        momenta: [amu Å/(Å√(amu/eV))]; [atoms, 3].
        forces: at these positions [eV/Å]; [atoms, 3].
        key: for integrators that draw noise.
        step: steps done; int32 [].
        bath: what a thermostat or barostat carries along, a pytree; () for integrators without.
        virial: −∂U/∂strain at these positions [eV]; [3, 3]. None for integrators without a barostat.
    """

    system: System
    momenta: Float[Array, "*batch atoms 3"]
    forces: Float[Array, "*batch atoms 3"]
    key: Key[Array, "*batch"]
    step: Int[Array, "*batch"]
    bath: Any = ()
    virial: Float[Array, "*batch 3 3"] | None = None

    def replace(self, **changes: Any) -> MDState:
        """A copy with some fields replaced, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


class Reversible(NamedTuple):
    """A step on a grid that is undone, bit for bit, by the same step with the other sign.

    Attributes:
        memory: `memory(system, resolution, n_steps)`, a pytree of fixed size that keeps what so many steps
            would forget; empty for dynamics that forget nothing.
        step: `step(state, memory, force, sign, resolution) -> state, memory` for a sign of 1 or −1. State,
            cell and forces are on the grids of the resolution, or nothing is promised.
    """

    memory: Callable[[System, Resolution, int], Any]
    step: Callable[[MDState, Any, ForceFunction, Array, Resolution], tuple[MDState, Any]]


class Integrator(NamedTuple):
    """A way to step, as a pair of pure functions that is itself a pytree.

    The functions are `jax.tree_util.Partial`s, `Partial(step, dt, temperature)`, and their numbers (dt,
    temperature …) are leaves: changing one does not recompile, and an integrator can be mapped over
    replicas and differentiated.

    Attributes:
        init: `init(system, momenta, key, force) -> MDState`.
        step: `step(state, force) -> MDState`, one time step.
        dt: time step [Å√(amu/eV)].
        reversible: the same on a grid of numbers, so that it can be undone bit for bit; None where nobody
            knows how.
        reservoir: `reservoir(state)`, energy that baths have received [eV], so that U + K + reservoir is
            constant but for the error of the steps; None where it is not kept.
    """

    init: Callable[[System, Array, Array, ForceFunction], MDState]
    step: Callable[[MDState, ForceFunction], MDState]
    dt: Any
    reversible: Reversible | None = None
    reservoir: Callable[[MDState], Array] | None = None


def check_integrator(integrator: Any) -> None:
    """Refuse what is no `Integrator`.

    Raises:
        InputError: naming its type.
    """
    if not isinstance(integrator, Integrator):
        raise InputError(
            f"integrator is of type {type(integrator).__name__}: give what velocity_verlet(dt=...), "
            "langevin(...) or another factory returned"
        )


def check_momenta(momenta: Any, system: System) -> None:
    """Refuse momenta of another shape or precision than the positions; traced ones are known, too.

    Raises:
        InputError: naming both.
    """
    if not (hasattr(momenta, "shape") and hasattr(momenta, "dtype")):
        raise InputError(f"momenta are a {type(momenta).__name__}: give an array [*replicas, atoms, 3]")
    if momenta.shape != system.positions.shape:
        raise InputError(
            f"momenta {list(momenta.shape)} and positions {list(system.positions.shape)} differ in shape"
        )
    own, expected = (jax.dtypes.canonicalize_dtype(x.dtype) for x in (momenta, system.positions))
    if own != expected:
        raise InputError(
            f"momenta are {own}, but positions {expected}: give momenta.astype(system.positions.dtype)"
        )


def check_state(integrator: Integrator, state: MDState) -> None:
    """Refuse a state that is none of this integrator, by shapes; traced ones are known, too.

    Raises:
        InputError: no integrator, a system or momenta that do not fit, or another bath.
    """
    check_integrator(integrator)
    check_system(state.system)
    check_momenta(state.momenta, state.system)
    expected = state_shapes(integrator.init, state.system)
    # Forces at the start of `simulate` are yet to be found, and their virial with them.
    for name in ("bath", "virial"):
        own, other = getattr(state, name), getattr(expected, name)
        shapes = [jax.tree.map(np.shape, x) for x in (own, other)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"the {name} of this state is not that of the integrator: begin with one of this integrator, "
                "from its positions and momenta"
            )


def state_shapes(init: Callable[..., MDState], system: System) -> MDState:
    """Shapes and dtypes of the state at step 0 that the `init` of an integrator makes, of replicas, too."""
    force = Forces(lambda system: system.positions, lambda system: (system.positions, system.cell))

    def one(system: System, key: Array) -> MDState:
        return init(system, system.positions, key, force)

    def begin(system: System) -> MDState:
        key = jax.random.key(0)
        if system.positions.ndim == 2:
            return one(system, key)
        return jax.vmap(one)(system, jax.random.split(key, len(system.positions)))

    return jax.eval_shape(begin, system)


def start(system: System, momenta: Array, key: Array, force: ForceFunction) -> MDState:
    """The state at step 0, where fixed atoms have no momentum."""
    momenta = on_mobile(system, momenta)
    return MDState(system=system, momenta=momenta, forces=force(system), key=key, step=jnp.int32(0))


def start_with_virial(system: System, momenta: Array, key: Array, force: Any) -> MDState:
    """The state at step 0 of dynamics with a barostat.

    Raises:
        InputError: a force function that does not know the virial, or fixed atoms.
    """
    if system.fixed is not None:
        raise InputError("a barostat moves all atoms with the cell: fix none, or hold the cell")
    found, virial = virial_of(force)(system)
    return MDState(system=system, momenta=momenta, forces=found, key=key, step=jnp.int32(0), virial=virial)


def virial_of(force: Any) -> Callable[[System], tuple[Array, Array]]:
    """The function of a force function that tells the virial.

    Raises:
        InputError: there is none.
    """
    if not isinstance(force, Forces):
        raise InputError(
            "a barostat needs the virial: give a difmd.integrators.Forces, as rollout and simulate do"
        )
    return force.with_virial


def draw_momenta(
    key: Key[Array, ""], system: System, temperature: Float[Array, ""] | float
) -> Float[Array, "atoms 3"]:
    """Momenta of the Maxwell–Boltzmann distribution, at rest as a whole.

    Drawn from the canonical distribution conditioned on what isolated dynamics keep at zero: the total
    momentum, and where no direction is periodic the angular momentum. Neither is kept, nor removed, where
    atoms are fixed. Each of the `degrees_of_freedom` has ½kT; a molecule of three atoms and more on a line
    has one besides, until it bends.

    Args:
        key: JAX key.
        system: gives masses, and positions for the angular momentum; padding and fixed atoms get zero.
        temperature: [K].

    Returns:
        Momenta [amu Å/(Å√(amu/eV))]; [atoms, 3].

    Raises:
        InputError: a temperature that is negative or not finite, no key, or no system.

    References:
        Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, §5.7.3.
    """
    check_key(key)
    check_system(system)
    check_not_negative("temperature", temperature, "K")
    masses = jnp.where(system.is_mobile, system.masses, 0)[:, None]
    noise = jax.random.normal(key, system.positions.shape, system.positions.dtype)
    momenta = jnp.sqrt(masses * KB * temperature) * noise
    # Conditioning a normal distribution on linear functions is to project on where they vanish.
    at_rest = remove_drift(momenta, masses)
    still = jnp.where(jnp.any(system.pbc), at_rest, remove_rotation(at_rest, system.positions, masses))
    return still if system.fixed is None else jnp.where(system.holds_atoms, momenta, still)


def remove_drift(
    momenta: Float[Array, "atoms 3"], masses: Float[Array, "atoms 1"]
) -> Float[Array, "atoms 3"]:
    """Take the velocity of the centre of mass out; atoms of zero mass keep zero momentum."""
    return momenta - masses * jnp.sum(momenta, axis=0, keepdims=True) / jnp.sum(masses)


def remove_rotation(
    momenta: Float[Array, "atoms 3"], positions: Float[Array, "atoms 3"], masses: Float[Array, "atoms 1"]
) -> Float[Array, "atoms 3"]:
    """Take the rotation about the centre of mass out: p − m ω × r with ω = I⁻¹ L.

    It is the projection on what is orthogonal, in coordinates weighted by √m, to the rotations about x, y and
    z. A molecule on a line has two of them, and an atom none.

    Args:
        momenta: with the centre of mass at rest; [atoms, 3].
        positions: [Å]; [atoms, 3].
        masses: 0 for what does not count, and has no momentum [amu]; [atoms, 1].

    Returns:
        Momenta without angular momentum; [atoms, 3].
    """
    r = positions - jnp.sum(masses * positions, axis=0, keepdims=True) / jnp.sum(masses)
    roots = jnp.sqrt(masses)
    weighted = momenta / jnp.where(masses > 0, roots, 1)
    size = jnp.sum(masses * r**2)
    found: list[Array] = []
    # Gram and Schmidt, and not an inverse: of the inertia of a line in space rounding leaves nothing.
    for axis in jnp.eye(3, dtype=r.dtype):
        turn = roots * jnp.cross(axis[None], r)
        for other in 2 * found:
            turn = turn - jnp.vdot(other, turn) * other
        square = jnp.vdot(turn, turn)
        is_new = square > 10 * jnp.finfo(r.dtype).eps * size
        found.append(jnp.where(is_new, turn, 0) / jnp.sqrt(jnp.where(is_new, square, 1)))
        weighted = weighted - jnp.vdot(found[-1], weighted) * found[-1]
    return roots * weighted


def kinetic_energy(system: System, momenta: Any) -> Any:
    """Kinetic energy Σ p²/2m, traced or on the host.

    Args:
        system: gives the masses.
        momenta: [amu Å/(Å√(amu/eV))]; [*frames, *replicas, atoms, 3].

    Returns:
        [eV]; [*frames, *replicas]: NumPy in float64 for momenta in NumPy, otherwise a JAX array.
    """
    if isinstance(momenta, np.ndarray):
        masses = np.asarray(system.masses, np.float64)[..., None]
        return 0.5 * np.sum(momenta.astype(np.float64) ** 2 / masses, axis=(-1, -2))
    return 0.5 * jnp.sum(momenta**2 / system.masses[..., None], axis=(-1, -2))


def degrees_of_freedom(system: System) -> Float[Array, ""]:
    """Of atoms that are at rest as a whole; at least 1.

    3N − 3 in a periodic cell. Where no direction is periodic 3N − 6, of two atoms 1, as the angular momentum
    is zero as well: linear molecules of more atoms bend as they move, and then have no more. 3 for each atom
    that moves where some are fixed. Padding is left out.
    """
    n_atoms = jnp.sum(system.is_mobile, dtype=system.positions.dtype)
    rotations = jnp.where(n_atoms == 2, 2, jnp.where(n_atoms > 2, 3, 0)).astype(n_atoms.dtype)
    held = 3 + jnp.where(jnp.any(system.pbc), 0, rotations)
    if system.fixed is not None:
        held = jnp.where(system.holds_atoms, 0, held)
    return jnp.maximum(3 * n_atoms - held, 1)


def check_bath(dt: Any, temperature: Any, time_constant: Any) -> None:
    """Refuse settings of a thermostat that are not positive.

    Raises:
        InputError: naming the value.
    """
    check_positive("dt", dt, "Å√(amu/eV)")
    check_temperature(temperature)
    check_positive("time_constant", time_constant, "Å√(amu/eV)")


def check_temperature(temperature: Any) -> None:
    """Refuse a temperature of a bath, or a `ramp` of such, that is not positive.

    Raises:
        InputError: naming the value.
    """
    check_positive("temperature", values_of(temperature), "K")
    if isinstance(temperature, Schedule) and temperature.values.ndim != 1:
        raise InputError(
            f"temperature is a ramp to values of shape {list(temperature.values.shape[1:])}: give numbers"
        )
