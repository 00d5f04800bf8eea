"""Diffusivity and structure of a state point and their derivatives in the parameters, from replicas."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from difmd import units
from difmd._internal.replicas import map_replicas, run_replicas
from difmd.errors import Flag, SimulationError, Status, describe, flags_of
from difmd.fitting.liquids.liquid import (
    Production,
    Replicas,
    Sampling,
    neighbor_distance,
    produce,
)
from difmd.fitting.targets.structure import structure_of
from difmd.fitting.targets.target import DiffusivityTarget, StructureTarget, Target
from difmd.integrators import draw_momenta
from difmd.neighbors import Neighbors, grow, neighbor_list
from difmd.observables import Diffusivity, diffusivity, finite_size_correction, is_liquid
from difmd.potentials import Params, Potential
from difmd.sensitivity import EquilibriumGradient, equilibrium_gradient
from difmd.sensitivity.diffusion import DiffusionWindow, diffusion_sample, share_of
from difmd.sensitivity.lyapunov import lyapunov_exponents, tangent_growth
from difmd.system import System

# Replicas that tell how fast trajectories part.
_FEW = 4


class StatePoint(NamedTuple):
    """What was found at one state point.

    Attributes:
        diffusivity: of the periodic box, by two routes.
        correction: finite-size correction to add [Å²/time]; 0 when it is switched off.
        gradient: of the diffusivity of the box in the parameters, or None; ∂lnD/∂θ at the lags of
            `Sampling.gradient_window`, times D.
        n_solid: replicas that are crystalline at the end of their trajectories; they are in the mean.
    """

    diffusivity: Diffusivity
    correction: float
    gradient: EquilibriumGradient | None
    n_solid: int = 0

    @property
    def value(self) -> float:
        """D of the infinite system, Einstein route [Å²/time]."""
        return float(self.diffusivity.einstein.value) + self.correction

    @property
    def stderr(self) -> float:
        """Its statistical error."""
        return float(self.diffusivity.einstein.stderr)


def measure_diffusivity(
    potential: Potential,
    params: Params,
    target: DiffusivityTarget,
    replicas: Replicas,
    *,
    sampling: Sampling,
    key: Key[Array, ""],
    with_gradient: bool = False,
    initial_state_term: bool = True,
) -> tuple[StatePoint, Replicas]:
    """D at a state point from equilibrated replicas, and optionally its gradient.

    Args:
        potential: the energy model.
        params: its parameters.
        target: the state point; its measured value is not used.
        replicas: equilibrated at these parameters and this temperature.
        sampling: how.
        key: seed.
        with_gradient: also differentiate.
        initial_state_term: include the change of the distribution of the starts.

    Returns:
        What was found, and the replicas at the end of their trajectories.

    Raises:
        SimulationError: non-finite values, or a list that would not stop growing.
    """
    found, after, _ = measure(
        potential,
        params,
        [target],
        replicas,
        sampling=sampling,
        key=key,
        with_gradient=with_gradient,
        initial_state_term=initial_state_term,
    )
    return found[0], after


def measure(
    potential: Potential,
    params: Params,
    targets: Sequence[Target],
    replicas: Replicas,
    *,
    sampling: Sampling,
    key: Key[Array, ""],
    with_gradient: bool = False,
    initial_state_term: bool = True,
) -> tuple[list[Any], Replicas, Production]:
    """What targets of one state point ask for, from the same trajectories.

    Args:
        potential: the energy model.
        params: its parameters.
        targets: of one temperature and density.
        replicas: equilibrated at these.
        sampling: how.
        key: seed.
        with_gradient: also differentiate.
        initial_state_term: include the change of the distribution of the starts in that of diffusivities.

    Returns:
        A `StatePoint` or a `Structure` for each target, the replicas at the end of their trajectories, and
        these.

    Raises:
        InputError: a structure that reaches farther than half of the box.
        SimulationError: non-finite values, or a list that would not stop growing.
    """
    produce_key, gradient_key = jax.random.split(key)
    done, after = produce(
        potential,
        params,
        replicas,
        temperature=targets[0].temperature,
        sampling=sampling,
        key=produce_key,
        with_energy_gradients=with_gradient,
    )
    found: list[Any] = []
    along: dict[int | None, Any] = {}
    if with_gradient:
        for species in dict.fromkeys(t.species for t in targets if isinstance(t, DiffusivityTarget)):
            along[species] = gradients_along(
                potential, params, after, targets[0].temperature, sampling, gradient_key, species=species
            )
    for target in targets:
        if isinstance(target, StructureTarget):
            found.append(structure_of(target, done, sampling))
            continue
        found.append(
            _diffusivity(target, done, after, along.get(target.species), sampling, initial_state_term)
        )
    return found, after, done


def _diffusivity(
    target: DiffusivityTarget,
    done: Production,
    after: Replicas,
    along: Any,
    sampling: Sampling,
    initial_state_term: bool,
) -> StatePoint:
    """D, its correction, and its gradient where there is the term along the trajectory."""
    interval = sampling.dt * sampling.save_every
    numbers, masses = after.systems.atomic_numbers[0], after.systems.masses[0]
    found = diffusivity(
        done.positions,
        done.momenta,
        masses,
        interval=interval,
        window=sampling.window,
        temperature=target.temperature,
        select=None if target.species is None else np.asarray(numbers) == target.species,
    )
    correction = 0.0
    if target.viscosity is not None:
        correction = float(
            finite_size_correction(
                temperature=target.temperature,
                viscosity=target.viscosity,
                box_length=float(after.systems.volume[0]) ** (1 / 3),
            )
        )
    gradient = None
    if along is not None:
        share = share_of(numbers, target.species, masses.dtype)
        origins = origins_of(done, masses, target.temperature, sampling, share)
        early = equilibrium_gradient(
            origins.values,
            origins.energy_gradients,
            along,
            temperature=target.temperature,
            initial_state_term=initial_state_term,
            control=origins.kinetic,
        )
        scale = found.einstein.value / early.value
        gradient = jax.tree.map(lambda x: scale * x, early)
    n_solid = 0
    if sampling.is_simple:
        spacing = neighbor_distance(target.density, sampling)
        n_solid = int(np.sum(~is_liquid(after.systems, spacing=spacing)))
    return StatePoint(found, correction, gradient, n_solid)


@functools.partial(jax.jit, static_argnums=(2, 3))
def diffusion_samples(
    done: Production, masses: Array, first: int, last: int, share: Float[Array, "atoms"] | None = None
) -> Float[Array, "replicas origins"]:
    """⟨v(s)·(r(s+t) − r(s−t))⟩/6 for every origin s with room on both sides.

    `share` is what each atom counts in the mean; default: all alike.
    """
    n_atoms = done.positions.shape[2]
    share = jnp.full(n_atoms, 1 / n_atoms, done.positions.dtype) if share is None else share

    def one(replica: tuple[Array, Array]) -> Array:
        r, p = replica
        n = r.shape[0]
        # Relative to the start, for the precision of the running sums.
        sums = jnp.cumsum(r - r[:1], axis=0)
        sums = jnp.concatenate([jnp.zeros_like(sums[:1]), sums])
        width = last - first + 1
        s = jnp.arange(last, n - last)
        ahead = sums[s + last + 1] - sums[s + first]
        behind = sums[s - first + 1] - sums[s - last]
        apart = (ahead - behind) / width
        v = p[last : n - last] / masses[None, :, None]
        return jnp.sum(v * apart, axis=-1) @ share / 6

    return jax.lax.map(one, (done.positions, done.momenta))


class Origins(NamedTuple):
    """Every time origin of trajectories with room for the window of a differentiated sample on both sides.

    Attributes:
        values: the same average as `diffusion_sample`, about this origin [Å²/time]; [replicas, origins].
        energy_gradients: ∂U/∂θ there; pytree of [replicas, origins, ...].
        kinetic: kinetic energy there over kT, less its mean in the canonical ensemble with the centre of mass
            at rest; [replicas, origins].
    """

    values: Array
    energy_gradients: Any
    kinetic: Array


def origins_of(
    done: Production,
    masses: Array,
    temperature: float,
    sampling: Sampling,
    share: Float[Array, "atoms"] | None = None,
) -> Origins:
    """What the initial-state term of ∂D/∂θ is made of.

    Args:
        done: of `produce`, with ∂U/∂θ.
        masses: of the atoms [amu].
        temperature: [K].
        sampling: with the window.
        share: what each atom counts in D; default: all alike.
    """
    lags = diffusion_window(sampling)
    # Averaged over origins about the start as in the differentiated sample: its covariance is with ∂U/∂θ at
    # the start, not at each origin.
    values = _moving_mean(diffusion_samples(done, masses, lags.first, lags.last, share), lags.origins)
    margin = lags.last + lags.origins
    kept = slice(margin, done.positions.shape[1] - margin)
    momenta, slopes = jax.tree.map(lambda x: x[:, kept], (done.momenta, done.energy_gradients))
    return Origins(values, slopes, kinetic_excess(momenta, masses, temperature))


@jax.jit
def kinetic_excess(
    momenta: Float[Array, "replicas frames atoms 3"], masses: Array, temperature: Float[Array, ""] | float
) -> Float[Array, "replicas frames"]:
    """K/kT of each frame less its mean in the canonical ensemble, with the centre of mass at rest."""
    squares = jnp.sum(momenta**2 / masses[None, None, :, None], axis=(-1, -2)) / (2 * units.KB * temperature)
    return squares - 1.5 * (momenta.shape[-2] - 1)


def _moving_mean(values: Array, reach: int) -> Array:
    """Mean over ±reach neighbours along the last axis, where all are there."""
    n = values.shape[-1] - 2 * reach
    return jnp.mean(jnp.stack([values[..., k : k + n] for k in range(2 * reach + 1)]), axis=0)


class _Along(NamedTuple):
    gradient: Any
    status: Status


def gradients_along(
    potential: Potential,
    params: Params,
    replicas: Replicas,
    temperature: float,
    sampling: Sampling,
    key: Key[Array, ""],
    *,
    species: int | None = None,
) -> Any:
    """dA/dθ through trajectories from the last configurations; pytree of [samples, ...].

    Args:
        potential: the energy model.
        params: its parameters.
        replicas: of which the first `n_gradient_replicas` are used.
        temperature: of the momenta [K].
        sampling: with the window.
        key: seed of the momenta.
        species: atomic number of the atoms that are followed; None: all.

    Raises:
        SimulationError: trajectories that are not clean.
    """
    n = sampling.n_gradient_replicas
    systems = jax.tree.map(lambda x: x[:n], replicas.systems)
    keys = jax.random.split(key, n)
    # The list is rebuilt on a schedule here, every frame, so that reverse mode stores it once a segment
    # and can go back through it; should that be too seldom, a wider skin mends it.
    window = diffusion_window(sampling)._replace(species=species)
    neighbors = jax.tree.map(lambda x: x[:n], replicas.neighbors)
    kelvin = jnp.asarray(temperature, systems.positions.dtype)
    for _ in range(8):
        batched = (systems, neighbors, keys)
        done = run_replicas(
            _differentiate, (potential, window), (params, kelvin), batched, n_atoms=systems.n_atoms
        )
        flags = flags_of(done.status)
        if not flags:
            return done.gradient
        if flags & Flag.NEIGHBOR_OVERFLOW:
            neighbors = grow(systems, neighbors, at_least=1.2)
        elif flags == Flag.NEIGHBOR_STALE:
            skin = 1.3 * neighbors.skin
            neighbors = neighbor_list(
                systems,
                cutoff=potential.cutoff,
                skin=skin,
                slack=1.1,
                reverse_edges=potential.uses_reverse_edges,
            )
        else:
            break
    raise SimulationError(f"gradient of the diffusivity: {describe(done.status)}")


def diffusion_window(sampling: Sampling) -> DiffusionWindow:
    """The `gradient_window` of `sampling` in frames."""
    interval = sampling.dt * sampling.save_every
    first, last = (round(t / interval) for t in sampling.gradient_window)
    return DiffusionWindow(
        dt=sampling.dt,
        save_every=sampling.save_every,
        rebuild_every=sampling.save_every,
        first=first,
        last=last,
        origins=int(np.ceil(sampling.origin_time / interval)),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _differentiate(
    potential: Potential,
    window: DiffusionWindow,
    params: Params,
    temperature: Array,
    systems: System,
    neighbors: Neighbors,
    keys: Array,
) -> _Along:
    def one(system: System, neighbors: Neighbors, key: Array) -> _Along:
        momenta = draw_momenta(key, system, temperature)

        def value(params: Params) -> tuple[Array, Status]:
            return diffusion_sample(potential, params, system, momenta, neighbors, window)

        gradient, status = jax.grad(value, has_aux=True)(params)
        return _Along(gradient, status)

    return map_replicas(one, len(keys))(systems, neighbors, keys)


def parting_rate(
    potential: Potential,
    params: Params,
    replicas: Replicas,
    temperature: float,
    sampling: Sampling,
    key: Key[Array, ""],
) -> float:
    """The Lyapunov exponent of a liquid, from a few replicas [1/time]; see `sensitivity.tangent_growth`.

    Args:
        potential: the energy model.
        params: its parameters.
        replicas: equilibrated at this temperature.
        temperature: [K].
        sampling: time step, and steps between rebuilds.
        key: seed of momenta and differences.

    Returns:
        λ; NaN where these runs are not clean.
    """
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
    found = growth(systems, neighbors, jax.random.split(key, few))
    if flags_of(found.status):
        return np.nan
    return float(lyapunov_exponents(np.asarray(found.times[0]), np.asarray(found.log_growth)).mean())
