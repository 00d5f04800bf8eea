"""`rollout`: a trajectory as a pure function, for jit, vmap over replicas, and grad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key

from difmd._internal.argument_checks import check_integer, check_key, check_type, is_traced
from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, Status
from difmd.forces import forces, forces_and_virial
from difmd.gradients.base import GradientMethod
from difmd.gradients.checkpointed import checkpointed
from difmd.gradients.segment import Carry, Inputs, Plan
from difmd.integrators import Forces, Integrator, MDState
from difmd.integrators.base import check_integrator, check_momenta, check_state
from difmd.neighbors import Neighbors, rebuild
from difmd.neighbors.types import check
from difmd.potentials import Params, Potential
from difmd.potentials.base import check_shapes, check_species
from difmd.system import System, check_system
from difmd.trajectory.frames import Frames


@brief_repr
class Rollout(NamedTuple):
    """The result of `rollout`.

    Attributes:
        state: the last state.
        neighbors: the last neighbour list.
        frames: what `save` returned every `save_every` steps, stacked; without the initial state.
        status: sticky flags; check it before you use the rest, with `difmd.errors.describe(status)`.
    """

    state: MDState
    neighbors: Neighbors
    frames: Any
    status: Status


def positions_and_momenta(state: MDState, neighbors: Neighbors) -> Frames:
    """The default of `rollout(save=)`."""
    del neighbors
    return Frames(state.system.positions, state.momenta)


def initialize(
    potential: Potential,
    params: Params,
    system: System,
    integrator: Integrator,
    neighbors: Neighbors,
    *,
    momenta: Float[Array, "atoms 3"],
    key: Key[Array, ""],
) -> MDState:
    """The state at step 0 of one system, with its forces evaluated (pure).

    Args:
        potential: the energy model.
        params: its parameters.
        system: the configuration.
        integrator: the time stepping.
        neighbors: a current neighbour list of the system.
        momenta: [amu Å/(Å√(amu/eV))]; [atoms, 3].
        key: seed of the integrator's noise.

    Returns:
        `MDState`, from which `rollout` starts.

    Raises:
        InputError: as `difmd.forces.forces`; momenta that do not fit the positions, or no key.
    """
    check_integrator(integrator)
    check_system(system)
    check_momenta(momenta, system)
    check_key(key)
    force = Forces(
        lambda system: forces(potential, params, system, neighbors),
        lambda system: forces_and_virial(potential, params, system, neighbors),
    )
    return integrator.init(system, momenta, key, force)


def rollout(
    potential: Potential,
    params: Params,
    state: MDState,
    integrator: Integrator,
    neighbors: Neighbors,
    *,
    n_steps: int,
    save_every: int = 1,
    rebuild_every: int | None = None,
    save: Callable[[MDState, Neighbors], Any] = positions_and_momenta,
    gradient: GradientMethod | None = None,
) -> Rollout:
    """Advance one system by `n_steps`; pure, so it can be jitted, mapped and differentiated.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        state: initial state, with current forces; differentiable.
        integrator: the time stepping.
        neighbors: the current list from which its forces were computed; not differentiated.
        n_steps: number of time steps, a multiple of `rebuild_every`, or else of `save_every`.
        save_every: steps between frames; the status is checked at every step.
        rebuild_every: steps between rebuilds of the list, a multiple of `save_every`; an atom that moved
            more than skin/2 in between sets `NEIGHBOR_STALE`. None: rebuild when needed, never stale, but
            slower to differentiate.
        save: `save(state, neighbors)` → what to store; default: `Frames` of positions and momenta.
        gradient: how the rollout is differentiated; default `checkpointed()`.

    Returns:
        `Rollout`. All steps are done whatever the status.

    Raises:
        InputError: numbers of steps that do not divide, no gradient method, a state of another integrator, a
            species without parameters, parameters of another potential, or a list of another system.
    """
    gradient = checkpointed() if gradient is None else gradient
    if not isinstance(gradient, GradientMethod):
        raise InputError(
            f"gradient is a {type(gradient).__name__}, which does not differentiate trajectories: use "
            "checkpointed(), reversible(), direct(), truncated_backpropagation() or forward()"
        )
    check_type("state", state, MDState, "make one with difmd.initialize(...)")
    check_state(integrator, state)
    check_shapes(potential, params, state.system, neighbors)
    if not is_traced(state.system.atomic_numbers):
        check_species(potential.species, state.system)
    for name, number in (("n_steps", n_steps), ("save_every", save_every), ("rebuild_every", rebuild_every)):
        if number is not None:
            check_integer(name, number)
    if not callable(save):
        raise InputError(f"save = {save!r} must be a function save(state, neighbors)")
    # The forces of the initial state were computed with this list.
    status = check(state.system, neighbors, Status.ok(), state.step)
    rebuilds = rebuild_every is not None
    length = save_every if rebuild_every is None else rebuild_every
    if min(n_steps, length, save_every) < 1 or length % save_every or n_steps % length:
        raise InputError(
            f"n_steps = {n_steps}, rebuild_every = {rebuild_every}, save_every = {save_every}: each "
            "must be a positive multiple of the next"
        )
    plan = Plan(potential, forces, save, save_every, length // save_every, n_steps // length, rebuilds)
    begin = Carry(state, None if rebuilds else neighbors, status)
    end, frames = gradient.run(plan, Inputs(params, integrator, neighbors), begin)
    current = rebuild(end.state.system, neighbors) if end.neighbors is None else end.neighbors
    frames = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), frames)
    return Rollout(end.state, current, frames, end.status)
