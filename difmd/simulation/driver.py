"""`simulate`: molecular dynamics on the host, with frames in memory or on disk."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import ase
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from difmd._internal.argument_checks import as_path, is_traced
from difmd._internal.checkpoint import fingerprint
from difmd._internal.progress import progress_bar
from difmd.errors import InputError, SimulationError, SimulationInterrupted
from difmd.integrators import Integrator, MDState
from difmd.neighbors import Neighbors, allocate, automatic_skin
from difmd.potentials import Params, Potential
from difmd.simulation.engine import has_bad_start, run_chunks
from difmd.simulation.failure import NAME, failure_message
from difmd.simulation.limits import DEFAULT_LIMITS, Limits
from difmd.simulation.recorder import ProgressNote, Recorder
from difmd.simulation.start import check_steps, checked_system, state_of
from difmd.simulation.unit_warnings import suspicious_units
from difmd.system import System
from difmd.trajectory.run_folder import RunFolder, terminable
from difmd.trajectory.trajectory import Trajectory


class _Run(NamedTuple):
    """What does not change during a run."""

    potential: Potential
    params: Params
    integrator: Integrator
    n_steps: int
    save_every: int
    chunk_steps: int
    limits: Limits
    folder: Path | None
    progress: bool


def simulate(
    potential: Potential,
    params: Params,
    system: System | ase.Atoms | MDState,
    integrator: Integrator,
    *,
    n_steps: int,
    key: Key[Array, ""] | None = None,
    initial_temperature: float | None = None,
    momenta: Float[Array, "*replicas atoms 3"] | None = None,
    save_every: int = 100,
    chunk_steps: int = 500,
    skin: float | None = None,
    capacity: int | None = None,
    progress: bool = True,
    folder: str | Path | None = None,
    load: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Trajectory:
    """Run molecular dynamics and store frames, in memory or on disk.

    Steps are done in chunks. If the neighbour list overflows, it is enlarged and the chunk is repeated from
    the same state: the trajectory is bit for bit that of a sufficient capacity.

    With a `folder`, frames are written to `trajectory.h5` (H5MD, which MDAnalysis opens; needs h5py), during
    the run to `parts` every 20 seconds. The same call continues a run that was stopped by Ctrl-C, SIGTERM or
    SIGKILL, bit for bit; a larger `n_steps` extends it, bit for bit if it ended with a full chunk. The frames
    of a damaged file are computed again, with a warning.

    Args:
        potential: the energy model.
        params: its parameters.
        system: initial configuration; with a leading dimension replicas, which run in equal shares on all
            devices or CPU cores (their number changes the rounding); or the `state` of a trajectory, to
            continue it.
        integrator: the time stepping, such as `velocity_verlet(...)` or `langevin(...)`.
        n_steps: number of time steps, a multiple of `save_every`.
        key: seed of momenta and noise, `jax.random.key(0)`; a state includes one.
        initial_temperature: draw momenta at this temperature [K], with zero total momentum.
        momenta: initial momenta instead.
        save_every: steps between frames.
        chunk_steps: steps of a chunk, rounded to full frames.
        skin: of the neighbour list [Å]; default: chosen by `automatic_skin` and reported in the trajectory.
        capacity: initial neighbours per atom; default: measured.
        progress: show a progress bar.
        folder: where to store the run; default: in memory only.
        load: with a folder, read all frames at the end; False for runs larger than memory.
        limits: what ends a run although all its numbers are finite.

    Returns:
        `Trajectory`.

    Raises:
        InputError: invalid arguments; a folder that holds another run or is not writable.
        SimulationError: non-finite values, an energy jump, atoms too close, a collapsed cell, or a list that
            overflows too often; `partial_result` holds the trajectory of the completed chunks and `states`
            the states before and at the failure, also written to `failed.extxyz` in the folder.
        SimulationInterrupted: Ctrl-C; with the same `partial_result`.
    """
    if is_traced((params, system, momenta)):
        raise InputError("simulate runs on the host and cannot be traced by jit, grad or vmap: use rollout")
    done = int(np.max(np.asarray(system.step))) if isinstance(system, MDState) else 0
    check_steps(n_steps, save_every, chunk_steps, done=done)
    first = checked_system(potential, params, system, integrator, limits)
    run = _Run(
        potential, params, integrator, n_steps, save_every, chunk_steps, limits,
        None if folder is None else as_path("folder", folder), progress,
    )  # fmt: skip
    state = state_of(system, first, integrator, initial_temperature, momenta, key)
    for message in suspicious_units(integrator, first):
        warnings.warn(message, stacklevel=2)
    recorder, neighbors = _prepare(run, first, state, skin=skin, capacity=capacity, key=key)
    with terminable():
        try:
            _advance(run, recorder, neighbors)
        except SimulationError as error:
            recorder.flush()
            error.partial_result = recorder.trajectory(load=load)
            if error.states:
                error.args = (f"{error}{failure_message(error.states, run.folder)}",)
            raise
    return recorder.trajectory(load=load)


def _prepare(
    run: _Run, system: System, state: MDState, *, skin: float | None, capacity: int | None, key: Array | None
) -> tuple[Recorder, Neighbors]:
    """A recorder with the frames that the folder already holds, and an allocated neighbour list."""
    potential, integrator = run.potential, run.integrator
    dt = float(np.max(np.asarray(integrator.dt)))
    if skin is None:
        is_atom = np.asarray(system.atomic_numbers) > 0
        skin = automatic_skin(np.asarray(system.masses)[is_atom], dt=dt, cutoff=potential.cutoff)
    neighbors, n_growths = allocate(
        system, cutoff=potential.cutoff, skin=skin, capacity=capacity,
        reverse_edges=potential.uses_reverse_edges,
    )  # fmt: skip
    recorder = Recorder(system, state, dt=dt, skin=skin, save_every=run.save_every, n_replays=n_growths)
    if run.folder is None:
        return recorder, neighbors
    settings = fingerprint(
        str(potential), run.params, *_identity(integrator), state.replace(forces=()), dt, skin,
        run.save_every, max(1, round(run.chunk_steps / run.save_every)),
    )  # fmt: skip
    disk = RunFolder(run.folder, system, settings, every=run.save_every, dt=dt)
    neighbors = recorder.attach(disk, neighbors)
    if disk.n_frames * run.save_every > run.n_steps:
        raise InputError(
            f"{run.folder} holds {disk.n_frames * run.save_every} steps, more than n_steps = {run.n_steps}: "
            "ask for at least as many"
        )
    with contextlib.suppress(OSError):
        (disk.folder / NAME).unlink()
    seed = None if key is None else np.asarray(jax.random.key_data(key)).tolist()
    disk.provenance(seed=seed, n_steps=run.n_steps, potential=repr(potential), params=fingerprint(run.params))
    return recorder, neighbors


def _advance(run: _Run, recorder: Recorder, neighbors: Neighbors) -> None:
    """Do and record the remaining steps."""
    note = ProgressNote(recorder.system, run.integrator, recorder.dt)
    state = recorder.state
    n_before = recorder.n_frames * run.save_every
    try:
        with progress_bar("MD", run.n_steps, enabled=run.progress) as advance:
            if n_before:
                advance(n_before, "read from disk")
            chunks = run_chunks(
                run.potential, run.params, state, run.integrator, neighbors,
                n_steps=run.n_steps - n_before, save_every=run.save_every, chunk_steps=run.chunk_steps,
                limits=run.limits, before=recorder.last_checks(),
            )  # fmt: skip
            for chunk in chunks:
                recorder.add(chunk)
                advance(chunk.n_steps, f"{note.after(chunk)}, skin {recorder.skin:.2g} Å")
            recorder.finish()
    except SimulationError as error:
        if error.status is not None and has_bad_start(error.status, state):
            raise InputError(
                "forces at the start are not finite: atoms overlap, or params are out of range"
            ) from error
        raise
    except KeyboardInterrupt:
        recorder.flush()
        where = "`.partial_result`" if run.folder is None else f"{run.folder}; run it again to continue"
        raise SimulationInterrupted(
            f"interrupted after {recorder.n_frames * run.save_every} of {run.n_steps} steps; the "
            f"trajectory so far is in {where}"
        ) from None


def _identity(integrator: Integrator) -> list[Any]:
    """What distinguishes an integrator from others: its functions and its numbers."""
    functions = [x.func for x in (integrator.init, integrator.step) if isinstance(x, jax.tree_util.Partial)]
    names = [f"{f.__module__}.{f.__qualname__}" if hasattr(f, "__qualname__") else repr(f) for f in functions]
    return [names, jax.tree.leaves(integrator.step)]
