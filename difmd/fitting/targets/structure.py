"""Radial distribution function of a state point and its derivative in the parameters, from stored states."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd.errors import InputError, Status
from difmd.fitting.liquids.liquid import Production, Sampling, box_length
from difmd.fitting.targets.target import StructureTarget
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.sensitivity.reweighting import over_states, reweighted
from difmd.simulation.replay import replay_on_overflow
from difmd.system import System
from difmd.units import KB

# Time between the frames that are counted, over that between stored ones: these know each other well.
_STRIDE = 5


class Structure(NamedTuple):
    """g(r) of a liquid of one species.

    Attributes:
        g: in the bins of the target; [bins].
        stderr: its standard error over replicas; [bins].
        gradient: dg/dθ = −β cov(g, ∂U/∂θ); like the params with a leading axis [bins]; None where ∂U/∂θ was
            not kept.
        gradient_stderr: its standard error over replicas, likewise.
        effective: n_eff/n of the states; 1 where they were simulated with these parameters.
    """

    g: Float[Array, "bins"]
    stderr: Float[Array, "bins"]
    gradient: Any
    gradient_stderr: Any
    effective: float = 1.0


class Stored(NamedTuple):
    """States that may serve again.

    Attributes:
        systems: [replicas, states, ...].
        energies: U at the parameters that they were simulated with [eV]; [replicas, states].
    """

    systems: System
    energies: Array


def structure_of(target: StructureTarget, done: Production, sampling: Sampling) -> Structure:
    """g(r) of trajectories, and its derivative where they have ∂U/∂θ.

    Raises:
        InputError: a target that reaches farther than half of the box.
    """
    counted = slice(None, None, _STRIDE)
    g = densities(target, done.positions[:, counted], sampling)
    slopes = jax.tree.map(lambda x: x[:, counted], done.energy_gradients)
    alike = jnp.full(g.shape[:2], 1 / (g.shape[0] * g.shape[1]), g.dtype)
    mean, stderr, gradient, gradient_stderr = _averaged(g, alike, slopes, target.temperature)
    return Structure(mean, stderr, gradient, gradient_stderr)


def reweighted_structures(
    targets: Sequence[StructureTarget],
    potential: Potential,
    params: Params,
    stored: Stored,
    neighbors: Neighbors,
    sampling: Sampling,
) -> list[Structure]:
    """g(r) at new parameters from states of others, see `sensitivity.reweighting`.

    Args:
        targets: bins, of one temperature.
        potential: the energy model.
        params: the new parameters.
        stored: states.
        neighbors: one list; it is made larger where they need that.
        sampling: size of the box.

    Returns:
        A structure for each target.

    Raises:
        SimulationError: a list that would not stop growing.
    """
    energies, slopes = energies_and_gradients(potential, params, stored.systems, neighbors)
    temperature = targets[0].temperature
    flat = reweighted(
        (),
        energies.reshape(-1),
        -stored.energies.reshape(-1) / (KB * temperature),
        temperature=temperature,
    )
    weights = flat.weights.reshape(energies.shape)
    found = []
    for target in targets:
        g = densities(target, stored.systems.positions, sampling)
        mean, stderr, gradient, gradient_stderr = _averaged(g, weights, slopes, temperature)
        found.append(Structure(mean, stderr, gradient, gradient_stderr, float(flat.effective)))
    return found


@jax.jit
def _averaged(
    g: Float[Array, "replicas states bins"],
    weights: Float[Array, "replicas states"],
    slopes: Any,
    temperature: float | Array,
) -> tuple[Array, Array, Any, Any]:
    """⟨g⟩ and −β cov(g, ∂U/∂θ), with the errors that the spread of replicas makes.

    To first order a replica moves an average by D = Σ w (A − ⟨A⟩) over its states, and n replicas give the
    variance n/(n − 1) Σ D².
    """
    n = g.shape[0]
    unbiased = n / (n - 1)

    def error(moves: Array) -> Array:
        return jnp.sqrt(unbiased * jnp.sum(moves**2, axis=0))

    mean = jnp.tensordot(weights, g, 2)
    apart = g - mean[None, None]
    g_error = error(jnp.einsum("rs,rsb->rb", weights, apart))

    def covariance(slope: Array) -> tuple[Array, Array]:
        deviation = slope - jnp.tensordot(weights, slope, 2)[None, None]
        flat = deviation.reshape(*deviation.shape[:2], -1)
        # The means are those of the same replicas.
        of_each = -unbiased / (KB * temperature) * jnp.einsum("rs,rsb,rsk->rbk", weights, apart, flat)
        total = jnp.sum(of_each, axis=0)
        shares = jnp.sum(weights, axis=1)[:, None, None]
        shape = (g.shape[2], *slope.shape[2:])
        return total.reshape(shape), error(of_each - shares * total[None]).reshape(shape)

    leaves, tree = jax.tree.flatten(slopes)
    both = [covariance(leaf) for leaf in leaves]
    gradient, stderr = (jax.tree.unflatten(tree, [x[k] for x in both]) for k in (0, 1))
    return mean, g_error, gradient, stderr


def store(done: Production, systems: System) -> Stored:
    """The states of trajectories of these replicas that `structure_of` counts."""
    return Stored(states_like(systems, done.positions[:, ::_STRIDE]), done.energies[:, ::_STRIDE])


def states_like(systems: System, positions: Float[Array, "replicas states atoms 3"]) -> System:
    """Many configurations of each replica."""
    n_states = positions.shape[1]

    def repeated(x: Array) -> Array:
        return jnp.broadcast_to(x[:, None], (len(x), n_states, *x.shape[1:]))

    return jax.tree.map(repeated, systems).replace(positions=positions)


def n_stored(sampling: Sampling) -> int:
    """States of each replica that `store` keeps."""
    n_frames = -(-sampling.steps(sampling.production_time) // sampling.save_every)
    return -(-n_frames // _STRIDE)


class _Energies(NamedTuple):
    energies: Array
    slopes: Any
    status: Status


def energies_and_gradients(
    potential: Potential, params: Params, systems: System, neighbors: Neighbors
) -> tuple[Array, Any]:
    """U and ∂U/∂θ of stored states, one after the other (host).

    Args:
        potential: the energy model.
        params: its parameters.
        systems: [replicas, states, ...].
        neighbors: one list; it is made larger where they need that.

    Returns:
        [replicas, states], and a pytree of [replicas, states, ...].

    Raises:
        SimulationError: a list that would not stop growing.
    """
    shape = systems.positions.shape[:2]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), systems)
    first = jax.tree.map(lambda x: x[0], flat)
    found, _, _ = replay_on_overflow(
        lambda lists: _energies(potential, params, flat, lists), first, neighbors
    )
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (found.energies, found.slopes))


@functools.partial(jax.jit, static_argnums=0)
def _energies(potential: Potential, params: Params, systems: System, neighbors: Neighbors) -> _Energies:
    def both(system: System, current: Neighbors) -> tuple[Array, Any]:
        return jax.value_and_grad(potential.apply)(params, system, current)

    (energies, slopes), status = over_states(both, systems, neighbors)
    return _Energies(energies, slopes, status)


def densities(
    target: StructureTarget, positions: Float[Array, "replicas frames atoms 3"], sampling: Sampling
) -> Float[Array, "replicas frames bins"]:
    """The g(r) of each frame by itself, in a cubic box.

    Raises:
        InputError: a target that reaches farther than half of the box.
    """
    length = check_reach(target, sampling)
    start = float(target.r[0]) - 0.5 * target.width
    counts = _counts(positions, jnp.asarray(length, positions.dtype), start, target.width, len(target.r))
    n = positions.shape[2]
    edges = start + target.width * np.arange(len(target.r) + 1)
    shells = 4 * np.pi / 3 * np.diff(edges**3)
    ideal = jnp.asarray(n / 2 * n / length**3 * shells, positions.dtype)
    return counts / ideal[None, None]


def check_reach(target: StructureTarget, sampling: Sampling) -> float:
    """The edge of the box [Å].

    Raises:
        InputError: a target that reaches farther than half of it.
    """
    length = box_length(target.density, sampling)
    end = float(target.r[-1]) + 0.5 * target.width
    if end > 0.5 * length:
        raise InputError(
            f"target g(r) reaches to {end:.4g} Å, farther than half of the box of {length:.4g} Å: cut it, or "
            "simulate more atoms"
        )
    return length


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _counts(positions: Array, length: Array, start: float, width: float, n_bins: int) -> Array:
    """Pairs in each bin, of each frame."""
    n = positions.shape[2]
    one, other = np.triu_indices(n, 1)

    def of_frame(r: Array) -> Array:
        square = jnp.zeros(len(one), r.dtype)
        for axis in range(3):
            apart = r[one, axis] - r[other, axis]
            apart = apart - length * jnp.round(apart / length)
            square = square + apart * apart
        place = jnp.floor((jnp.sqrt(square) - start) / width).astype(jnp.int32)
        # Those outside fall into a bin that is cut off.
        inside = jnp.where((place >= 0) & (place < n_bins), place, n_bins)
        return jnp.zeros(n_bins + 1, r.dtype).at[inside].add(1)[:-1]

    flat = positions.reshape(-1, *positions.shape[2:])
    return jax.lax.map(of_frame, flat).reshape(*positions.shape[:2], -1)
