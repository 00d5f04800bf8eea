"""What a run that failed leaves behind: the state before the failure and at it, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from difmd._internal.checkpoint import atomically
from difmd.errors import Flag, InputError, Status, flags_of
from difmd.integrators import Integrator, MDState
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.simulation.chunk import step_by_step
from difmd.simulation.limits import Limits, flags_of_frames, nearest_pair
from difmd.system import to_ase

# Those after which the same steps, done again, fail again.
_REPEATS = Flag.NON_FINITE | Flag.TOO_FAST | Flag.CELL_COLLAPSE

NAME = "failed.extxyz"
"""What a folder gets of a run that failed."""

# Atoms closer than this are named, in sums of their covalent radii.
_NEAR = 0.5


def status_of_frames(
    limits: Limits, start: MDState, frames: Any, closest: np.ndarray, *, before: Any, save_every: int
) -> Status:
    """The status of frames that `flags_of_frames` looks at, with the steps they are of (host).

    Args:
        limits: what is taken for broken.
        start: the state before the chunk.
        frames: of the chunk; [frames, *replicas, ...].
        closest: the `closeness` of each; [frames, *replicas].
        before: the frame before, or None.
        save_every: steps from frame to frame.

    Returns:
        `Status`; [*replicas].
    """
    flags = flags_of_frames(limits, start.system, frames, closest, before=before)
    is_bad = flags != 0
    first = np.argmax(is_bad, axis=0)
    step = np.asarray(start.step) + (first + 1) * save_every
    found: dict[str, Any] = {
        "flags": np.bitwise_or.reduce(flags, axis=0).astype(np.int32),
        "first_bad_step": np.where(is_bad.any(axis=0), step, -1).astype(np.int32),
    }
    return Status(**found)


def states_at(
    potential: Potential,
    params: Params,
    integrator: Integrator,
    start: MDState,
    neighbors: Neighbors,
    status: Status,
    *,
    frames: Any = None,
    save_every: int = 1,
) -> tuple[MDState, ...]:
    """The states before the first bad step and after it, of the replica that was bad first (host).

    Args:
        potential: the energy model.
        params: its parameters.
        integrator: how it stepped.
        start: of the chunk.
        neighbors: its list.
        status: what was wrong with it.
        frames: of the chunk, where it is they that are bad, and not steps between them.
        save_every: steps from frame to frame.

    Returns:
        Two states, where the first one may be the start; or the start alone, where there is nothing else.
    """
    flags, steps = (np.asarray(x).reshape(-1) for x in (status.flags, status.first_bad_step))
    replica = int(np.argmin(np.where(flags != 0, steps, np.iinfo(steps.dtype).max)))
    batched = np.ndim(start.step) > 0

    def one(x: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[replica], x) if batched else x

    start = one(start)
    n_steps = int(steps[replica]) - int(start.step)
    if frames is not None:
        if batched:
            frames = jax.tree.map(lambda x: x[:, replica], frames)
        places = [n_steps // save_every - 2, n_steps // save_every - 1]
        return tuple(start if place < 0 else _at_frame(start, frames, place, save_every) for place in places)
    if n_steps < 1 or not flags_of(status) & _REPEATS:
        return (start,)
    before = step_by_step(potential, params, integrator, start, one(neighbors), n_steps - 1)
    return before, step_by_step(potential, params, integrator, before, one(neighbors), 1)


def _at_frame(start: MDState, frames: Any, place: int, save_every: int) -> MDState:
    system = start.system.replace(positions=frames.positions[place], cell=frames.cell[place])
    return start.replace(
        system=system, momenta=frames.momenta[place], step=start.step + (place + 1) * save_every,
        forces=np.full_like(frames.momenta[place], np.nan),
    )  # fmt: skip


def told(states: tuple[MDState, ...], folder: Path | None) -> str:
    """Write the states to `failed.extxyz` where there is a folder, and say what there is to see (host)."""
    text = ""
    for state in states:
        found = nearest_pair(state.system)
        if found is not None and found.relative < _NEAR:
            text = f"; {found} at step {int(state.step)}"
    if folder is None:
        return f"{text}; `states` of this error holds what was before and at that step"
    from ase.io import write

    frames = []
    for state in states:
        atoms = to_ase(state.system)
        real = np.asarray(state.system.atomic_numbers) > 0
        atoms.set_momenta(np.asarray(state.momenta, np.float64)[real], apply_constraint=False)
        atoms.info["step"] = int(state.step)
        frames.append(atoms)
    try:
        with atomically(folder / NAME, what="frames ") as partial:
            write(partial, frames, format="extxyz")
    except InputError as error:
        return f"{text}; `states` of this error holds what was before and at that step ({error})"
    return f"{text}; what was before and at that step is in {folder / NAME}"
