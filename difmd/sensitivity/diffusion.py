"""A differentiable sample of the diffusivity from one short trajectory through an equilibrium state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from difmd.errors import Status
from difmd.gradients.base import GradientMethod
from difmd.integrators import velocity_verlet
from difmd.integrators.base import check_momenta
from difmd.neighbors import Neighbors, rebuild
from difmd.potentials import Params, Potential
from difmd.sensitivity.arguments import check_rebuildable
from difmd.simulation.rollouts import initialize, rollout
from difmd.system import System


class DiffusionWindow(NamedTuple):
    """Time grid of `diffusion_sample`, in frames of `save_every` steps.

    Attributes:
        dt: time step [Å√(amu/eV)].
        save_every: steps between frames.
        rebuild_every: steps between rebuilds of the list, a multiple of `save_every`.
        first: first lag t of the plateau over which D(t) is averaged, in frames.
        last: last lag, in frames.
        origins: time origins lie at most so many frames before and after the initial state.
        species: atomic number of the atoms that are followed; None: all.
    """

    dt: float
    save_every: int
    rebuild_every: int
    first: int
    last: int
    origins: int
    species: int | None = None

    @property
    def n_steps(self) -> int:
        """Steps in each direction of time, a multiple of `rebuild_every`."""
        needed = (self.last + self.origins) * self.save_every
        return -(-needed // self.rebuild_every) * self.rebuild_every


def diffusion_sample(
    potential: Potential,
    params: Params,
    system: System,
    momenta: Float[Array, "atoms 3"],
    neighbors: Neighbors,
    window: DiffusionWindow,
    gradient: GradientMethod | None = None,
) -> tuple[Float[Array, ""], Status]:
    """D from Newtonian motion forward and backward in time through one state; pure.

        A = ⟨ v(s) · (r(s+t) − r(s−t)) ⟩ / 6,

    averaged over atoms of the species, over origins s about the initial state, and over lags t in the window.
    By stationarity and time reversal this is the Green–Kubo integral to t. The initial state lies in the
    middle, so that no part of the trajectory is farther from it in time than t + s: the derivative in the
    parameters grows exponentially with that distance.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        system: initial configuration.
        momenta: initial momenta, with the centre of mass at rest; [atoms, 3].
        neighbors: a neighbour list with skin and sufficient capacity; it is rebuilt.
        window: lags, origins, and time step.
        gradient: how the rollout is differentiated; default `checkpointed()`.

    Returns:
        A [Å²/time] and the status of both halves.

    Raises:
        InputError: momenta of another shape, a system or list that does not fit the potential, or a gradient
            method that does not suit the window.
    """
    check_rebuildable(potential, params, system, neighbors)
    check_momenta(momenta, system)
    neighbors = rebuild(system, neighbors)

    def half(sign: Array) -> tuple[Array, Array, Status]:
        integrator = velocity_verlet(dt=jnp.asarray(window.dt, momenta.dtype))
        state = initialize(
            potential, params, system, integrator, neighbors, momenta=sign * momenta, key=jax.random.key(0)
        )
        run = rollout(
            potential, params, state, integrator, neighbors, n_steps=window.n_steps,
            save_every=window.save_every, rebuild_every=window.rebuild_every, gradient=gradient,
        )  # fmt: skip
        return run.frames.positions, sign * run.frames.momenta, run.status

    positions, p, status = jax.vmap(half)(jnp.asarray([1.0, -1.0], momenta.dtype))
    reach = window.last + window.origins

    def join(pair: Array, here: Array) -> Array:
        return jnp.concatenate([pair[1, :reach][::-1], here[None], pair[0, :reach]])

    r = join(positions, system.positions)
    v = join(p, momenta) / system.masses[None, :, None]
    share = share_of(system.atomic_numbers, window.species, r.dtype)
    origins = range(reach - window.origins, reach + window.origins + 1)
    lags = jnp.arange(window.first, window.last + 1)
    sample = jnp.zeros((), r.dtype)
    for s in origins:
        apart = jnp.mean(r[s + lags] - r[s - lags], axis=0)
        sample = sample + share @ jnp.sum(v[s] * apart, axis=-1)
    steps = status.first_bad_step
    # −1 means none.
    first = jnp.where(jnp.min(steps) < 0, jnp.max(steps), jnp.min(steps))
    return sample / (6 * len(origins)), Status(flags=status.flags[0] | status.flags[1], first_bad_step=first)


def share_of(numbers: Int[Array, "atoms"], species: int | None, dtype: Any) -> Float[Array, "atoms"]:
    """Weight of each atom in a mean over those of a species, without padding; the sum is 1."""
    counts = (numbers > 0 if species is None else numbers == species).astype(dtype)
    return counts / jnp.sum(counts)
