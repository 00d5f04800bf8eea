"""`relax`: relaxations driven from the host, of one structure or of many at once."""

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
from difmd._internal.progress import Advance, progress_bar
from difmd.errors import Flag, InputError, SimulationError, SimulationInterrupted, Status, describe
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials import Params, Potential, validate_inputs
from difmd.relaxation.descent import Descent, begin, check_goal, check_positive_number, is_running, step
from difmd.relaxation.lbfgs import lbfgs
from difmd.relaxation.optimizer import Optimizer
from difmd.relaxation.point import landscape
from difmd.relaxation.result import Relaxation
from difmd.relaxation.strains import check_modes
from difmd.relaxation.structures import Frame, Structure, collected, groups, padded_batch, structures_of
from difmd.simulation.limits import nearest_pair
from difmd.simulation.replay import replay_on_overflow
from difmd.system import System, validate_system
from difmd.trajectory.run_folder import terminable

if TYPE_CHECKING:
    import ase

# Largest number of steps between two returns to the host, which limits how long Ctrl-C waits.
_CHUNK = 50

# Flags that a larger list clears.
_OF_LISTS = int(Flag.NEIGHBOR_OVERFLOW | Flag.CELL_TOO_SMALL)

# Atoms closer than this, in sums of their covalent radii, are reported with the failure.
_CLOSE = 0.5

# Largest number of structures that a message lists.
_LISTED = 10


class _Chunk(NamedTuple):
    """The result of `_advance`; `status` has the flags of lists only, for `replay_on_overflow`."""

    descents: Descent
    systems: System
    status: Status


class _Plan(NamedTuple):
    """Arguments of `relax` after validation."""

    potential: Potential
    params: Params
    optimizer: Optimizer
    strains: Any
    force_tolerance: float
    max_steps: int
    save_every: int
    skin: float


@overload
def relax(
    potential: Potential, params: Params, systems: System | ase.Atoms, *, optimizer: Optimizer | None = ...,
    strains: Float[Array, "modes 3 3"] | np.ndarray | None = ...,
    pressure: float | Sequence[float] | Array | np.ndarray = ..., force_tolerance: float = ...,
    max_steps: int = ..., save_every: int = ..., skin: float = ..., progress: bool = ...,
) -> Relaxation: ...  # fmt: skip


@overload
def relax(
    potential: Potential, params: Params, systems: Sequence[System | ase.Atoms], *,
    optimizer: Optimizer | None = ..., strains: Float[Array, "modes 3 3"] | np.ndarray | None = ...,
    pressure: float | Sequence[float] | Array | np.ndarray = ..., force_tolerance: float = ...,
    max_steps: int = ..., save_every: int = ..., skin: float = ..., progress: bool = ...,
) -> list[Relaxation]: ...  # fmt: skip


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
    """Relax structures to a minimum of the enthalpy U + P V, one or many at once.

    Structures of similar size relax together, padded to the largest, until their forces are below the
    tolerance. Neighbour lists are enlarged on overflow. `difmd.relaxation.minimize` computes derivatives of
    the result; `difmd.relaxation.strains` defines coordinates and forces of strains. Fixed atoms keep their
    positions or, where the cell is free, their fractional coordinates; forces on them do not count.

    Args:
        potential: the energy model.
        params: its parameters.
        systems: one `System` or `ase.Atoms`, a `System` with a leading batch dimension, or a sequence of
            different structures.
        optimizer: `lbfgs()`, the default, or `fire()`.
        strains: modes in which the cells are free: `any_strain()`, `axial_strain()`, `isotropic_strain()` of
            `difmd.relaxation`, or others, as `any_strain()[:2]`; None: the cells are fixed.
        pressure: P, if the cells are free [eV/Å³]; one for all structures, or one for each.
        force_tolerance: largest force f on an atom or strain coordinate at convergence [eV/Å]; stresses are
            then below f L/V, with the length L of `relaxation.strains`.
        max_steps: largest number of steps, each with one evaluation of the forces.
        save_every: steps between frames; larger values run faster.
        skin: of the neighbour lists [Å].
        progress: show a progress bar.

    Returns:
        `Relaxation`; for a batch with leading dimensions, for a sequence a list in the same order.

    Raises:
        InputError: bad arguments.
        SimulationError: structures that have not converged after `max_steps` or whose forces are not finite,
            after all others have ended; or a list that keeps overflowing. `partial_result` holds the result,
            with `is_converged` and `status` of each structure.
        SimulationInterrupted: Ctrl-C; with the same `partial_result`.
    """
    optimizer = lbfgs() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer = {optimizer!r} must be an Optimizer: difmd.fire() or difmd.lbfgs()")
    check_goal(strains, pressure, force_tolerance, max_steps)
    warn_of_pressure(pressure)
    check_integer("save_every", save_every)
    check_positive_number("skin", skin, "Å")
    structures = structures_of(systems, pressure)
    for structure in structures:
        _check_structure(potential, params, structure, strains)
    numbers = (float(force_tolerance), int(max_steps), int(save_every), float(skin))
    plan = _Plan(potential, params, optimizer, strains, *numbers)
    result = functools.partial(collected, structures, systems, plan.force_tolerance)
    _relax_all(structures, plan, result, progress)
    _check_ends(structures, plan.force_tolerance, result)
    return result()


