"""Trajectories that runs have left on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.argument_checks import as_path
from difmd._internal.checkpoint import as_like
from difmd.errors import InputError
from difmd.integrators import Integrator, MDState
from difmd.integrators.base import check_integrator, start, state_shapes
from difmd.system import System
from difmd.trajectory import h5md
from difmd.trajectory.run_folder import TRAJECTORY, File, found_in, listing
from difmd.trajectory.trajectory import Trajectory

# Frames that are read at a time.
_BLOCK = 64

# Looks at files of a run that goes on, at most: its parts become one file while they are read.
_LOOKS = 5

_REMEDY = "copy it again, or make the same call of simulate again, which computes what is missing"


def read_trajectory(
    path: str | Path, *, frames: slice = slice(None), integrator: Integrator | None = None
) -> Trajectory:
    """Read what `simulate(…, folder=…)` wrote, also while it still runs or after it was stopped (host).

    All files are compared with their checksums, block by block, whichever frames are kept. Of a run that
    makes one file of its parts meanwhile they are read again.

    Args:
        path: the folder of a run, or one H5MD file of it, such as its `trajectory.h5`.
        frames: which of the frames to keep, `slice(-100, None)` or `slice(None, None, 10)`, for runs that are
            larger than memory.
        integrator: the one of the run, to go on from the `state`. There is a `state` without it only where
            nothing but positions and momenta moves, as with `velocity_verlet` and `langevin`.

    Returns:
        `Trajectory`; frames have the precision of the run. System and state have it, too, unless the run is
        in float64 and JAX is not: set `jax_enable_x64` to go on to the same bits. The state is the one after
        the last frame of the run, whichever frames are kept, or None where it takes the integrator.

    Raises:
        InputError: there is no such run; a file is damaged, cut off, missing between others, or not by
            `simulate`; frames that are no slice; another integrator than that of the run; h5py is not
            installed.
    """
    h5md.h5py()
    if not isinstance(frames, slice):
        raise InputError(f"frames = {frames!r} must be a slice, such as slice(0, None, 10)")
    path = as_path("path", path)
    for _ in range(_LOOKS - 1):
        before = listing(path)
        with contextlib.suppress(h5md.Damaged, OSError):
            try:
                return _read(path, frames, integrator)
            except InputError:
                # What a run does meanwhile is no damage.
                if listing(path) == before:
                    raise
    try:
        return _read(path, frames, integrator)
    except (h5md.Damaged, OSError) as error:
        raise InputError(f"trajectory {path} cannot be read ({error}): {_REMEDY}") from error


def _read(path: Path, frames: slice, integrator: Integrator | None) -> Trajectory:
    """A look at files which another process may replace.

    Raises:
        InputError: as `read_trajectory`.
        Damaged: a file was gone or another one when it was to be read.
        OSError: likewise.
    """
    files = _files(path)
    end = files[-1].end
    first, n_frames = files[0].end.first, end.last - files[0].end.first
    try:
        wanted = range(n_frames)[frames]
    except (TypeError, ValueError) as error:
        raise InputError(f"frames = {frames!r} is no slice of {n_frames} frames: {error}") from None
    if not wanted:
        raise InputError(f"frames = {frames!r} has none of the {n_frames} frames of this run")
    system = h5md.read_start(files[0].path)
    with h5md.joined([file.path for file in files]) as read:
        stored = h5md.frames_of(lambda name: _selected(read, name, wanted), system)
    steps = end.meta["step"] - end.meta["save_every"] * (end.last - first - 1 - np.array(wanted, int))
    here = jax.tree.map(_in_jax, system)
    return Trajectory(
        system=here,
        frames=stored,
        steps=steps,
        dt=end.meta["dt"],
        state=_state(end.leaves, here, integrator),
        n_replays=end.meta["n_replays"],
        skin=end.meta["skin"],
    )


def _files(path: Path) -> Sequence[File]:
    """The files of a run, or the one that is given.

    Raises:
        InputError: there are none, or one is damaged or missing.
        Damaged: some were replaced meanwhile.
    """
    if path.is_dir():
        before = listing(path)
        files, lost = found_in(path)
        # Parts that go while they are listed look like a run that is shorter.
        if not before.items() <= listing(path).items():
            raise h5md.Damaged("its files are replaced again and again")
        if lost:
            raise InputError(f"{'; '.join(lost)}: {_REMEDY}")
        if not files:
            raise InputError(
                f"{path} holds no frame of a run: give the folder= of simulate, or its {TRAJECTORY}"
            )
        return files
    if not path.exists():
        raise InputError(f"there is no trajectory {path}: give the folder= of simulate, or its {TRAJECTORY}")
    try:
        return [File(path, h5md.read_end(path))]
    except h5md.Damaged as error:
        raise InputError(
            f"trajectory {path} cannot be read ({error}): it is damaged, or not by simulate; {_REMEDY}"
        ) from error


def _selected(read: Callable[[str, int, int], np.ndarray], name: str, wanted: range) -> np.ndarray:
    """These frames of a series, without reading many others at a time."""
    if not wanted:
        return read(name, 0, 1)[:0]
    at_once = max(1, _BLOCK // abs(wanted.step))
    parts = []
    for begin in range(0, len(wanted), at_once):
        some = np.array(wanted[begin : begin + at_once])
        low, high = some.min(), some.max() + 1
        parts.append(read(name, int(low), int(high))[some - low])
    return np.concatenate(parts)


def _in_jax(stored: np.ndarray) -> Array:
    """An array of JAX, rounded to float32 where float64 is not enabled."""
    return jnp.asarray(stored.astype(jax.dtypes.canonicalize_dtype(stored.dtype)))


def _state(leaves: list[np.ndarray], system: System, integrator: Integrator | None) -> MDState | None:
    """The state of these leaves; None where there are others than those of a state without a bath.

    Raises:
        InputError: the integrator has other ones.
    """
    if integrator is not None:
        check_integrator(integrator)
    init = start if integrator is None else integrator.init
    places, tree = jax.tree.flatten(state_shapes(init, system))
    if len(places) != len(leaves) or not all(_fits(x, y) for x, y in zip(leaves, places, strict=True)):
        if integrator is None:
            return None
        raise InputError(
            "integrator has another state than that of this run: give the one that the run was made with"
        )
    return jax.tree.unflatten(tree, [as_like(x, y) for x, y in zip(leaves, places, strict=True)])


def _fits(stored: np.ndarray, like: Any) -> bool:
    """Whether a stored array has the place of another one; keys are stored as their numbers."""
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    return (stored.shape[:-1] if is_key else stored.shape) == like.shape
