"""`rollout`: a trajectory as a pure function, for jit, vmap over replicas, and grad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Key

from difmd._internal.argument_checks import check_integer, check_key, check_type
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
from difmd.potentials.base import check_shapes
from difmd.system import System, check_system
from difmd.trajectory.frames import Frames


class Rollout(NamedTuple):
    """The result of `rollout`.

    Attributes:
        state: the last state.
        neighbors: the last neighbour list.
        frames: what `save` returned every `save_every` steps, stacked; the start is not among them.
        status: sticky flags; look at it before you use the rest.
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
    """The state at step 0, with the forces evaluated (pure).

    Args:
        potential: the energy model.
        params: its parameters.
        system: the configuration.
        integrator: the integrator that will step from there.
        neighbors: a current neighbour list of the system.
        momenta: [amu Å/(Å√(amu/eV))]; [atoms, 3].
        key: seed of the integrator's noise.

    Raises:
        InputError: as `forces`; momenta of another shape or precision than the positions, or no key.
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
    """Advance `state` by `n_steps`; pure, so it can be jitted, mapped and differentiated.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        state: initial state, with current forces; differentiable.
        integrator: the time stepping.
        neighbors: a current list for it, the one its forces come from; nothing flows through it.
        n_steps: steps to do, a multiple of the segment.
        save_every: steps between frames; the status is checked every step all the same.
        rebuild_every: rebuild the list every so many steps, a multiple of `save_every`; an atom that
            moved more than skin/2 in between sets `NEIGHBOR_STALE`. None: rebuild when needed, never
            stale, but slower to differentiate.
        save: what to keep of a state; it also gets the list that is current for it.
        gradient: how reverse mode works; default `checkpointed()`.

    Returns:
        `Rollout`. The run goes on to the end whatever the status.

    Raises:
        InputError: numbers of steps that do not divide, a gradient method of another kind, or a state that
            does not fit the integrator; or as `forces`.
    """
    gradient = checkpointed() if gradient is None else gradient
    if not isinstance(gradient, GradientMethod):
        raise InputError(
            f"{type(gradient).__name__} differentiates no trajectory, but averages over stored states: use "
            "checkpointed(), reversible(), direct(), truncated_backpropagation() or forward()"
        )
    check_type("state", state, MDState, "make one with difmd.initialize(...)")
    check_state(integrator, state)
    check_shapes(potential, params, state.system, neighbors)
    for name, number in (("n_steps", n_steps), ("save_every", save_every), ("rebuild_every", rebuild_every)):
        if number is not None:
            check_integer(name, number)
    if not callable(save):
        raise InputError(f"save = {save!r} must be a function of a state and its list")
    # The forces of the start are those of this list.
    status = check(state.system, neighbors, Status.ok(), state.step)
    rebuilds = rebuild_every is not None
    length = save_every if rebuild_every is None else rebuild_every
    if min(n_steps, length, save_every) < 1 or length % save_every or n_steps % length:
        raise InputError(
            f"n_steps = {n_steps}, rebuild_every = {rebuild_every}, save_every = {save_every}: each "
            "must be a positive multiple of the next"
        )
    plan = Plan(
        potential=potential,
        force=forces,
        save=save,
        save_every=save_every,
        n_frames=length // save_every,
        n_segments=n_steps // length,
        rebuilds=rebuilds,
    )
    begin = Carry(state, None if rebuilds else neighbors, status)
    end, frames = gradient.run(plan, Inputs(params, integrator, neighbors), begin)
    current = rebuild(end.state.system, neighbors) if end.neighbors is None else end.neighbors
    frames = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), frames)
    return Rollout(end.state, current, frames, end.status)
