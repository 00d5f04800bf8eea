"""A run on disk: files of frames that are joined into one, each with a state to continue from."""

from __future__ import annotations

import contextlib
import json
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from difmd._internal.checkpoint import as_like, ensure_writable, plain
from difmd._internal.version import __version__
from difmd.errors import InputError
from difmd.system import System
from difmd.trajectory import h5md
from difmd.trajectory.frames import Frames

TRAJECTORY = "trajectory.h5"
_PREVIOUS = "trajectory.previous.h5"
_PARTS = "parts"


class File(NamedTuple):
    """A file of a run, and its `End`."""

    path: Path
    end: h5md.End


class RunFolder:
    """The files of one run (host).

    `trajectory.h5` holds the first frames of the run, `parts` later ones until the run is complete. Each file
    holds the state after its last frame.
    """

    def __init__(self, folder: str | Path, system: System, settings: str, *, every: int, dt: float) -> None:
        """Open or create the folder of a run; `settings` is a fingerprint of everything its frames depend on.

        Raises `InputError` if h5py is not installed, or the folder is not writable or holds another run.
        """
        h5md.h5py()
        self.folder = Path(folder)
        self.system, self.settings, self.every, self.dt = system, settings, every, dt
        ensure_writable(self.folder / _PARTS)
        self.files, lost = files_in(self.folder, settings)
        again = f"frames from {self.n_frames + 1} on are computed again"
        self.messages = [f"{reason}: {again}" for reason in lost]

    @property
    def n_frames(self) -> int:
        """Number of frames on disk."""
        return self.files[-1].end.last if self.files else 0

    def end(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """The state after the last frame, in the structure of another state, and its `meta`."""
        end = self.files[-1].end
        leaves, tree = jax.tree.flatten(like)
        state = [as_like(x, y) for x, y in zip(end.leaves, leaves, strict=True)]
        return jax.tree.unflatten(tree, state), end.meta

    def add(self, frames: Frames, state: Any, meta: dict[str, Any]) -> None:
        """Append frames, and the state after them; raises `InputError` if the folder is not writable."""
        first, last = self.n_frames, self.n_frames + len(frames.positions)
        leaves = [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(state)]
        end = h5md.End(leaves, meta, self.settings, first, last)
        path = self.folder / _PARTS / _name(last)
        series = h5md.series_of(frames, self.system)
        self._write(path, lambda name, low, high: series[name][low:high], end)
        self.files.append(File(path, end))
        of_parts = last - (self.files[0].end.last if self.files[0].path.name == TRAJECTORY else 0)
        # Joining when the parts are half of all frames copies each frame only a few times.
        if of_parts >= max(last // 2, 10_000):
            self.join()

    def join(self) -> None:
        """Join all files into one; raises `InputError` if the folder is not writable."""
        target = self.folder / TRAJECTORY
        if len(self.files) > 1 or (self.files and self.files[0].path != target):
            end = self.files[-1].end._replace(first=0)
            # A damaged file must not replace a valid one.
            previous = self.folder / _PREVIOUS if self.files[0].path == target else None
            with h5md.joined([each.path for each in self.files]) as read:
                self._write(target, read, end, previous)
            self.files = [File(target, end)]
            for path in (self.folder / _PARTS).iterdir():
                path.unlink(missing_ok=True)

    def _write(self, path: Path, read: Any, end: h5md.End, previous: Path | None = None) -> None:
        h5md.write(path, self.system, read, end, dt=self.dt, every=self.every, previous=previous)

    def frames(self, first: int = 0) -> Frames:
        """The frames on disk, from number `first` on."""
        with h5md.joined([each.path for each in self.files]) as read:
            return h5md.frames_of(lambda name: read(name, first, self.n_frames), self.system)

    def provenance(self, **more: Any) -> None:
        """Append a line to `provenance.jsonl` about the versions, the devices and the call."""
        entry: dict[str, Any] = {"begins_after_frame": self.n_frames, "settings": self.settings, **more}
        entry |= {"difmd": __version__, "jax": jax.__version__, "python": platform.python_version()}
        entry |= {"devices": [str(device) for device in jax.devices()], "command": sys.argv}
        entry["date"] = time.strftime("%Y-%m-%dT%H:%M:%S")
        with open(self.folder / "provenance.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def files_in(folder: Path, settings: str | None = None) -> tuple[list[File], list[str]]:
    """The consecutive files of a run from its first frame on, and messages about damaged or missing ones.

    Frames after a gap are not used, since they may not continue the same run. A file whose fingerprint is not
    `settings` raises `InputError`.
    """
    files: list[File] = []
    damaged: dict[Path, str] = {}
    missing: list[str] = []

    def read(path: Path) -> h5md.End | None:
        if not path.exists():
            return None
        try:
            end = h5md.read_end(path)
        except h5md.Damaged as error:
            # A part that disappeared since was joined, not damaged.
            if path.exists():
                damaged[path] = f"{path} is damaged ({error})"
            return None
        if settings is not None and end.settings != settings:
            raise InputError(
                f"{folder} holds another run, or one with other settings: choose another folder, or "
                "delete it to start again"
            )
        return end

    for name in (TRAJECTORY, _PREVIOUS):
        end = read(folder / name)
        if end is not None:
            files = [File(folder / name, end)]
            break
    reached = accounted = files[-1].end.last if files else 0
    for path in sorted((folder / _PARTS).glob("[0-9]*.h5")):
        end = read(path)
        if end is None:
            # The name of a damaged part is the number of its last frame.
            if path in damaged and path.stem.isdigit():
                accounted = max(accounted, int(path.stem))
            continue
        if end.first == reached:
            files.append(File(path, end))
            reached = end.last
        elif end.first > accounted:
            missing.append(f"frames {accounted + 1} to {end.first} in {folder} are missing")
        accounted = max(accounted, end.last)
    # Between the two renames of a join the parts still exist.
    if [file.path.name for file in files] == [_PREVIOUS] and not (damaged or missing):
        missing.append(f"{folder / TRAJECTORY} is missing")
    # After a part was written again with another length, a damaged old one may be superfluous.
    last = _name(reached)
    lost = [reason for path, reason in damaged.items() if path.parent == folder or path.name > last]
    return files, lost + missing


def _name(last: int) -> str:
    """The file name of the part that ends with this frame."""
    return f"{last:012d}.h5"


def listing(path: Path) -> dict[Path, tuple[int, ...]]:
    """Identity, size and date of the files of a run, or of the given file, to detect replacements."""
    paths = [path]
    if path.is_dir():
        paths = [path / TRAJECTORY, path / _PREVIOUS, *(path / _PARTS).glob("[0-9]*.h5")]
    files: dict[Path, tuple[int, ...]] = {}
    for each in paths:
        with contextlib.suppress(FileNotFoundError):
            stat = each.stat()
            files[each] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return files


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that a terminated job stores its completed part."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
