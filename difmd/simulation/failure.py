"""The states before and at the failure of a run, and the message about them."""

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
from difmd.simulation.limits import nearest_pair
from difmd.system import to_ase
from difmd.trajectory.frames import Frames

# Failures that happen again when the same steps are repeated.
_REPEATS = Flag.NON_FINITE | Flag.TOO_FAST | Flag.CELL_COLLAPSE

NAME = "failed.extxyz"
"""The file in the folder of a run with the states before and at a failure."""

# Distance below which the closest atoms are named, in sums of their covalent radii.
_NEAR = 0.5


def states_at(
    potential: Potential, params: Params, start: MDState, integrator: Integrator, neighbors: Neighbors,
    status: Status, *, frames: Any = None, save_every: int = 1,
) -> tuple[MDState, ...]:  # fmt: skip
    """The states before and at the first bad step or frame of a chunk, of the first replica to fail (host).

    `frames` [*replicas, frames, ...] are those recorded where a frame failed and not a step. Where no step
    failed, the initial state is returned alone.
    """
    flags, steps = (np.asarray(x).reshape(-1) for x in (status.flags, status.first_bad_step))
    replica = int(np.argmin(np.where(flags != 0, steps, np.iinfo(steps.dtype).max)))
    if np.ndim(start.step) > 0:
        start, neighbors, frames = jax.tree.map(lambda x: x[replica], (start, neighbors, frames))
    n_steps = int(steps[replica]) - int(start.step)
    if isinstance(frames, Frames):
        last = n_steps // save_every - 1
        return tuple(start if n < 0 else _state_of(start, frames, n, save_every) for n in (last - 1, last))
    if n_steps < 1 or (frames is None and not flags_of(status) & _REPEATS):
        return (start,)
    last_steps = 1 if frames is None else save_every
    before = step_by_step(potential, params, start, integrator, neighbors, n_steps - last_steps)
    return before, step_by_step(potential, params, before, integrator, neighbors, last_steps)


def _state_of(start: MDState, frames: Frames, n: int, save_every: int) -> MDState:
    """A frame as a state without forces."""
    positions, momenta, cell = (np.asarray(x[n]) for x in (frames.positions, frames.momenta, frames.cells))
    system, step = start.system.replace(positions=positions, cell=cell), start.step + (n + 1) * save_every
    return start.replace(system=system, momenta=momenta, step=step, forces=np.full_like(momenta, np.nan))


def failure_message(states: tuple[MDState, ...], folder: Path | None) -> str:
    """Write the states to `failed.extxyz` if there is a folder, and return a text about them (host)."""
    text, held = "", "`states` of this error holds the states before and at that step"
    for state in states:
        pair = nearest_pair(state.system)
        if pair is not None and pair.relative < _NEAR:
            text = f"; {pair} at step {int(state.step)}"
    if folder is None:
        return f"{text}; {held}"
    from ase.io import write

    images = []
    for state in states:
        atoms = to_ase(state.system)
        is_atom = np.asarray(state.system.atomic_numbers) > 0
        atoms.set_momenta(np.asarray(state.momenta, np.float64)[is_atom], apply_constraint=False)
        atoms.info["step"] = int(state.step)
        images.append(atoms)
    try:
        with atomically(folder / NAME, what="frames ") as partial:
            write(partial, images, format="extxyz")
    except InputError as error:
        return f"{text}; {held} ({error})"
    return f"{text}; the states before and at that step are in {folder / NAME}"
