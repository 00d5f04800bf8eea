"""Derivatives of equilibrium averages: along the trajectory, and through where it starts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd.errors import InputError
from difmd.units import KB


class EquilibriumGradient(NamedTuple):
    """⟨A⟩ and its derivative in the parameters, with standard errors over replicas.

    Attributes:
        value: ⟨A⟩.
        value_stderr: its standard error.
        gradient: d⟨A⟩/dθ, the sum of the terms that are switched on; like the params.
        gradient_stderr: its standard error.
        along: ⟨dA/dθ⟩ along the trajectory.
        initial: −β cov(A, ∂U/∂θ) at the start.
    """

    value: Float[Array, ""]
    value_stderr: Float[Array, ""]
    gradient: Any
    gradient_stderr: Any
    along: Any
    initial: Any


def equilibrium_gradient(
    values: Float[Array, "replicas origins"],
    energy_gradients: Any,
    along: Any,
    *,
    temperature: float | Float[Array, ""],
    initial_state_term: bool = True,
) -> EquilibriumGradient:
    """Derivative of an average over trajectories that start in the canonical ensemble.

        d⟨A⟩/dθ = ⟨dA/dθ⟩ − β (⟨A ∂U/∂θ⟩ − ⟨A⟩⟨∂U/∂θ⟩)

    The first term is the derivative of A through the dynamics at a fixed start; the second is the
    change of the distribution of the starts, U and ∂U/∂θ being taken there. Leaving the second out
    gives a biased gradient; the switch is there to show by how much.

    The second term is by far the noisier but needs no differentiation of a trajectory: it may take
    every time origin of many more, cheaper replicas than the first.

    Args:
        values: A for each time origin of each replica; [replicas, origins].
        energy_gradients: ∂U/∂θ at that origin [eV per unit of θ]; pytree of [replicas, origins, ...].
        along: dA/dθ of differentiated replicas; pytree of [samples, ...].
        temperature: at which the starts were drawn [K].
        initial_state_term: include the second term.

    Returns:
        `EquilibriumGradient`; errors treat replicas as independent.

    Raises:
        InputError: fewer than two replicas.

    References:
        Frenkel & Smit, Understanding Molecular Simulation, 3rd ed. 2023 (canonical averages).
    """
    replicas = values.shape[0]
    if replicas < 2:
        raise InputError(f"{replicas} replica gives no error bar and no unbiased covariance: use two or more")
    # The means are those of the same sample.
    scale = -1.0 / (KB * temperature) * replicas / (replicas - 1)
    deviation = values - jnp.mean(values)

    def covariance(slopes: Array) -> Array:
        other = slopes - jnp.mean(slopes, axis=(0, 1), keepdims=True)
        weights = deviation.reshape(*deviation.shape, *([1] * (slopes.ndim - 2)))
        return scale * jnp.mean(weights * other, axis=1)

    initial = jax.tree.map(covariance, energy_gradients)
    gradient, stderr = jax.tree.map(_mean, along), jax.tree.map(_stderr, along)
    if initial_state_term:
        gradient = jax.tree.map(lambda g, x: g + _mean(x), gradient, initial)
        stderr = jax.tree.map(lambda e, x: jnp.hypot(e, _stderr(x)), stderr, initial)
    per_replica = jnp.mean(values, axis=1)
    return EquilibriumGradient(
        value=_mean(per_replica),
        value_stderr=_stderr(per_replica),
        gradient=gradient,
        gradient_stderr=stderr,
        along=jax.tree.map(_mean, along),
        initial=jax.tree.map(_mean, initial),
    )


def _mean(samples: Array) -> Array:
    return jnp.mean(samples, axis=0)


def _stderr(samples: Array) -> Array:
    return jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(samples.shape[0])
