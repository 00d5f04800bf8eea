"""A run on disk: frames in parts that are joined to one file, and the state to go on from."""

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
    """A file of a run, and what it ends with."""

    path: Path
    end: h5md.End


class RunFolder:
    """The files of one run (host).

    `trajectory.h5` holds the first frames of the run, at its end all of them; what came after it while the
    run goes on lies in `parts`. Each file is complete or not there, and ends with the state after its last
    frame.
    """

    def __init__(self, folder: str | Path, system: System, settings: str, *, every: int, dt: float) -> None:
        """Open or create it.

        Args:
            folder: where.
            system: the start, for what does not change.
            settings: fingerprint of all that the frames depend on.
            every: steps from frame to frame.
            dt: time step [Å√(amu/eV)].

        Raises:
            InputError: h5py is not installed, the folder cannot be written, or holds another run.
        """
        h5md.h5py()
        self.folder = Path(folder)
        self.system, self.settings, self.every, self.dt = system, settings, every, dt
        ensure_writable(self.folder / _PARTS)
        self.files, lost = found_in(self.folder, settings)
        again = f"frames from {self.n_frames + 1} on are computed again"
        self.messages = [f"{what}: {again}" for what in lost]

    @property
    def n_frames(self) -> int:
        """Frames that are on disk."""
        return self.files[-1].end.last if self.files else 0

    def end(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """The state after the last frame, in the structure of another one, and what was kept with it."""
        end = self.files[-1].end
        leaves, tree = jax.tree.flatten(like)
        state = [as_like(x, y) for x, y in zip(end.leaves, leaves, strict=True)]
        return jax.tree.unflatten(tree, state), end.meta

    def add(self, frames: Frames, state: Any, meta: dict[str, Any]) -> None:
        """Write frames that follow those there, and the state after them.

        Raises:
            InputError: the folder cannot be written; what was there before is kept.
        """
        first, last = self.n_frames, self.n_frames + len(frames.positions)
        leaves = [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(state)]
        end = h5md.End(leaves, meta, self.settings, first, last)
        path = self.folder / _PARTS / _name(last)
        series = h5md.series_of(frames, self.system)
        self._write(path, lambda name, low, high: series[name][low:high], end)
        self.files.append(File(path, end))
        of_parts = last - (self.files[0].end.last if self.files[0].path.name == TRAJECTORY else 0)
        # As many again as there are: a frame is copied a few times at most.
        if of_parts >= max(last // 2, 10_000):
            self.join()

    def join(self) -> None:
        """Make one file of all.

        Raises:
            InputError: the folder cannot be written; what was there before is kept.
        """
        target = self.folder / TRAJECTORY
        if len(self.files) > 1 or (self.files and self.files[0].path != target):
            end = self.files[-1].end._replace(first=0)
            # Nothing that is damaged takes the place of what is not.
            previous = self.folder / _PREVIOUS if self.files[0].path == target else None
            with h5md.joined([each.path for each in self.files]) as read:
                self._write(target, read, end, previous)
            self.files = [File(target, end)]
            for path in (self.folder / _PARTS).iterdir():
                path.unlink(missing_ok=True)

    def _write(self, path: Path, read: Any, end: h5md.End, previous: Path | None = None) -> None:
        h5md.write(path, self.system, read, end, dt=self.dt, every=self.every, previous=previous)

    def frames(self, first: int = 0) -> Frames:
        """All frames that are on disk, or those from a number on."""
        with h5md.joined([each.path for each in self.files]) as read:
            return h5md.frames_of(lambda name: read(name, first, self.n_frames), self.system)

    def provenance(self, **more: Any) -> None:
        """Add a line to `provenance.jsonl` that says what the run is made with from here on."""
        entry = {
            "begins_after_frame": self.n_frames,
            "settings": self.settings,
            **more,
            "difmd": __version__,
            "jax": jax.__version__,
            "python": platform.python_version(),
            "devices": [str(device) for device in jax.devices()],
            "command": sys.argv,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        with open(self.folder / "provenance.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def found_in(folder: Path, settings: str | None = None) -> tuple[list[File], list[str]]:
    """Files of a run without gap from its start, and what else is damaged or missing (host).

    Frames after a gap are of no use, as nothing says how the run got there.

    Args:
        folder: of the run.
        settings: what all files must have been made with; None: anything.

    Raises:
        InputError: they are of another run.
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
            # Gone since, when parts are joined, is not damaged.
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
    reached = told = files[-1].end.last if files else 0
    for path in sorted((folder / _PARTS).glob("[0-9]*.h5")):
        end = read(path)
        if end is None:
            # Of what is damaged the name tells where it ended.
            told = max(told, int(path.stem)) if path in damaged and path.stem.isdigit() else told
            continue
        if end.first == reached:
            files.append(File(path, end))
            reached = end.last
        elif end.first > told:
            missing.append(f"frames {told + 1} to {end.first} in {folder} are missing")
        told = max(told, end.last)
    # Between two renames of a join there are parts besides.
    if [file.path.name for file in files] == [_PREVIOUS] and not (damaged or missing):
        missing.append(f"{folder / TRAJECTORY} is missing")
    # A part that was written anew in other lengths may leave one that nothing needs.
    needed = [what for path, what in damaged.items() if path.parent == folder or path.name > _name(reached)]
    return files, needed + missing


def _name(last: int) -> str:
    """Of the part that ends with this frame."""
    return f"{last:012d}.h5"


def listing(path: Path) -> dict[Path, tuple[int, ...]]:
    """Files of a run, or the one that is given, as they are now; one that was replaced differs."""
    paths = [path]
    if path.is_dir():
        paths = [path / TRAJECTORY, path / _PREVIOUS, *(path / _PARTS).glob("[0-9]*.h5")]
    found: dict[Path, tuple[int, ...]] = {}
    for each in paths:
        with contextlib.suppress(FileNotFoundError):
            stat = each.stat()
            found[each] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C, so that a job that is stopped keeps what it has."""
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
