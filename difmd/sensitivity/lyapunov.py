"""Lyapunov exponents, which bound how far back gradients through trajectories are useful."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, Status
from difmd.forces import plain_forces
from difmd.gradients.segment import Carry, Inputs, Plan, segment
from difmd.integrators import MDState, velocity_verlet
from difmd.integrators.base import check_momenta
from difmd.neighbors import Neighbors, rebuild
from difmd.potentials import Params, Potential
from difmd.sensitivity.arguments import check_rebuildable
from difmd.system import System


@brief_repr
class TangentGrowth(NamedTuple):
    """Size of an infinitesimal difference between two trajectories, relative to its initial size.

    Attributes:
        times: [Å√(amu/eV)]; [segments].
        log_growth: ln(|δ(t)|/|δ(0)|), with δ the vector of all (δr/Å, δp/√(m eV)); [segments].
        status: sticky flags.
    """

    times: Float[Array, "segments"]
    log_growth: Float[Array, "segments"]
    status: Status


def tangent_growth(
    potential: Potential,
    params: Params,
    system: System,
    momenta: Float[Array, "atoms 3"],
    neighbors: Neighbors,
    *,
    dt: float | Float[Array, ""],
    n_steps: int,
    rebuild_every: int,
    key: Key[Array, ""],
) -> TangentGrowth:
    """Follow an infinitesimal difference along a Newtonian trajectory; pure.

    It is rescaled after every segment. The slope of `log_growth` at long times is the largest Lyapunov
    exponent λ, and derivatives through the trajectory grow as exp(λt).

    Args:
        potential: the energy model.
        params: its parameters.
        system: initial configuration.
        momenta: initial momenta; [atoms, 3].
        neighbors: a neighbour list with skin and sufficient capacity.
        dt: time step [Å√(amu/eV)].
        n_steps: number of steps, rounded down to a multiple of `rebuild_every`.
        rebuild_every: steps of a segment, after which the list is rebuilt.
        key: seed of the initial difference.

    Returns:
        `TangentGrowth`.

    Raises:
        InputError: fewer steps than a segment, or momenta, a system or a list that do not fit the potential.

    References:
        Benettin et al., Phys. Rev. A 14, 2338 (1976), doi:10.1103/PhysRevA.14.2338.
    """
    if not 1 <= rebuild_every <= n_steps:
        raise InputError(f"rebuild_every = {rebuild_every} must lie between 1 and n_steps = {n_steps}")
    check_rebuildable(potential, params, system, neighbors)
    check_momenta(momenta, system)
    run = functools.partial(_segment, potential, params, neighbors, dt, rebuild_every, system)
    roots = jnp.sqrt(system.masses)[:, None]
    seeds = jax.random.normal(key, (2, *momenta.shape), momenta.dtype)
    is_mobile = system.is_mobile[:, None]

    def scaled(tangent: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        size = jnp.sqrt(sum(jnp.vdot(x, x) for x in (tangent[0], tangent[1] / roots)))
        return (tangent[0] / size, tangent[1] / size), size

    def step(now: Any, _: None) -> tuple[Any, Array]:
        point, tangent, status = now
        point, tangent, status = jax.jvp(lambda p: run(p, status), (point,), (tangent,), has_aux=True)
        tangent, size = scaled(tangent)
        return (point, tangent, status), jnp.log(size)

    tangent, _ = scaled((jnp.where(is_mobile, seeds[0], 0), jnp.where(is_mobile, roots * seeds[1], 0)))
    initial = ((system.positions, momenta), tangent, Status.ok())
    n_segments = n_steps // rebuild_every
    (_, _, status), growth = lax.scan(step, initial, None, length=n_segments)
    times = dt * rebuild_every * jnp.arange(1, n_segments + 1, dtype=growth.dtype)
    return TangentGrowth(times, jnp.cumsum(growth), status)


def lyapunov_exponents(
    times: Float[np.ndarray, "segments"], log_growth: Float[np.ndarray, "replicas segments"]
) -> Float[np.ndarray, "replicas"]:
    """Mean slopes of `TangentGrowth.log_growth` after the first third, in which the difference aligns (host).

    Args:
        times: [Å√(amu/eV)]; [segments].
        log_growth: [replicas, segments].

    Returns:
        λ of each replica [1/time]; NaN for one segment, which has no slope.
    """
    n = log_growth.shape[1]
    if n < 2:
        return np.full(len(log_growth), np.nan)
    begin = min(n // 3, n - 2)
    return (log_growth[:, -1] - log_growth[:, begin]) / (times[-1] - times[begin])


def _segment(
    potential: Potential, params: Params, neighbors: Neighbors, dt: Any, n_steps: int, system: System,
    point: tuple[Array, Array], status: Status,
) -> tuple[tuple[Array, Array], Status]:  # fmt: skip
    plan = Plan(
        potential=potential, force=plain_forces, save=lambda state, neighbors: None, save_every=n_steps,
        n_frames=1, n_segments=1, rebuilds=True,
    )  # fmt: skip
    system = system.replace(positions=point[0])
    forces = plain_forces(potential, params, system, rebuild(system, neighbors))
    key = jax.random.key(0)
    state = MDState(system=system, momenta=point[1], forces=forces, key=key, step=jnp.int32(0))
    inputs = Inputs(params, velocity_verlet(dt=dt), neighbors)
    carry, _ = segment(plan, inputs, Carry(state, None, status))
    return (carry.state.system.positions, carry.state.momenta), carry.status
