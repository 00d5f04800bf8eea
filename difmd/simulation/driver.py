"""`simulate`: the host driver of `rollout`, in chunks that are committed only when they are clean."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from difmd._internal.argument_checks import as_path, check_integer, check_key
from difmd._internal.checkpoint import fingerprint
from difmd._internal.progress import progress_bar
from difmd._internal.replicas import run_replicas
from difmd.errors import Flag, InputError, SimulationError, check_positive, describe, flags_of
from difmd.integrators import Integrator, MDState
from difmd.integrators.base import check_integrator, check_momenta, check_state
from difmd.neighbors import (
    Neighbors,
    allocate,
    automatic_skin,
)
from difmd.potentials import Params, Potential, validate_inputs
from difmd.simulation.chunk import begin, record_of_start, run_chunk
from difmd.simulation.failure import NAME, states_at, status_of_frames, told
from difmd.simulation.limits import Limits, check_limits, has_moved
from difmd.simulation.recorder import Committed, Record, Watch
from difmd.simulation.replay import replay_on_overflow
from difmd.simulation.rollouts import Rollout
from difmd.system import System, check_system, validate_system
from difmd.trajectory.run_folder import RunFolder, terminable
from difmd.trajectory.trajectory import Trajectory

_LIMITS = Limits()


class SimulationInterrupted(SimulationError, KeyboardInterrupt):
    """Ctrl-C during `simulate` or `relax`; `partial_result` holds the completed chunks."""


def simulate(
    potential: Potential,
    params: Params,
    system: System | MDState,
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
    limits: Limits = _LIMITS,
) -> Trajectory:
    """Run molecular dynamics and keep frames, in memory or on disk.

    A chunk of steps is committed only if its status is clean. When the neighbour list overflows, it
    grows and the chunk runs again from its saved start with the same key: the trajectory is bit for
    bit that of an ample capacity.

    With a `folder` frames go to `trajectory.h5` there (H5MD, which MDAnalysis opens; h5py is needed), and
    while the run goes on to files in `parts`, one every 20 seconds. A run that was stopped by Ctrl-C, SIGTERM
    or anything else goes on when it is called again in the same way, to the same bits; with a larger
    `n_steps` it is continued, to the same bits where it ended with a whole chunk. Files have checksums: of a
    damaged one you are warned, and what it held is computed again.

    Args:
        potential: the energy model.
        params: its parameters.
        system: where to start; with a leading dimension, that many independent replicas, in equal shares on
            all devices, or on the cores of a CPU, as many as divide their number; it changes the rounding.
            Or the `state` of an earlier trajectory, to go on from there as if it had not stopped.
        integrator: `velocity_verlet(...)`, `langevin(...)`.
        n_steps: steps to do.
        key: seed of momenta and noise, `jax.random.key(0)`; a state has its own.
        initial_temperature: draw momenta at this temperature [K], the centre of mass at rest.
        momenta: start from these instead.
        save_every: steps between frames.
        chunk_steps: steps between commits, rounded to whole frames.
        skin: of the neighbour list [Å]; default: what `automatic_skin` finds cheapest. The trajectory tells.
        capacity: neighbours per atom to begin with; default: measured.
        progress: show a progress bar.
        folder: where to keep the run; default: nowhere.
        load: with a folder, read all frames at the end; False: the trajectory that is returned has none, for
            runs that are larger than the memory.
        limits: what is taken for a broken run though all its numbers are finite, see `Limits`.

    Returns:
        `Trajectory`.

    Raises:
        InputError: bad arguments, found before anything runs; a folder of another run, or that cannot be
            written.
        SimulationError: non-finite values, an energy that jumps, atoms too close, a cell that collapses, or a
            list that would not stop growing; `partial_result` holds the trajectory up to the last clean chunk
            and `states` the states before and at the failure, which a folder gets as `failed.extxyz`.
        SimulationInterrupted: Ctrl-C; likewise.
    """
    first = _checked(
        potential, params, system, integrator,
        n_steps=n_steps, save_every=save_every, chunk_steps=chunk_steps, limits=limits,
    )  # fmt: skip
    if not isinstance(system, MDState):
        _check_start(first, initial_temperature, momenta, key)
    elif not (initial_temperature is None and momenta is None and key is None):
        raise InputError("a state has momenta and a key: leave out initial_temperature, momenta and key")
    batched = first.positions.ndim == 3
    dt = float(np.max(np.asarray(integrator.dt)))
    if skin is None:
        real = np.asarray(first.atomic_numbers) > 0
        skin = automatic_skin(np.asarray(first.masses)[real], dt=dt, cutoff=potential.cutoff)
    neighbors, n_growths = allocate(
        first,
        cutoff=potential.cutoff,
        skin=skin,
        capacity=capacity,
        reverse_edges=potential.uses_reverse_edges,
    )
    if isinstance(system, MDState):
        state = system
    else:
        state = begin(integrator, first, initial_temperature, momenta, key)
    frames_per_chunk = max(1, round(chunk_steps / save_every))
    frames_left = n_steps // save_every
    committed = Committed(first, state, dt, skin, save_every, n_growths)
    before: Record | None = None
    if folder is not None:
        settings = fingerprint(
            str(potential), params, *_settings_of(integrator), state.replace(forces=()), dt, skin, save_every,
            frames_per_chunk,
        )  # fmt: skip
        disk = RunFolder(as_path("folder", folder), first, settings, every=save_every, dt=dt)
        state, neighbors = committed.go_on(disk, state, neighbors)
        if disk.n_frames > frames_left:
            raise InputError(
                f"{folder} holds {disk.n_frames * save_every} steps, more than n_steps = {n_steps}: ask for "
                "as many or more"
            )
        frames_left -= disk.n_frames
        with contextlib.suppress(OSError):
            (disk.folder / NAME).unlink()
        before = committed.last()
        seed = None if key is None else np.asarray(jax.random.key_data(key)).tolist()
        disk.provenance(seed=seed, n_steps=n_steps, potential=repr(potential), params=fingerprint(params))
    watch = Watch(first, integrator, dt)
    tried = neighbors
    with progress_bar("MD", n_steps, enabled=progress) as advance, terminable():
        if committed.n_frames:
            advance(committed.n_frames * save_every, "were there")
        try:
            while frames_left:
                n_frames = min(frames_per_chunk, frames_left)

                def run(neighbors: Neighbors, n: int = n_frames, state: MDState = state) -> Rollout:
                    nonlocal tried
                    tried = neighbors
                    static, shared = (potential, n * save_every, save_every), (params, integrator)
                    if batched:
                        done = run_replicas(
                            run_chunk, static, shared, (state, neighbors), n_atoms=first.n_atoms
                        )
                        # As they do for one system.
                        done = done._replace(frames=jax.tree.map(_frames_first, done.frames))
                    else:
                        done = run_chunk(*static, *shared, state, neighbors)
                    _check_forces(state, done)
                    return done

                bad_frames: Record | None = None
                done, neighbors, replays = replay_on_overflow(run, state.system, neighbors)
                frames, closest = jax.tree.map(np.asarray, done.frames)
                if before is None and has_moved(limits, first, state.momenta, frames):
                    start = record_of_start(potential, params, integrator, state, neighbors)
                    before = jax.tree.map(np.asarray, start)
                status = status_of_frames(
                    limits, state, frames, closest, before=before, save_every=save_every
                )
                if flags_of(status):
                    bad_frames = frames
                    raise SimulationError(describe(status), status=status)
                committed.add(frames, done.state, replays, neighbors)
                state, before = done.state, Record(*(x[-1:] for x in frames))
                frames_left -= n_frames
                n_done = n_frames * save_every
                advance(n_done, f"{watch.note(frames, n_done)}, skin {skin:.2g} Å")
            committed.finish()
        except KeyboardInterrupt:
            committed.flush()
            where = "`.partial_result`" if folder is None else f"{folder}; run it again to go on"
            raise SimulationInterrupted(
                f"interrupted after {committed.n_frames * save_every} of {n_steps} steps; the "
                f"trajectory so far is in {where}",
                committed.trajectory(load=load),
            ) from None
        except SimulationError as error:
            committed.flush()
            error.partial_result = committed.trajectory(load=load)
            if error.status is not None:
                # To be told of it again would not do for what is committed.
                with contextlib.suppress(KeyboardInterrupt):
                    error.states = states_at(
                        potential, params, integrator, state, tried, error.status,
                        frames=bad_frames, save_every=save_every,
                    )  # fmt: skip
                    error.args = (f"{error}{told(error.states, None if folder is None else Path(folder))}",)
            raise
    return committed.trajectory(load=load)


def _frames_first(x: Array) -> np.ndarray:
    return np.swapaxes(np.asarray(x), 0, 1)


def _settings_of(integrator: Integrator) -> list[Any]:
    """What tells an integrator from another one: its functions and its numbers."""
    functions = [x.func for x in (integrator.init, integrator.step) if isinstance(x, jax.tree_util.Partial)]
    names = [f"{f.__module__}.{f.__qualname__}" if hasattr(f, "__qualname__") else repr(f) for f in functions]
    return [names, jax.tree.leaves(integrator.step)]


def _checked(
    potential: Potential, params: Params, system: System | MDState, integrator: Integrator,
    *, n_steps: int, save_every: int, chunk_steps: int, limits: Limits,
) -> System:  # fmt: skip
    """The system to start from, after an `InputError` for what cannot run."""
    for name, number in (("n_steps", n_steps), ("save_every", save_every), ("chunk_steps", chunk_steps)):
        check_integer(name, number)
    if n_steps % save_every:
        raise InputError(f"n_steps = {n_steps} must be a positive multiple of save_every = {save_every}")
    first = system.system if isinstance(system, MDState) else system
    check_system(first)
    done_before = int(np.max(np.asarray(system.step))) if isinstance(system, MDState) else 0
    if done_before + n_steps >= 2**31:
        raise InputError(f"n_steps = {n_steps} after {done_before}: steps are counted up to {2**31 - 1}")
    check_integrator(integrator)
    check_limits(limits)
    # On the host, where taking a replica out costs nothing.
    host = jax.tree.map(np.asarray, first)
    batched = first.positions.ndim == 3
    for r in range(len(first.positions) if batched else 1):
        one = jax.tree.map(lambda x, r=r: x[r], host) if batched else host
        if not isinstance(system, MDState):
            # Atoms of a state do not coincide: its forces are finite, which is seen below.
            validate_system(one)
        validate_inputs(potential, params, one)
    if isinstance(system, MDState):
        check_state(integrator, system)
    return first


def _check_start(system: System, temperature: float | None, momenta: Array | None, key: Array | None) -> None:
    """Raise an `InputError` for what no run can start from."""
    if (temperature is None) == (momenta is None):
        raise InputError("give either initial_temperature or momenta to start from")
    if key is None:
        raise InputError("give a key, the seed of momenta and noise: key=jax.random.key(0)")
    check_key(key)
    if momenta is None:
        check_positive("initial_temperature", temperature, "K")
        if np.ndim(np.asarray(temperature)):
            raise InputError(f"initial_temperature = {temperature} K must be one number, for all replicas")
        return
    check_momenta(momenta, system)
    if not np.isfinite(np.asarray(momenta)).all():
        raise InputError("momenta are not finite")
    if system.fixed is not None and np.any(np.asarray(momenta)[np.asarray(system.fixed)]):
        raise InputError("momenta of fixed atoms must be zero")


def _check_forces(start: MDState, done: Rollout) -> None:
    """Raise an `InputError` for a run that was over before its first step for its forces."""
    if flags_of(done.status) & Flag.NEIGHBOR_OVERFLOW:
        return
    if (np.asarray(done.state.step) == np.asarray(start.step)).any():
        raise InputError("forces at the start are not finite: atoms overlap, or params are out of range")
