"""Averages at new parameters from states sampled at others, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, Status, check_positive
from difmd.neighbors import Neighbors, rebuild
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.sensitivity.arguments import check_rebuildable
from difmd.system import System
from difmd.units import KB

# Tolerance of free energies over kT, in units in the last place, and the largest number of iterations.
_ULPS, _MOST_STEPS = 20, 10_000

# Second eigenvalue of the overlap matrix above which simulations count as disconnected.
_APART = 1 - 1e-4


class Reweighting(NamedTuple):
    """Reuse stored states while they represent the new parameters well enough; see `reweighting`.

    Attributes:
        least_effective: n_eff/n below which to simulate again.
    """

    least_effective: float


def reweighting(*, least_effective: float = 0.5) -> Reweighting:
    """Derivatives of equilibrium averages from stored states, which are reused as long as possible.

    No trajectory is differentiated: an average depends on the parameters through the weights exp(−βU) of its
    states. States are reused at new parameters until the effective sample size falls below
    `least_effective`; then new ones are simulated. This is for averages over configurations, not for
    rollouts.

    Args:
        least_effective: n_eff/n below which to simulate again, in (0, 1]; 1: simulate in every iteration.

    Returns:
        A value for `state_points(reuse=)`.

    Raises:
        InputError: `least_effective` is outside this interval.

    References:
        Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021), doi:10.1038/s41467-021-27241-4 (DiffTRe).
    """
    if not 0 < least_effective <= 1:
        raise InputError(f"least_effective = {least_effective} must lie between 0 and 1")
    return Reweighting(least_effective)


@brief_repr
class Reweighted(NamedTuple):
    """Averages over weighted states.

    Attributes:
        value: ⟨A⟩; like the samples without their leading axis.
        weights: of each state, with sum 1; [samples].
        effective: n_eff/n with Kish's n_eff = 1/Σw².
    """

    value: Any
    weights: Float[Array, "samples"]
    effective: Float[Array, ""]


def reweighted(
    values: Any,
    energies: Float[Array, "samples"],
    log_sampled: Float[Array, "samples"],
    *,
    temperature: float | Float[Array, ""],
) -> Reweighted:
    """Canonical averages over states sampled from another distribution; pure.

        ⟨A⟩ = Σ w A,    w ∝ exp(−βU(θ)) / q.

    With U and A as functions of the parameters the derivative is exact for this sample:
    d⟨A⟩/dθ = ⟨∂A/∂θ⟩ − β cov(A, ∂U/∂θ) with weighted averages.

    Args:
        values: A of each state; pytree of [samples, ...].
        energies: U(θ) of each state, see `energies_of` [eV]; [samples].
        log_sampled: ln q of the sampled distribution, up to a constant: −βU at the parameters of the
            simulation, or `log_mixture` of several; [samples].
        temperature: of the average [K].

    Returns:
        `Reweighted`; look at `effective` before using the rest.

    Raises:
        InputError: a temperature that is not positive, or arrays of different lengths.

    References:
        Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021); Kish, Survey Sampling, 1965 (n_eff).
    """
    check_positive("temperature", temperature, "K")
    if energies.shape != log_sampled.shape:
        raise InputError(f"energies {energies.shape} and log_sampled {log_sampled.shape} must agree")
    weights = jax.nn.softmax(-energies / (KB * temperature) - lax.stop_gradient(log_sampled))
    value = jax.tree.map(lambda a: jnp.tensordot(weights, a, 1), values)
    return Reweighted(value, weights, 1 / (len(weights) * jnp.sum(weights**2)))


def log_mixture(
    reduced: Float[Array, "states samples"], counts: Int[Array, "states"]
) -> Float[Array, "samples"]:
    """Ln q of states pooled from several simulations, by MBAR; pure.

        q(x) = Σ_k N_k exp(f_k − u_k(x)),    f_k = −ln Σ_x exp(−u_k(x)) / q(x).

    Args:
        reduced: u_k = U/kT of every state with θ and T of each simulation; [states, samples].
        counts: N_k, states from each simulation; [states].

    Returns:
        ln q for `reweighted`, [samples]; NaN if the free energies f_k do not converge, or if simulations
        share no states, which leaves f_k undetermined. Its derivative is zero.

    References:
        Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), doi:10.1063/1.2978177 (equation 11); Klimovich,
        Shirts & Mobley, J. Comput.-Aided Mol. Des. 29, 397 (2015), doi:10.1007/s10822-015-9840-9 (overlap).
    """
    reduced = lax.stop_gradient(reduced)
    log_counts = jnp.log(counts.astype(reduced.dtype))

    def log_density(free: Array) -> Array:
        return logsumexp((log_counts + free)[:, None] - reduced, axis=0)

    ulp = jnp.finfo(reduced.dtype).eps

    def continues(now: tuple[Array, Array, Array]) -> Array:
        return (now[1] > _ULPS * ulp) & (now[2] < _MOST_STEPS)

    def step(now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        free = -logsumexp(-reduced - log_density(now[0])[None], axis=1)
        free = free - free[0]
        # Rounding errors of sums over thousands of states scale with their size.
        size = 1 + jnp.max(jnp.abs(free)) + jnp.log(jnp.asarray(reduced.shape[1], free.dtype))
        return free, jnp.max(jnp.abs(free - now[0])) / size, now[2] + 1

    start = jnp.min(reduced, axis=1)
    initial = (start - start[0], jnp.asarray(jnp.inf, reduced.dtype), jnp.int32(0))
    free, change, _ = lax.while_loop(continues, step, initial)
    density = log_density(free)
    # √N_i Σ_x w_i(x) w_j(x) √N_j with the normalised weights of each simulation; its largest eigenvalue is 1,
    # and so is the second if the simulations fall into disconnected groups.
    weights = jnp.exp(free[:, None] - reduced - density[None])
    roots = jnp.sqrt(counts.astype(reduced.dtype))
    overlap = roots[:, None] * (weights @ weights.T) * roots[None]
    is_connected = jnp.asarray(True) if len(counts) == 1 else jnp.linalg.eigvalsh(overlap)[-2] < _APART
    return jnp.where((change <= _ULPS * ulp) & is_connected, density, jnp.nan)


def energies_of(
    potential: Potential, params: Params, systems: System, neighbors: Neighbors
) -> tuple[Float[Array, "samples"], Status]:
    """Energies of stored configurations, one after the other; pure, and differentiable in `params`.

    Args:
        potential: the energy model.
        params: its parameters.
        systems: [samples, ...].
        neighbors: one neighbour list whose capacity suffices for each of them; it is rebuilt for each.

    Returns:
        U [eV], [samples], and the common status, whose step is the index of a sample.

    Raises:
        InputError: systems or a list that do not fit the potential.
    """
    check_rebuildable(potential, params, jax.tree.map(lambda x: x[0], systems), neighbors)
    return over_states(lambda *at: potential.apply(params, *at), systems, neighbors)


def over_states(
    function: Callable[[System, Neighbors], Any], systems: System, neighbors: Neighbors
) -> tuple[Any, Status]:
    """Values of a function of stored configurations and their current lists, as in `energies_of`; pure."""

    @jax.checkpoint
    def evaluate(status: Status, numbered: tuple[Array, System]) -> tuple[Status, Any]:
        number, system = numbered
        current = rebuild(system, neighbors)
        return check(system, current, status, number, stale=False), function(system, current)

    places = jnp.arange(len(systems.positions), dtype=jnp.int32)
    status, values = lax.scan(evaluate, Status.ok(), (places, systems))
    return values, status
