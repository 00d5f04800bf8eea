"""The frames that a simulation has completed, in memory or on disk, and the text of its progress bar."""

from __future__ import annotations

import time
import warnings
from typing import Any, NamedTuple

import numpy as np

from difmd import units
from difmd.integrators import Integrator, MDState, kinetic_energy
from difmd.neighbors import Neighbors, capacity_of, with_capacity
from difmd.simulation.chunk import Checks
from difmd.simulation.engine import Chunk, frames_first
from difmd.system import System
from difmd.trajectory.frames import Frames
from difmd.trajectory.run_folder import RunFolder
from difmd.trajectory.temperature import kinetic_temperature
from difmd.trajectory.trajectory import Trajectory

WRITE_EVERY = 20.0
"""Seconds from one part of a run on disk to the next."""


class _Completed(NamedTuple):
    """Frames of a chunk on the host, the state after it, and the capacity of its list."""

    frames: Frames
    state: MDState
    capacity: dict[str, Any]


class Recorder:
    """Frames of the completed chunks: all of them in memory, or those that are not on disk yet."""

    def __init__(
        self, system: System, start: MDState, *, dt: float, skin: float, save_every: int, n_replays: int
    ) -> None:
        """Nothing is completed yet."""
        self.system, self.start = system, start
        self.dt, self.skin, self.save_every = dt, skin, save_every
        self.n_replays = n_replays
        self.disk: RunFolder | None = None
        self.chunks: list[_Completed] = []
        self.written = time.monotonic()

    @property
    def n_frames(self) -> int:
        """Number of completed frames."""
        on_disk = 0 if self.disk is None else self.disk.n_frames
        return on_disk + sum(len(chunk.frames.positions) for chunk in self.chunks)

    @property
    def state(self) -> MDState:
        """The state after the last completed frame."""
        return self.chunks[-1].state if self.chunks else self.start

    def attach(self, disk: RunFolder, neighbors: Neighbors) -> Neighbors:
        """Store frames on disk, continue from those there, and return the list to continue with."""
        self.disk = disk
        for message in disk.messages:
            warnings.warn(message, stacklevel=5)
        if not disk.n_frames:
            return neighbors
        self.start, meta = disk.end(self.start)
        self.n_replays = meta["n_replays"]
        return with_capacity(self.system, neighbors, meta["room"])

    def last_checks(self) -> Checks | None:
        """The checks of the last frame on disk, with a leading axis of 1; None where there is none."""
        if self.disk is None or not self.disk.n_frames:
            return None
        last = self.disk.frames(self.disk.n_frames - 1)
        kinetic = kinetic_energy(self.system, last.momenta)
        return Checks(last.potential_energy, kinetic, last.reservoir, last.cells, np.inf)

    def add(self, chunk: Chunk) -> None:
        """Store a completed chunk."""
        frames = frames_first(chunk.state, chunk.frames)
        # One statement, which Ctrl-C cannot interrupt halfway.
        self.chunks.append(_Completed(frames, chunk.state, capacity_of(chunk.neighbors)))
        self.n_replays += chunk.n_replays
        if time.monotonic() - self.written > WRITE_EVERY:
            self.flush()

    def finish(self) -> None:
        """Join all files on disk into one, including those of killed runs."""
        self.flush()
        if self.disk is not None:
            self.disk.join()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        if self.disk is None or not self.chunks:
            return
        state = self.state
        meta = {name: getattr(self, name) for name in ("n_replays", "skin", "dt", "save_every")}
        meta |= {"room": self.chunks[-1].capacity, "step": int(np.max(np.asarray(state.step)))}
        self.disk.add(self._in_memory(), state, meta)
        self.start, self.chunks, self.written = state, [], time.monotonic()

    def _in_memory(self) -> Frames:
        """The frames that are not on disk."""
        shape = self.system.positions.shape
        batch = shape[:-2]
        ends = (shape, shape, batch, (*batch, 3, 3), (*batch, 3, 3), batch)
        empty = Frames(*(np.zeros((0, *end)) for end in ends))
        parts = [chunk.frames for chunk in self.chunks] or [empty]
        return Frames(*(np.concatenate(series) for series in zip(*parts, strict=True)))

    def trajectory(self, *, load: bool = True) -> Trajectory:
        """All frames, read from disk if they are there; with `load=False` without those."""
        frames = self._in_memory()
        if load and self.disk is not None and self.disk.n_frames:
            frames = self.disk.frames()
        last = int(np.max(np.asarray(self.state.step)))
        steps = last - self.save_every * np.arange(len(frames.positions))[::-1]
        return Trajectory(
            system=self.system, frames=frames, steps=steps, dt=self.dt, state=self.state,
            n_replays=self.n_replays, skin=self.skin,
        )  # fmt: skip


class ProgressNote:
    """The note of the progress bar: temperature, speed, and the drift of a conserved energy."""

    def __init__(self, system: System, integrator: Integrator, dt: float) -> None:
        """Start the clock."""
        self.system, self.dt = system, dt
        self.is_conserved = integrator.reservoir is not None
        self.n_atoms = int(np.sum(np.asarray(system.atomic_numbers) > 0))
        self.clock = time.monotonic()
        self.first_energy: float | None = None

    def after(self, chunk: Chunk) -> str:
        """The note after a chunk."""
        state, checks = chunk.state, chunk.checks
        kelvin = np.mean(kinetic_temperature(self.system, state.momenta, state.system.positions))
        now = time.monotonic()
        ns_per_day = chunk.n_steps * self.dt / units.PS / 1000 * 86400 / max(now - self.clock, 1e-9)
        self.clock = now
        text = f"{kelvin:.0f} K, {ns_per_day:.3g} ns/day"
        if self.is_conserved:
            parts = (checks.potential_energy, checks.kinetic_energy, checks.reservoir)
            energy = float(sum(np.sum(x[-1], dtype=np.float64) for x in parts))
            if self.first_energy is None:
                self.first_energy = energy
            text += f", drift {(energy - self.first_energy) / self.n_atoms * 1000:.2g} meV/atom"
        return text
