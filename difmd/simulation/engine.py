"""`run_chunks`: the MD engine of `simulate`, fits and analyses; a chunk is a call of a compiled function."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from difmd._internal.replicas import run_replicas
from difmd.errors import Flag, SimulationError, Status, describe, flags_of
from difmd.integrators import Integrator, MDState
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.simulation.chunk import Checks, Record, checks_of_start, record_frame, run_chunk
from difmd.simulation.failure import states_at
from difmd.simulation.limits import DEFAULT_LIMITS, Limits, has_heated, status_of_frames
from difmd.simulation.replay import replay
from difmd.simulation.rollouts import Rollout


class Chunk(NamedTuple):
    """A chunk that passed all checks: records [*replicas, frames, ...] on the device, and its last state.

    `neighbors` is the list of sufficient capacity, `checks` are on the host [frames, *replicas], and
    `n_replays` is the number of overflows.
    """

    frames: Any
    state: MDState
    neighbors: Neighbors
    checks: Checks
    n_steps: int
    n_replays: int


def run_chunks(
    potential: Potential, params: Params, state: MDState, integrator: Integrator, neighbors: Neighbors, *,
    n_steps: int, save_every: int, chunk_steps: int = 500, limits: Limits = DEFAULT_LIMITS,
    record: Record = record_frame, before: Checks | None = None,
) -> Iterator[Chunk]:  # fmt: skip
    """Advance one system or replicas chunk by chunk, and check every frame (host).

    The caller ends the run by leaving the loop. A chunk whose list overflowed is repeated with a larger one.
    Replicas run in equal shares on all devices or CPU cores. Each length of chunk, shape, potential and
    `record` is compiled once; parameters, temperatures and time steps do not recompile, so make `n_steps` a
    multiple of the chunk, and pass the `neighbors` of an earlier run to keep their shapes; the list need not
    be current. `before` are the checks of the frame before the first one, None at the start of a run.

    Raises:
        SimulationError: a flag of the rollout or of the limits, or a list that overflowed too often.
    """
    n_left = n_steps // save_every
    frames_per_chunk = max(1, round(chunk_steps / save_every))
    while n_left:
        n_frames = min(frames_per_chunk, n_left)
        static = (potential, n_frames * save_every, save_every, record)
        run = functools.partial(_run, static, params, integrator, state)
        done, tried, n_replays = replay(run, state.system, neighbors)
        frames, checks = done.frames
        status, suspect = done.status, None
        if not flags_of(status):
            checks = frames_first(state, checks)
            if before is None and has_heated(limits, state, checks.kinetic_energy):
                start = checks_of_start(potential, params, integrator, state, tried)
                before = jax.tree.map(np.asarray, start)
            status = status_of_frames(limits, state, checks, before=before, save_every=save_every)
            suspect = frames
        if flags_of(status):
            error = SimulationError(describe(status), status=status)
            # Ctrl-C now must not hide the failure.
            with contextlib.suppress(KeyboardInterrupt):
                error.states = states_at(
                    potential, params, state, integrator, tried, status, frames=suspect, save_every=save_every
                )
            raise error
        yield Chunk(frames, done.state, tried, checks, n_frames * save_every, n_replays)
        state, neighbors = done.state, tried
        before = jax.tree.map(lambda x: x[-1:], checks)
        n_left -= n_frames


def _run(
    static: tuple[Any, ...], params: Params, integrator: Integrator, state: MDState, neighbors: Neighbors
) -> Rollout:
    """One attempt at a chunk."""
    if state.momenta.ndim == 2:
        return run_chunk(*static, params, integrator, state, neighbors)
    shared, batched = (params, integrator), (state, neighbors)
    return run_replicas(run_chunk, static, shared, batched, n_atoms=state.system.n_atoms)


def frames_first(state: MDState, frames: Any) -> Any:
    """Frames of a chunk on the host with the axis of frames before that of replicas."""
    if state.momenta.ndim == 2:
        return jax.tree.map(np.asarray, frames)
    return jax.tree.map(lambda x: np.swapaxes(np.asarray(x), 0, 1), frames)


def has_bad_start(status: Status, state: MDState) -> bool:
    """Whether a run failed because the forces of its initial state are not finite (host)."""
    flags, first = np.asarray(status.flags), np.asarray(status.first_bad_step)
    return bool(np.any((flags & int(Flag.NON_FINITE) != 0) & (first == np.asarray(state.step))))
