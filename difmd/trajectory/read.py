"""`read_trajectory`: trajectories that `simulate` wrote to disk."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from difmd._internal.argument_checks import as_path
from difmd._internal.checkpoint import as_like
from difmd.errors import InputError
from difmd.integrators import Integrator, MDState
from difmd.integrators.base import check_integrator, start, state_shapes
from difmd.system import System
from difmd.trajectory import h5md
from difmd.trajectory.run_folder import TRAJECTORY, File, files_in, listing
from difmd.trajectory.trajectory import Trajectory

# Frames read at a time.
_BLOCK = 64

# Attempts to read a run in progress, whose parts may be joined while they are read.
_ATTEMPTS = 5

_GIVE = f"give the folder= of simulate, or its {TRAJECTORY}"
_REMEDY = "copy it again, or make the same call of simulate again, which computes what is missing"


def read_trajectory(
    path: str | Path, *, frames: slice = slice(None), integrator: Integrator | None = None
) -> Trajectory:
    """Read the frames that `simulate(…, folder=…)` wrote, also during the run or after it was stopped (host).

    The checksums of all files are verified, whichever frames are selected.

    Args:
        path: the folder of a run, or one of its H5MD files.
        frames: which frames to read, such as `slice(-100, None)`, for runs that are larger than memory.
        integrator: that of the run; without it, `state` is None unless it consists of positions and momenta,
            as for `velocity_verlet` and `langevin`.

    Returns:
        `Trajectory` with the state after the last frame of the run, whichever frames are selected. Frames
        have the precision of the run; so have system and state, float64 ones only with `jax_enable_x64`.

    Raises:
        InputError: there is no such run; a file is damaged, missing between others, or not by `simulate`;
            `frames` is not a slice; the integrator is not that of the run; h5py is not installed.
    """
    h5md.h5py()
    if not isinstance(frames, slice):
        raise InputError(f"frames = {frames!r} must be a slice, such as slice(0, None, 10)")
    path = as_path("path", path)
    for _ in range(_ATTEMPTS - 1):
        before = listing(path)
        with contextlib.suppress(h5md.Damaged, OSError):
            try:
                return _read(path, frames, integrator)
            except InputError:
                # Files that the run replaced meanwhile are not damaged.
                if listing(path) == before:
                    raise
    try:
        return _read(path, frames, integrator)
    except (h5md.Damaged, OSError) as error:
        raise InputError(f"trajectory {path} cannot be read ({error}): {_REMEDY}") from error


def _read(path: Path, frames: slice, integrator: Integrator | None) -> Trajectory:
    """One attempt to read files; raises `Damaged` or `OSError` if another process replaces them meanwhile."""
    files = _files(path)
    end = files[-1].end
    first, n_frames = files[0].end.first, end.last - files[0].end.first
    try:
        numbers = range(n_frames)[frames]
    except (TypeError, ValueError) as error:
        raise InputError(f"frames = {frames!r} is no slice of {n_frames} frames: {error}") from None
    if not numbers:
        raise InputError(f"frames = {frames!r} has none of the {n_frames} frames of this run")
    system = h5md.read_start(files[0].path)
    with h5md.joined([file.path for file in files]) as read:
        stored = h5md.frames_of(lambda name: _selected(read, name, numbers), system)
    steps = end.meta["step"] - end.meta["save_every"] * (end.last - first - 1 - np.array(numbers, int))
    # Rounded to float32 where float64 is not enabled.
    system = jax.tree.map(lambda x: jnp.asarray(x.astype(jax.dtypes.canonicalize_dtype(x.dtype))), system)
    state = _state(end.leaves, system, integrator)
    meta = {name: end.meta[name] for name in ("dt", "n_replays", "skin")}
    return Trajectory(system=system, frames=stored, steps=steps, state=state, **meta)


def _files(path: Path) -> Sequence[File]:
    """The files of a run, or the given file; raises `Damaged` if some are replaced meanwhile."""
    if path.is_dir():
        before = listing(path)
        files, lost = files_in(path)
        # Parts that are joined during the listing would look like a shorter run.
        if not before.items() <= listing(path).items():
            raise h5md.Damaged("its files are being replaced")
        if lost:
            raise InputError(f"{'; '.join(lost)}: {_REMEDY}")
        if not files:
            raise InputError(f"{path} holds no frame of a run: {_GIVE}")
        return files
    if not path.exists():
        raise InputError(f"there is no trajectory {path}: {_GIVE}")
    try:
        return [File(path, h5md.read_end(path))]
    except h5md.Damaged as error:
        raise InputError(
            f"trajectory {path} cannot be read ({error}): it is damaged, or not by simulate; {_REMEDY}"
        ) from error


def _selected(read: h5md.Read, name: str, numbers: range) -> np.ndarray:
    """Some frames of a series, read in blocks."""
    at_once = max(1, _BLOCK // abs(numbers.step))
    parts = []
    for begin in range(0, len(numbers), at_once):
        some = np.array(numbers[begin : begin + at_once])
        low, high = some.min(), some.max() + 1
        parts.append(read(name, int(low), int(high))[some - low])
    return np.concatenate(parts)


def _state(leaves: list[np.ndarray], system: System, integrator: Integrator | None) -> MDState | None:
    """The state with these leaves; None where it needs the integrator."""
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
    """Whether a stored array has the shape of a leaf; keys are stored as their data."""
    is_key = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
    return (stored.shape[:-1] if is_key else stored.shape) == like.shape
