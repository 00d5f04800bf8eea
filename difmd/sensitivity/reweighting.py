"""Averages at new parameters from states that were sampled at others, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from difmd.errors import InputError, Status
from difmd.neighbors import Neighbors, rebuild
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.system import System
from difmd.units import KB

# Change of free energies, over kT, in units in the last place; and steps after which they are no solution.
_ULPS, _MOST_STEPS = 20, 10_000

# Eigenvalue of the overlap of simulations above which some of them share no states with the others.
_APART = 1 - 1e-4


class Reweighting(NamedTuple):
    """Reuse stored states as long as they say enough about the new parameters; see `reweighting`.

    Attributes:
        least_effective: share of the states that must count.
    """

    least_effective: float


def reweighting(*, least_effective: float = 0.5) -> Reweighting:
    """Derivatives of equilibrium averages from stored states, and their reuse while they will do.

    No trajectory is differentiated: an average depends on the parameters through the weights exp(−βU) of its
    states. States serve again at new parameters until the effective sample size falls below
    `least_effective`; then new ones are simulated. It serves averages over configurations, and no rollout.

    Args:
        least_effective: n_eff/n below which to simulate again, between 0 and 1; 1: in every iteration.

    Raises:
        InputError: a share outside of these.

    References:
        Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021), doi:10.1038/s41467-021-27241-4 (DiffTRe).
    """
    if not 0 < least_effective <= 1:
        raise InputError(f"least_effective = {least_effective} must lie between 0 and 1")
    return Reweighting(least_effective)


class Reweighted(NamedTuple):
    """Averages over weighted states.

    Attributes:
        value: ⟨A⟩, like one sample.
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
    """Canonical averages of states from another distribution; pure.

        ⟨A⟩ = Σ w A,    w ∝ exp(−βU(θ)) / q.

    With U and A as functions of the parameters the derivative is exact for this sample:
    d⟨A⟩/dθ = ⟨∂A/∂θ⟩ − β cov(A, ∂U/∂θ), averages being weighted.

    Args:
        values: A of each state; pytree of [samples, ...].
        energies: U(θ) of each state, see `energies_of` [eV]; [samples].
        log_sampled: ln q, of the distribution that the states are from, up to a constant: −βU at the
            parameters of the simulation, or `log_mixture` of several; [samples].
        temperature: of the average [K].

    Returns:
        `Reweighted`; look at `effective` before you use the rest.

    References:
        Thaler & Zavadlav, Nat. Commun. 12, 6884 (2021); Kish, Survey Sampling, 1965 (n_eff).
    """
    weights = jax.nn.softmax(-energies / (KB * temperature) - lax.stop_gradient(log_sampled))
    value = jax.tree.map(lambda a: jnp.tensordot(weights, a, 1), values)
    return Reweighted(value, weights, 1 / (len(weights) * jnp.sum(weights**2)))


def log_mixture(
    reduced: Float[Array, "states samples"], counts: Int[Array, "states"]
) -> Float[Array, "samples"]:
    """The logarithm of q, the density of states pooled from several simulations, by MBAR.

        q(x) = Σ_k N_k exp(f_k − u_k(x)),    f_k = −ln Σ_x exp(−u_k(x)) / q(x).

    Args:
        reduced: u_k = U/kT of every state, with the parameters and the temperature of each simulation;
            [states, samples].
        counts: N_k, states from each simulation; [states].

    Returns:
        For `reweighted`; NaN where the free energies f_k do not converge, or simulations share no states, so
        that nothing tells them. Nothing flows through it.

    References:
        Shirts & Chodera, J. Chem. Phys. 129, 124105 (2008), doi:10.1063/1.2978177 (equation 11); Klimovich,
        Shirts & Mobley, J. Comput.-Aided Mol. Des. 29, 397 (2015), doi:10.1007/s10822-015-9840-9 (overlap).
    """
    reduced = lax.stop_gradient(reduced)
    log_counts = jnp.log(counts.astype(reduced.dtype))

    def log_density(free: Array) -> Array:
        return logsumexp((log_counts + free)[:, None] - reduced, axis=0)

    ulp = jnp.finfo(reduced.dtype).eps

    def goes_on(now: tuple[Array, Array, Array]) -> Array:
        return (now[1] > _ULPS * ulp) & (now[2] < _MOST_STEPS)

    def step(now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        free = -logsumexp(-reduced - log_density(now[0])[None], axis=1)
        free = free - free[0]
        # Sums over thousands of states are rounded as large numbers are.
        size = 1 + jnp.max(jnp.abs(free)) + jnp.log(jnp.asarray(reduced.shape[1], free.dtype))
        return free, jnp.max(jnp.abs(free - now[0])) / size, now[2] + 1

    start = jnp.min(reduced, axis=1)
    begin = (start - start[0], jnp.asarray(jnp.inf, reduced.dtype), jnp.int32(0))
    free, change, _ = lax.while_loop(goes_on, step, begin)
    density = log_density(free)
    # √N_i Σ_x w_i(x) w_j(x) √N_j with the normalised weights of each simulation; its largest eigenvalue is 1,
    # and so is the next where they fall into groups.
    weights = jnp.exp(free[:, None] - reduced - density[None])
    roots = jnp.sqrt(counts.astype(reduced.dtype))
    overlap = roots[:, None] * (weights @ weights.T) * roots[None]
    is_one = jnp.asarray(True) if len(counts) == 1 else jnp.linalg.eigvalsh(overlap)[-2] < _APART
    return jnp.where((change <= _ULPS * ulp) & is_one, density, jnp.nan)


def energies_of(
    potential: Potential, params: Params, systems: System, neighbors: Neighbors
) -> tuple[Float[Array, "samples"], Status]:
    """Energies of stored configurations, one after the other; pure, and differentiable in `params`.

    Args:
        potential: the energy model.
        params: its parameters.
        systems: [samples, ...].
        neighbors: one list, with the room that each of them needs; built anew for each.

    Returns:
        U [eV]; [samples], and the status of all, whose step is the place of a sample.
    """
    return over_states(lambda *at: potential.apply(params, *at), systems, neighbors)


def over_states(
    function: Callable[[System, Neighbors], Any], systems: System, neighbors: Neighbors
) -> tuple[Any, Status]:
    """A function of stored configurations, one after the other, each with its own list; pure.

    Args:
        function: of a configuration and a list that is current for it.
        systems: [samples, ...].
        neighbors: one list, with the room that each of them needs; built anew for each.

    Returns:
        What it gives, [samples, ...], and the status of all, whose step is the place of a sample.
    """

    @jax.checkpoint
    def one(status: Status, numbered: tuple[Array, System]) -> tuple[Status, Any]:
        number, system = numbered
        current = rebuild(system, neighbors)
        return check(system, current, status, number, stale=False), function(system, current)

    places = jnp.arange(len(systems.positions), dtype=jnp.int32)
    status, found = lax.scan(one, Status.ok(), (places, systems))
    return found, status
