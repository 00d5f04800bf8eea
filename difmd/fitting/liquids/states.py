"""Configurations that represent the canonical ensemble of a state point: simulated now, or reweighted."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd.fitting.liquids.dynamics import Production
from difmd.fitting.liquids.replicas import Checked, first_replica
from difmd.fitting.liquids.sampling import Sampling
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.sensitivity.reweighting import over_states, reweighted
from difmd.simulation.replay import replay_on_overflow
from difmd.system import System
from difmd.units import KB

# Every so many frames of a trajectory count as a state: consecutive frames are strongly correlated.
_STRIDE = 5


class States(NamedTuple):
    """Weighted configurations of all replicas.

    Attributes:
        positions: [Å]; [replicas, states, atoms, 3].
        weights: of each state, with sum 1; [replicas, states].
        energy_gradients: ∂U/∂θ of each, a pytree of [replicas, states, ...], or None.
        effective: n_eff/n; 1 where the states were simulated with the current parameters.
    """

    positions: Float[Array, "replicas states atoms 3"]
    weights: Float[Array, "replicas states"]
    energy_gradients: Any
    effective: float = 1.0


class Stored(NamedTuple):
    """States [replicas, states, ...] for reuse, with U [eV] at the parameters of their simulation."""

    systems: System
    energies: Array


class Average(NamedTuple):
    """An average over states, with errors from the scatter of replicas; of one number without the axis.

    Attributes:
        value: ⟨A⟩; [numbers].
        stderr: its standard error; [numbers].
        gradient: −β cov(A, ∂U/∂θ); like the params with a leading axis [numbers]; None without ∂U/∂θ.
        gradient_stderr: its standard error, as above.
    """

    value: Float[Array, "numbers"] | float
    stderr: Float[Array, "numbers"] | float
    gradient: Any
    gradient_stderr: Any


def states_of(production: Production) -> States:
    """Every fifth frame of trajectories, with equal weights."""
    positions = production.positions[:, ::_STRIDE]
    shape = positions.shape[:2]
    weights = jnp.full(shape, 1 / (shape[0] * shape[1]), positions.dtype)
    slopes = jax.tree.map(lambda x: x[:, ::_STRIDE], production.energy_gradients)
    return States(positions, weights, slopes)


def store(production: Production, systems: System) -> Stored:
    """The states of trajectories of these replicas."""
    return Stored(states_like(systems, production.positions[:, ::_STRIDE]), production.energies[:, ::_STRIDE])


def states_like(systems: System, positions: Float[Array, "replicas states atoms 3"]) -> System:
    """A batch [replicas, states, ...] of configurations of each replica."""
    repeated = jax.tree.map(lambda x: jnp.repeat(x[:, None], positions.shape[1], axis=1), systems)
    return repeated.replace(positions=positions)


def n_stored(sampling: Sampling) -> int:
    """States of each replica that `store` returns."""
    return -(-sampling.n_frames // _STRIDE)


def reweighted_states(
    potential: Potential, params: Params, stored: Stored, neighbors: Neighbors, *, temperature: float
) -> States:
    """Stored states with weights and ∂U/∂θ at new parameters and a temperature [K] (host).

    They are weighted by `sensitivity.reweighted`; look at `effective` before using them. The one neighbour
    list grows where a state needs more capacity, with a `SimulationError` if it still overflows in the end.
    """
    shape = stored.energies.shape
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stored.systems)
    result, _, _ = replay_on_overflow(
        lambda lists: _energies(potential, params, flat, lists), first_replica(flat), neighbors
    )
    energies, slopes = result.value
    log_sampled = -stored.energies.reshape(-1) / (KB * temperature)
    _, weights, effective = reweighted((), energies, log_sampled, temperature=temperature)
    slopes = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), slopes)
    return States(stored.systems.positions, weights.reshape(shape), slopes, float(effective))


@jax.jit
def average(
    samples: Float[Array, "replicas states numbers"],
    weights: Float[Array, "replicas states"],
    energy_gradients: Any,
    temperature: float | Array,
) -> Average:
    """⟨A⟩ and −β cov(A, ∂U/∂θ) over weighted states, with errors from the scatter of replicas.

    To first order a replica shifts an average by D = Σ w (A − ⟨A⟩) over its states, and n replicas give the
    variance n/(n − 1) Σ D². Weights add up to 1; ∂U/∂θ is a pytree of [replicas, states, ...], or None for no
    gradient; the temperature is in K.
    """
    unbiased = len(samples) / (len(samples) - 1)

    def error(shifts: Array) -> Array:
        return jnp.sqrt(unbiased * jnp.sum(shifts**2, axis=0))

    mean = jnp.tensordot(weights, samples, 2)
    deviations = samples - mean[None, None]
    stderr = error(jnp.einsum("rs,rsb->rb", weights, deviations))

    def covariance(slope: Array) -> tuple[Array, Array]:
        deviation = slope - jnp.tensordot(weights, slope, 2)[None, None]
        flat = deviation.reshape(*deviation.shape[:2], -1)
        # Unbiased: the means are those of the same sample.
        parts = -unbiased / (KB * temperature) * jnp.einsum("rs,rsb,rsk->rbk", weights, deviations, flat)
        total = jnp.sum(parts, axis=0)
        shares = jnp.sum(weights, axis=1)[:, None, None]
        shape = (samples.shape[2], *slope.shape[2:])
        return total.reshape(shape), error(parts - shares * total[None]).reshape(shape)

    leaves, tree = jax.tree.flatten(energy_gradients)
    both = [covariance(leaf) for leaf in leaves]
    gradient, gradient_stderr = (jax.tree.unflatten(tree, [x[k] for x in both]) for k in (0, 1))
    return Average(mean, stderr, gradient, gradient_stderr)


@functools.partial(jax.jit, static_argnums=0)
def _energies(potential: Potential, params: Params, systems: System, neighbors: Neighbors) -> Checked:
    def both(system: System, current: Neighbors) -> tuple[Array, Any]:
        return jax.value_and_grad(potential.apply)(params, system, current)

    return Checked(*over_states(both, systems, neighbors))
