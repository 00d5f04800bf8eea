"""Derivatives of equilibrium averages: along trajectories, and through the distribution of initial states."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, check_positive
from difmd.units import KB


@brief_repr
class EquilibriumGradient(NamedTuple):
    """⟨A⟩ and its derivative in the parameters, with standard errors over replicas.

    Attributes:
        value: ⟨A⟩.
        value_stderr: its standard error.
        gradient: d⟨A⟩/dθ, the sum of the terms that are included; like the params.
        gradient_stderr: its standard error.
        along: ⟨dA/dθ⟩ along the trajectory.
        initial: −β cov(A, ∂U/∂θ) at the initial state.
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
    control: Float[Array, "replicas origins"] | None = None,
) -> EquilibriumGradient:
    """Derivative of an average over trajectories that start in the canonical ensemble.

        d⟨A⟩/dθ = ⟨dA/dθ⟩ − β (⟨A ∂U/∂θ⟩ − ⟨A⟩⟨∂U/∂θ⟩)

    The first term is the derivative of A through the dynamics from a fixed initial state; the second is the
    change of the distribution of initial states, with U and ∂U/∂θ at these. Without the second term the
    gradient is biased; the option serves to show by how much.

    The second term has by far the larger noise but needs no differentiation of a trajectory: it may use every
    time origin of many more, cheaper replicas than the first. A function of the momenta at an origin alone is
    independent of the configuration there, so that its exact covariance with ∂U/∂θ is zero; its sample
    covariance is not, and shares much of the noise of the second term, since a Newtonian trajectory exchanges
    potential and kinetic energy. The control variate subtracts that noise.

    Args:
        values: A for each time origin of each replica; [replicas, origins].
        energy_gradients: ∂U/∂θ at that origin [eV per unit of θ]; pytree of [replicas, origins, ...].
        along: dA/dθ of differentiated replicas; pytree of [samples, ...].
        temperature: of the canonical ensemble [K].
        initial_state_term: include the second term.
        control: the kinetic energy at each origin less its exact mean, or another function of the momenta
            there with mean zero, in any unit; None: no control, as with fewer than 8 replicas.

    Returns:
        `EquilibriumGradient`; errors treat replicas as independent.

    Raises:
        InputError: fewer than two replicas, or a temperature that is not positive.

    References:
        Frenkel & Smit, Understanding Molecular Simulation, 3rd ed. 2023 (canonical averages). Owen, Monte
        Carlo theory, methods and examples, 2013, §8.9 (control variates by regression).
    """
    check_positive("temperature", temperature, "K")
    replicas = values.shape[0]
    if replicas < 2:
        raise InputError(f"{replicas} replica gives no error bar and no unbiased covariance: use two or more")
    # The means are those of the same sample.
    scale = -1.0 / (KB * temperature) * replicas / (replicas - 1)

    def covariance(deviation: Array, slopes: Array) -> Array:
        other = slopes - jnp.mean(slopes, axis=(0, 1), keepdims=True)
        weights = deviation.reshape(*deviation.shape, *([1] * (slopes.ndim - 2)))
        return scale * jnp.mean(weights * other, axis=1)

    def second(slopes: Array) -> tuple[Array, Array]:
        samples = covariance(values - jnp.mean(values), slopes)
        if control is None or replicas < _FEWEST:
            return _mean(samples), _stderr(samples)
        return _with_control(samples, covariance(control, slopes))

    pairs = jax.tree.map(second, energy_gradients)
    initial, initial_stderr = jax.tree.transpose(jax.tree.structure(energy_gradients), None, pairs)
    gradient, stderr = jax.tree.map(_mean, along), jax.tree.map(_stderr, along)
    if initial_state_term:
        gradient = jax.tree.map(jnp.add, gradient, initial)
        stderr = jax.tree.map(jnp.hypot, stderr, initial_stderr)
    per_replica = jnp.mean(values, axis=1)
    return EquilibriumGradient(
        value=_mean(per_replica), value_stderr=_stderr(per_replica), gradient=gradient,
        gradient_stderr=stderr, along=jax.tree.map(_mean, along), initial=initial,
    )  # fmt: skip


# Replicas required to estimate the correlation of a control variate with the samples.
_FEWEST = 8


def _with_control(samples: Array, control: Array) -> tuple[Array, Array]:
    """Mean over replicas and its standard error, by regression on a control of mean zero."""
    n = len(samples)
    middle, centre = (jnp.mean(each, axis=0, keepdims=True) for each in (samples, control))
    x, y = control - centre, samples - middle
    spread = jnp.maximum(jnp.sum(x**2, axis=0, keepdims=True), jnp.finfo(x.dtype).tiny)
    slope = jnp.sum(x * y, axis=0, keepdims=True) / spread
    rest = jnp.sum((y - slope * x) ** 2, axis=0, keepdims=True) / (n - 2)
    variance = rest * (1 / n + centre**2 / spread)
    return (middle - slope * centre)[0], jnp.sqrt(variance)[0]


def _mean(samples: Array) -> Array:
    return jnp.mean(samples, axis=0)


def _stderr(samples: Array) -> Array:
    return jnp.std(samples, axis=0, ddof=1) / jnp.sqrt(samples.shape[0])
