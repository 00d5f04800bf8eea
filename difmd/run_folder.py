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

from difmd import h5md
from difmd.checkpoint import as_like, ensure_writable, plain
from difmd.errors import InputError
from difmd.system import System

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
        self.files, damaged = found_in(self.folder, settings)
        self.messages = [f"{what}: what it held is computed again" for what in damaged]

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

    def add(self, frames: h5md.Frames, state: Any, meta: dict[str, Any]) -> None:
        """Write frames that follow those there, and the state after them.

        Raises:
            InputError: the folder cannot be written; what was there before is kept.
        """
        first, last = self.n_frames, self.n_frames + len(frames.energy)
        leaves = [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(state)]
        end = h5md.End(leaves, meta, self.settings, first, last)
        path = self.folder / _PARTS / f"{last:012d}.h5"
        self._write(path, lambda name, low, high: getattr(frames, name)[low:high], end)
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

    def provenance(self, **more: Any) -> None:
        """Add a line to `provenance.jsonl` that says what the run is made with from here on."""
        from difmd import __version__

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
    """Files of a run without gap from its start, and which others are damaged and how (host).

    Args:
        folder: of the run.
        settings: what all files must have been made with; None: anything.

    Raises:
        InputError: they are of another run.
    """
    files: list[File] = []
    damaged: list[str] = []

    def read(path: Path) -> h5md.End | None:
        if not path.exists():
            return None
        try:
            end = h5md.read_end(path)
        except h5md.Damaged as error:
            damaged.append(f"{path} is damaged ({error})")
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
    for path in sorted((folder / _PARTS).glob("[0-9]*.h5")):
        end, reached = read(path), files[-1].end.last if files else 0
        if end is not None and end.first == reached:
            files.append(File(path, end))
    return files, damaged


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
