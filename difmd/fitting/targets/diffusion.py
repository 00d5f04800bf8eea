"""The gradient of a diffusivity: along trajectories, and through the distribution of their initial states."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from difmd import units
from difmd._internal.lattice import complete_cell, invert, product
from difmd._internal.replicas import map_replicas, run_replicas
from difmd.errors import Flag, SimulationError, Status, describe, flags_of
from difmd.fitting.liquids.dynamics import Production
from difmd.fitting.liquids.replicas import Checked, Replicas, liquid_neighbors
from difmd.fitting.liquids.sampling import Sampling
from difmd.gradients.base import GradientMethod
from difmd.integrators import draw_momenta
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.sensitivity.diffusion import DiffusionWindow, diffusion_sample
from difmd.sensitivity.lyapunov import lyapunov_exponents, tangent_growth
from difmd.simulation.replay import replay
from difmd.system import System

# Replicas from which a Lyapunov exponent is estimated.
_FEW = 4

# Attempts to differentiate, each with a wider skin.
_MAX_WIDENINGS = 8


@functools.partial(jax.jit, static_argnums=(2, 3))
def diffusion_samples(
    production: Production, masses: Array, first: int, last: int, share: Float[Array, "atoms"] | None = None
) -> Float[Array, "replicas origins"]:
    """⟨v(s)·(r(s+t) − r(s−t))⟩/6 for every origin s that has lags `first` to `last` on both sides.

    `share` is the weight of each atom in the mean; default: equal weights.
    """
    n_atoms = production.positions.shape[2]
    share = jnp.full(n_atoms, 1 / n_atoms, production.positions.dtype) if share is None else share

    def of_replica(replica: tuple[Array, Array]) -> Array:
        r, p = replica
        # Relative to the first frame, for the precision of the running sums.
        sums = jnp.cumsum(r - r[:1], axis=0)
        sums = jnp.concatenate([jnp.zeros_like(sums[:1]), sums])
        s = jnp.arange(last, len(r) - last)
        ahead = sums[s + last + 1] - sums[s + first]
        behind = sums[s - first + 1] - sums[s - last]
        apart = (ahead - behind) / (last - first + 1)
        v = p[last : len(r) - last] / masses[None, :, None]
        return jnp.sum(v * apart, axis=-1) @ share / 6

    return jax.lax.map(of_replica, (production.positions, production.momenta))


class Origins(NamedTuple):
    """All time origins that have room for the window of a differentiated sample on both sides.

    Attributes:
        values: the same average as `diffusion_sample`, about this origin [Å²/time]; [replicas, origins].
        energy_gradients: ∂U/∂θ there; pytree of [replicas, origins, ...].
        kinetic: `kinetic_excess` there; [replicas, origins].
    """

    values: Array
    energy_gradients: Any
    kinetic: Array


def origins_of(
    production: Production, masses: Array, temperature: float, sampling: Sampling,
    share: Float[Array, "atoms"] | None = None,
) -> Origins:  # fmt: skip
    """The samples from which the initial-state term of ∂D/∂θ is computed; `share` as in `diffusion_samples`.

    They need ∂U/∂θ in the trajectories, masses [amu] and the temperature [K].
    """
    lags = diffusion_window(sampling)
    # Averaged over origins about the initial state as in the differentiated sample: its covariance is with
    # ∂U/∂θ at the initial state, not at each origin.
    samples = diffusion_samples(production, masses, lags.first, lags.last, share)
    values = moving_mean(samples, lags.origins)
    margin = lags.last + lags.origins
    inside = slice(margin, production.positions.shape[1] - margin)
    momenta, slopes = jax.tree.map(lambda x: x[:, inside], (production.momenta, production.energy_gradients))
    return Origins(values, slopes, kinetic_excess(momenta, masses, temperature))


@jax.jit
def kinetic_excess(
    momenta: Float[Array, "replicas frames atoms 3"], masses: Array, temperature: Float[Array, ""] | float
) -> Float[Array, "replicas frames"]:
    """K/kT of each frame less its mean in the canonical ensemble, with the centre of mass at rest."""
    squares = jnp.sum(momenta**2 / masses[None, None, :, None], axis=(-1, -2)) / (2 * units.KB * temperature)
    return squares - 1.5 * (momenta.shape[-2] - 1)


def moving_mean(values: Array, reach: int) -> Array:
    """Mean over ±reach neighbours along the last axis, where all of them exist."""
    n = values.shape[-1] - 2 * reach
    return jnp.mean(jnp.stack([values[..., k : k + n] for k in range(2 * reach + 1)]), axis=0)


def gradients_along(
    potential: Potential, params: Params, replicas: Replicas, temperature: float, sampling: Sampling,
    key: Key[Array, ""], *, species: int | None = None, gradient: GradientMethod | None = None,
) -> Any:  # fmt: skip
    """dA/dθ through trajectories from the last configurations of the first `n_gradient_replicas`.

    The temperature [K] is that of the momenta; `species` is the atomic number of the atoms that are followed,
    None for all; the default gradient method is `checkpointed()`. The result is a pytree like the params with
    a leading axis [samples].

    Raises:
        InputError: the gradient method does not suit the window.
        SimulationError: a trajectory failed.
    """
    n = sampling.n_gradient_replicas
    systems, neighbors = jax.tree.map(lambda x: x[:n], (replicas.systems, replicas.neighbors))
    keys = jax.random.split(key, n)
    # The list is rebuilt every frame, so that reverse mode stores it once a segment and can go back through
    # it; if atoms move too far in between, the skin is widened.
    static = (potential, diffusion_window(sampling)._replace(species=species), gradient)
    kelvin = jnp.asarray(temperature, systems.positions.dtype)

    def run(neighbors: Neighbors) -> Checked:
        batched = (systems, neighbors, keys)
        return run_replicas(_differentiate, static, (params, kelvin), batched, n_atoms=systems.n_atoms)

    for _ in range(_MAX_WIDENINGS):
        done, neighbors, _ = replay(run, systems, neighbors)
        if flags_of(done.status) != Flag.NEIGHBOR_STALE:
            break
        wider = dataclasses.replace(sampling, skin=1.3 * neighbors.skin)
        neighbors = liquid_neighbors(potential, systems, wider, None)
    if flags_of(done.status):
        raise SimulationError(f"gradient of the diffusivity: {describe(done.status)}", status=done.status)
    return done.value


def diffusion_window(sampling: Sampling) -> DiffusionWindow:
    """The `gradient_window` of `sampling` in frames."""
    interval = sampling.dt * sampling.save_every
    first, last = (round(t / interval) for t in sampling.gradient_window)
    return DiffusionWindow(
        dt=sampling.dt, save_every=sampling.save_every, rebuild_every=sampling.save_every, first=first,
        last=last, origins=int(np.ceil(sampling.origin_time / interval)),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _differentiate(
    potential: Potential, window: DiffusionWindow, method: GradientMethod | None, params: Params,
    temperature: Array, systems: System, neighbors: Neighbors, keys: Array,
) -> Checked:  # fmt: skip
    def of_replica(system: System, neighbors: Neighbors, key: Array) -> Checked:
        # Atoms leave the cell during a fit, and with it the range in which `reversible` is exact.
        full, periodic = complete_cell(system.cell, neighbors.periodic), jnp.asarray(neighbors.periodic)
        images = jnp.where(periodic, jnp.floor(product(system.positions, invert(full))), 0)
        system = system.replace(positions=system.positions - product(images, full))
        momenta = draw_momenta(key, system, temperature)

        def value(params: Params) -> tuple[Array, Status]:
            return diffusion_sample(potential, params, system, momenta, neighbors, window, method)

        return Checked(*jax.grad(value, has_aux=True)(params))

    return map_replicas(of_replica, len(keys))(systems, neighbors, keys)


def check_method(
    potential: Potential, params: Params, system: System, sampling: Sampling, gradient: GradientMethod
) -> None:
    """Trace the differentiated sample: an `InputError` if the gradient method does not suit the window."""
    systems = jax.tree.map(lambda x: x[None], system)
    neighbors = liquid_neighbors(potential, systems, sampling, None)
    static = (potential, diffusion_window(sampling), gradient)
    kelvin = jnp.ones((), systems.positions.dtype)
    keys = jax.random.split(jax.random.key(0), 1)
    jax.eval_shape(functools.partial(_differentiate, *static), params, kelvin, systems, neighbors, keys)


def lyapunov_exponent_of(
    potential: Potential, params: Params, replicas: Replicas, temperature: float, sampling: Sampling,
    key: Key[Array, ""],
) -> float:  # fmt: skip
    """λ [1/time] of a liquid at a temperature [K], by `tangent_growth` of a few replicas; NaN if it fails."""
    every = sampling.save_every
    n_steps = max(sampling.steps(2 * sampling.gradient_window[1]) // every, 6) * every

    @jax.jit
    @jax.vmap
    def growth(system: System, neighbors: Neighbors, key: Array) -> Any:
        momentum_key, tangent_key = jax.random.split(key)
        momenta = draw_momenta(momentum_key, system, temperature)
        return tangent_growth(
            potential, params, system, momenta, neighbors,
            dt=sampling.dt, n_steps=n_steps, rebuild_every=every, key=tangent_key,
        )  # fmt: skip

    few = min(_FEW, len(replicas.systems.positions))
    systems, neighbors = jax.tree.map(lambda x: x[:few], (replicas.systems, replicas.neighbors))
    grown = growth(systems, neighbors, jax.random.split(key, few))
    if flags_of(grown.status):
        return np.nan
    return float(lyapunov_exponents(np.asarray(grown.times[0]), np.asarray(grown.log_growth)).mean())