def _check_structure(potential: Potential, params: Params, structure: Structure, strains: Any) -> None:
    try:
        validate_system(structure.system)
        validate_inputs(potential, params, structure.system)
        check_modes(strains, tuple(bool(flag) for flag in structure.system.pbc))
        if not (structure.system.atomic_numbers > 0).any():
            raise InputError("all of its atoms are padding")
    except InputError as error:
        if structure.name == "systems":
            raise
        raise InputError(f"{structure.name}: {error}") from None


def _relax_all(structures: list[Structure], plan: _Plan, result: Callable[[], Any], progress: bool) -> None:
    """Relax all structures, group by group; errors have the completed part."""
    is_single = len(structures) == 1
    bar = ("relaxation", plan.max_steps) if is_single else ("relaxations", len(structures))
    with progress_bar(*bar, enabled=progress) as advance, terminable():
        try:
            for group in groups(structures):
                _relax_group(plan, group, advance, is_single)
        except KeyboardInterrupt:
            n_converged = sum(not structure.flags for structure in structures)
            raise SimulationInterrupted(
                f"interrupted when {n_converged} of {len(structures)} structures had converged; "
                "`.partial_result` holds the latest frames of all structures",
                result(),
            ) from None
        except SimulationError as error:
            error.partial_result = result()
            raise


def _check_ends(structures: Sequence[Structure], tolerance: float, result: Callable[[], Any]) -> None:
    """Raise a `SimulationError` for structures that have not converged."""
    failed = [structure for structure in structures if structure.flags]
    if not failed:
        return
    ends = [structure.relaxation(tolerance) for structure in failed]
    names = ", ".join(structure.name for structure in failed[:_LISTED])
    names += ", …" if len(failed) > _LISTED else ""
    flags = np.bitwise_or.reduce([end.status.flags for end in ends])
    union = Status(flags=flags, first_bad_step=min(end.status.first_bad_step for end in ends))
    largest = max(float(end.largest_force) for end in ends)
    close = ""
    for structure, end in zip(failed, ends, strict=True):
        pair = nearest_pair(end.system)
        if pair is not None and pair.relative < _CLOSE:
            close = f" {pair} in {structure.name}."
    raise SimulationError(
        f"{len(failed)} of {len(structures)} structures have not converged ({names}): forces up to "
        f"{largest:.1e} eV/Å exceed the tolerance of {tolerance:.1e} eV/Å; `.partial_result` holds the "
        f"latest frames of all structures.{close} {describe(union)}",
        result(),
    )


