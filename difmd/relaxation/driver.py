"""`relax`: the host driver of relaxations, of one structure or of many at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_integer, warn_of_pressure
from difmd._internal.progress import progress_bar
from difmd.errors import Flag, InputError, SimulationError, SimulationInterrupted, Status, describe
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials import Params, Potential, validate_inputs
from difmd.relaxation.descent import Descent, begin, check_goal, check_positive_number, goes_on, step
from difmd.relaxation.lbfgs import lbfgs
from difmd.relaxation.optimizer import Optimizer
from difmd.relaxation.point import landscape
from difmd.relaxation.result import Relaxation
from difmd.relaxation.strains import checked_modes
from difmd.relaxation.structures import Frame, Structure, groups, one_by_one, stacked, together
from difmd.simulation.limits import nearest_pair
from difmd.simulation.replay import replay_on_overflow
from difmd.system import System, validate_system
from difmd.trajectory.run_folder import terminable

if TYPE_CHECKING:
    import ase

# Steps between looks of the host, which Ctrl-C waits for, at most.
_CHUNK = 50

# Flags that a larger list mends.
_OF_LISTS = int(Flag.NEIGHBOR_OVERFLOW | Flag.CELL_TOO_SMALL)

# Atoms closer than this are named, in sums of their covalent radii.
_NEAR = 0.5

# Structures that a message names, at most.
_NAMED = 10


class _Chunk(NamedTuple):
    """What `_advance` returns; `status` tells of lists only, which `replay_on_overflow` mends."""

    descents: Descent
    systems: System
    status: Status


class _Plan(NamedTuple):
    """Arguments of `relax`, checked."""

    force_tolerance: float
    max_steps: int
    save_every: int
    skin: float


@overload
def relax(
    potential: Potential,
    params: Params,
    systems: System | ase.Atoms,
    *,
    optimizer: Optimizer | None = ...,
    strains: Float[Array, "modes 3 3"] | np.ndarray | None = ...,
    pressure: float | Sequence[float] | Array | np.ndarray = ...,
    force_tolerance: float = ...,
    max_steps: int = ...,
    save_every: int = ...,
    skin: float = ...,
    progress: bool = ...,
) -> Relaxation: ...


@overload
def relax(
    potential: Potential,
    params: Params,
    systems: Sequence[System | ase.Atoms],
    *,
    optimizer: Optimizer | None = ...,
    strains: Float[Array, "modes 3 3"] | np.ndarray | None = ...,
    pressure: float | Sequence[float] | Array | np.ndarray = ...,
    force_tolerance: float = ...,
    max_steps: int = ...,
    save_every: int = ...,
    skin: float = ...,
    progress: bool = ...,
) -> list[Relaxation]: ...


def relax(
    potential: Potential,
    params: Params,
    systems: System | ase.Atoms | Sequence[System | ase.Atoms],
    *,
    optimizer: Optimizer | None = None,
    strains: Float[Array, "modes 3 3"] | np.ndarray | None = None,
    pressure: float | Sequence[float] | Array | np.ndarray = 0.0,
    force_tolerance: float = 1e-3,
    max_steps: int = 2000,
    save_every: int = 1,
    skin: float = 0.5,
    progress: bool = True,
) -> Relaxation | list[Relaxation]:
    """Relax structures to the minimum of the enthalpy U + P V, one or many at a time.

    Structures of about one size relax together in one compiled function, padded to the largest; each stops
    where its forces are below the tolerance, and does not move any more. Neighbour lists are built, and built
    larger where they overflow: the steps since the host last looked are done again, and nothing is lost but
    time. For derivatives of what is found, continue with `difmd.relaxation.minimize`.

    Where the cell is free its strains have coordinates and forces as `relaxation.strains` defines them.
    Structures of different precision relax each in its own.

    Atoms of `System.fixed` stay where they are; in a cell that is free, at their fractional coordinates. No
    force on them counts.

    Args:
        potential: the energy model.
        params: its parameters.
        systems: one system or `ase.Atoms`; with a leading dimension, a batch; or a sequence of any sizes,
            species and cells.
        optimizer: `lbfgs()`, the default, or `fire()`.
        strains: modes in which the cells are free: `any_strain()`, `axial_strain()`, `isotropic_strain()` of
            `difmd.relaxation`, or others, as `any_strain()[:2]`, which holds the third axis; None: the cells
            are held.
        pressure: P, for cells that are free [eV/Å³]; one for all, or one for each structure.
        force_tolerance: largest force f of an atom, or of a strain's coordinate, at which to stop [eV/Å];
            stresses are then below f L/V, with the length L of `relaxation.strains`.
        max_steps: to take at most; each is one evaluation of forces.
        save_every: steps between frames; with more of them the host is asked less often, which is quicker.
        skin: of the neighbour lists [Å].
        progress: show a progress bar, with the largest force and the energy of what is not yet at rest.

    Returns:
        `Relaxation`; of a batch one with leading dimensions, of a sequence a list of them in its order.

    Raises:
        InputError: bad arguments, found before anything runs.
        SimulationError: structures that are not converged after `max_steps`, or whose forces are not finite,
            when all others are done; or a list that would not stop growing. `partial_result` holds what this
            function would have returned, of which `is_converged` and `status` tell.
        SimulationInterrupted: Ctrl-C; likewise.
    """
    optimizer = lbfgs() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer = {optimizer!r} is none: write difmd.fire() or difmd.lbfgs()")
    check_goal(strains, pressure, force_tolerance, max_steps)
    warn_of_pressure(pressure)
    check_integer("save_every", save_every)
    check_positive_number("skin", skin, "Å")
    structures = one_by_one(systems, pressure)
    for one in structures:
        _check_structure(potential, params, one, strains)
    plan = _Plan(float(force_tolerance), int(max_steps), int(save_every), float(skin))

    def result() -> Relaxation | list[Relaxation]:
        found = [one.relaxation(force_tolerance) for one in structures]
        if isinstance(systems, Sequence):
            return found
        if isinstance(systems, System) and systems.positions.ndim == 3:
            return stacked(found, systems)
        return found[0]

    is_one = len(structures) == 1
    bar = ("relaxation", max_steps) if is_one else ("relaxations", len(structures))
    with progress_bar(*bar, enabled=progress) as advance, terminable():

        def tell(n_steps: int, n_ended: int, note: str) -> None:
            advance(n_steps if is_one else n_ended, note)

        try:
            for group in groups(structures):
                _relax_group(potential, params, optimizer, strains, group, plan, tell)
        except KeyboardInterrupt:
            n_rest = sum(not one.flags for one in structures)
            raise SimulationInterrupted(
                f"interrupted when {n_rest} of {len(structures)} structures were at rest; all of them, as "
                "far as they came, are in `.partial_result`",
                result(),
            ) from None
        except SimulationError as error:
            error.partial_result = result()
            raise
    _check_ends(structures, force_tolerance, result)
    return result()


def _check_structure(potential: Potential, params: Params, one: Structure, strains: Any) -> None:
    try:
        validate_system(one.system)
        validate_inputs(potential, params, one.system)
        checked_modes(strains, tuple(bool(flag) for flag in one.system.pbc))
        if not (one.system.atomic_numbers > 0).any():
            raise InputError("all of its atoms are padding")
    except InputError as error:
        if one.name == "systems":
            raise
        raise InputError(f"{one.name}: {error}") from None


def _check_ends(structures: Sequence[Structure], tolerance: float, result: Callable[[], Any]) -> None:
    """Raise a `SimulationError` for structures that are not at rest."""
    moving = [one for one in structures if one.flags]
    if not moving:
        return
    found = [one.relaxation(tolerance) for one in moving]
    names = ", ".join(one.name for one in moving[:_NAMED]) + (", …" if len(moving) > _NAMED else "")
    union = Status(
        flags=np.bitwise_or.reduce([one.status.flags for one in found]),
        first_bad_step=min(one.status.first_bad_step for one in found),
    )
    largest = max(float(one.largest_force) for one in found)
    near = ""
    for one, end in zip(moving, found, strict=True):
        pair = nearest_pair(end.system)
        if pair is not None and pair.relative < _NEAR:
            near = f" {pair} in {one.name}."
    raise SimulationError(
        f"{len(moving)} of {len(structures)} structures are not at rest ({names}), forces up to "
        f"{largest:.1e} eV/Å where {tolerance:.1e} eV/Å were asked for; `.partial_result` has all as far as "
        f"they came.{near} {describe(union)}",
        result(),
    )


def _relax_group(
    potential: Potential,
    params: Params,
    optimizer: Optimizer,
    strains: Any,
    group: Sequence[Structure],
    plan: _Plan,
    tell: Callable[[int, int, str], None],
) -> None:
    """Relax structures together, and give each its frames and flags."""
    systems = together(group)
    dtype = systems.positions.dtype
    modes = jnp.asarray(checked_modes(strains, tuple(bool(x) for x in group[0].system.pbc)), dtype)
    pressures = jnp.asarray([one.pressure for one in group], dtype)
    tolerance = jnp.asarray(plan.force_tolerance, dtype)
    neighbors = neighbor_list(
        systems, cutoff=potential.cutoff, skin=plan.skin, reverse_edges=potential.uses_reverse_edges
    )
    descents = _begin(optimizer, len(modes), systems, neighbors)
    now, n_done, n_ended, until = systems, 0, 0, 0
    while True:

        def run(neighbors: Neighbors, descents: Descent = descents, until: int = until) -> _Chunk:
            start = descents._replace(neighbors=neighbors)
            return _advance(
                potential, optimizer, params, systems, modes, pressures, tolerance, jnp.int32(until), start
            )

        chunk, _, _ = replay_on_overflow(run, now, descents.neighbors)
        descents, now = chunk.descents, chunk.systems
        is_moving = np.asarray(goes_on(descents, tolerance, plan.max_steps))
        is_at_rest = np.asarray(descents.largest <= tolerance)
        _keep_frames(group, chunk, is_at_rest, ~is_moving | (until % plan.save_every == 0))
        shown = is_moving if is_moving.any() else ~is_moving
        # Of NumPy's a NaN brings a warning.
        largest = max(np.asarray(descents.largest)[shown].tolist())
        energy = np.sum(np.asarray(descents.enthalpy, np.float64)[shown])
        note = f"largest force {largest:.2e} eV/Å, {'enthalpy' if len(modes) else 'energy'} {energy:.6f} eV"
        tell(until - n_done, int(np.sum(~is_moving)) - n_ended, note)
        n_done, n_ended = until, int(np.sum(~is_moving))
        if not is_moving.any():
            return
        due = (until // plan.save_every + 1) * plan.save_every
        until = min(due, until + _CHUNK, plan.max_steps)


def _keep_frames(
    group: Sequence[Structure], chunk: _Chunk, is_at_rest: np.ndarray, is_due: np.ndarray
) -> None:
    """Give each structure its flags, and a frame where one is due and it has moved."""
    ends = chunk.descents
    known = (chunk.systems, ends.n_steps, ends.status.flags, ends.enthalpy, ends.largest)
    systems, n_steps, flags, enthalpies, largest = jax.tree.map(np.asarray, known)
    for k, one in enumerate(group):
        one.flags = int(flags[k]) or (0 if is_at_rest[k] else int(Flag.NOT_CONVERGED))
        if is_due[k] and (not one.frames or one.frames[-1].step < n_steps[k]):
            frame = Frame(
                step=int(n_steps[k]),
                positions=systems.positions[k, : one.system.n_atoms],
                cell=systems.cell[k],
                enthalpy=float(enthalpies[k]),
                largest_force=float(largest[k]),
            )
            one.frames.append(frame)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(optimizer: Optimizer, n_modes: int, systems: System, neighbors: Neighbors) -> Descent:
    return jax.vmap(lambda system, neighbors: begin(optimizer, system, n_modes, neighbors))(
        systems, neighbors
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(
    potential: Potential,
    optimizer: Optimizer,
    params: Params,
    systems: System,
    modes: Array,
    pressures: Array,
    tolerance: Array,
    until: Array,
    descents: Descent,
) -> _Chunk:
    """Steps until all are at rest, have done `until` steps, or a list has no room."""

    def one(system: System, pressure: Array, now: Descent) -> Descent:
        surface = landscape(potential, params, system, modes, pressure)
        return step(surface, optimizer, now, tolerance, until)

    def where(system: System, now: Descent) -> System:
        return landscape(potential, params, system, modes, 0.0).deformed(now.point)

    def is_moving(now: Descent) -> Array:
        has_room = jnp.all(now.status.flags & _OF_LISTS == 0)
        return has_room & jnp.any(goes_on(now, tolerance, until))

    # A loop around the map and not within it, where XLA would choose between whole lists after each step.
    ends = lax.while_loop(is_moving, lambda now: jax.vmap(one)(systems, pressures, now), descents)
    status = Status(flags=ends.status.flags & _OF_LISTS, first_bad_step=ends.status.first_bad_step)
    return _Chunk(ends, jax.vmap(where)(systems, ends), status)