def _relax_group(plan: _Plan, group: Sequence[Structure], advance: Advance, is_single: bool) -> None:
    """Relax structures together, and record their frames and flags."""
    systems = padded_batch(group)
    dtype = systems.positions.dtype
    modes = jnp.asarray(check_modes(plan.strains, tuple(bool(x) for x in group[0].system.pbc)), dtype)
    pressures = jnp.asarray([structure.pressure for structure in group], dtype)
    tolerance = jnp.asarray(plan.force_tolerance, dtype)
    neighbors = neighbor_list(
        systems, cutoff=plan.potential.cutoff, skin=plan.skin, reverse_edges=plan.potential.uses_reverse_edges
    )
    descents = _begin(plan.optimizer, len(modes), systems, neighbors)
    moved, n_done, n_ended, until = systems, 0, 0, 0
    while True:

        def run(neighbors: Neighbors, descents: Descent = descents, until: int = until) -> _Chunk:
            return _advance(
                plan.potential, plan.optimizer, plan.params, systems, modes, pressures, tolerance,
                jnp.int32(until), descents._replace(neighbors=neighbors),
            )  # fmt: skip

        chunk, _, _ = replay_on_overflow(run, moved, descents.neighbors)
        descents, moved = chunk.descents, chunk.systems
        running = np.asarray(is_running(descents, tolerance, plan.max_steps))
        is_converged = np.asarray(descents.largest <= tolerance)
        _record(group, chunk, is_converged, ~running | (until % plan.save_every == 0))
        note = _note(descents, running if running.any() else ~running, len(modes))
        ended = int(np.sum(~running))
        advance(until - n_done if is_single else ended - n_ended, note)
        n_done, n_ended = until, ended
        if not running.any():
            return
        due = (until // plan.save_every + 1) * plan.save_every
        until = min(due, until + _CHUNK, plan.max_steps)


def _note(descents: Descent, shown: np.ndarray, n_modes: int) -> str:
    """Text of the progress bar."""
    # Python's maximum, as NumPy's warns of NaN.
    largest = max(np.asarray(descents.largest)[shown].tolist())
    energy = np.sum(np.asarray(descents.enthalpy, np.float64)[shown])
    return f"largest force {largest:.2e} eV/Å, {'enthalpy' if n_modes else 'energy'} {energy:.6f} eV"


def _record(group: Sequence[Structure], chunk: _Chunk, is_converged: np.ndarray, is_due: np.ndarray) -> None:
    """Record flags, and frames where they are due and the structure has moved."""
    ends = chunk.descents
    arrays = (chunk.systems, ends.n_steps, ends.status.flags, ends.enthalpy, ends.largest)
    systems, n_steps, flags, enthalpies, largest = jax.tree.map(np.asarray, arrays)
    for k, structure in enumerate(group):
        structure.flags = int(flags[k]) or (0 if is_converged[k] else int(Flag.NOT_CONVERGED))
        if is_due[k] and (not structure.frames or structure.frames[-1].step < n_steps[k]):
            place = (systems.positions[k, : structure.system.n_atoms], systems.cell[k])
            structure.frames.append(Frame(int(n_steps[k]), *place, float(enthalpies[k]), float(largest[k])))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _begin(optimizer: Optimizer, n_modes: int, systems: System, neighbors: Neighbors) -> Descent:
    each = jax.vmap(lambda system, neighbors: begin(optimizer, system, n_modes, neighbors))
    return each(systems, neighbors)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(
    potential: Potential, optimizer: Optimizer, params: Params, systems: System, modes: Array,
    pressures: Array, tolerance: Array, until: Array, descents: Descent,
) -> _Chunk:  # fmt: skip
    """Steps until all structures have converged or done `until` steps, or a list has overflowed."""

    @jax.vmap
    def move(system: System, pressure: Array, descent: Descent) -> Descent:
        surface = landscape(potential, params, system, modes, pressure)
        return step(surface, optimizer, descent, tolerance, until)

    def deformed(system: System, descent: Descent) -> System:
        return landscape(potential, params, system, modes, 0.0).deformed(descent.point)

    def continues(descents: Descent) -> Array:
        has_capacity = jnp.all(descents.status.flags & _OF_LISTS == 0)
        return has_capacity & jnp.any(is_running(descents, tolerance, until))

    # The loop is outside the map: inside, XLA would select between complete lists after each step.
    ends = lax.while_loop(continues, lambda descents: move(systems, pressures, descents), descents)
    status = Status(flags=ends.status.flags & _OF_LISTS, first_bad_step=ends.status.first_bad_step)
    return _Chunk(ends, jax.vmap(deformed)(systems, ends), status)
