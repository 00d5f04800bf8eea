"""What a simulation has done so far, in memory or on disk, and what its progress bar tells."""

from __future__ import annotations

import time
import warnings
from typing import Any, NamedTuple

import numpy as np

from difmd import units
from difmd.integrators import Integrator, MDState
from difmd.neighbors import Neighbors, capacity_of, with_capacity
from difmd.system import System
from difmd.trajectory import h5md
from difmd.trajectory.run_folder import RunFolder
from difmd.trajectory.trajectory import Trajectory, kinetic_temperature


class Record(NamedTuple):
    """What is kept of frames; [frames, *replicas, ...]."""

    positions: Any
    momenta: Any
    energy: Any
    stress: Any
    cell: Any
    reservoir: Any


WRITE_EVERY = 20.0
"""Seconds from one part of a run on disk to the next."""


class Committed:
    """Frames of the clean chunks: on the host, or those that are not on disk yet."""

    def __init__(
        self, system: System, start: MDState, dt: float, skin: float, save_every: int, n_replays: int
    ) -> None:
        """Nothing, yet."""
        self.system = system
        self.start = start
        self.dt = dt
        self.skin = skin
        self.save_every = save_every
        self.n_replays = n_replays
        self.disk: RunFolder | None = None
        # Frames, the state after them, and the room of its list.
        self.chunks: list[tuple[Record, MDState, dict[str, Any]]] = []
        self.written = time.monotonic()

    @property
    def n_frames(self) -> int:
        """Frames there are."""
        on_disk = 0 if self.disk is None else self.disk.n_frames
        return on_disk + sum(len(chunk.energy) for chunk, *_ in self.chunks)

    @property
    def state(self) -> MDState:
        """The last one."""
        return self.chunks[-1][1] if self.chunks else self.start

    def go_on(self, disk: RunFolder, state: MDState, neighbors: Neighbors) -> tuple[MDState, Neighbors]:
        """Keep frames on disk, and start from what is there."""
        self.disk = disk
        for message in disk.messages:
            warnings.warn(message, stacklevel=4)
        if not disk.n_frames:
            return state, neighbors
        self.start, meta = disk.end(state)
        self.n_replays = meta["n_replays"]
        return self.start, with_capacity(self.system, neighbors, meta["room"])

    def add(self, frames: Record, state: MDState, replays: int, neighbors: Neighbors) -> None:
        """A clean chunk: its frames, the state after it, and the list that it needed."""
        # Frames and state in one assignment, which Ctrl-C cannot come between.
        record = Record(*(np.asarray(x) for x in frames))
        self.chunks.append((record, state, capacity_of(neighbors)))
        self.n_replays += replays
        if time.monotonic() - self.written > WRITE_EVERY:
            self.flush()

    def last(self) -> Record | None:
        """The last frame, with a leading axis of 1; None where there is none."""
        if self.chunks:
            return Record(*(x[-1:] for x in self.chunks[-1][0]))
        if self.disk is None or not self.disk.n_frames:
            return None
        return _loaded(self.disk, self.system, self.disk.n_frames - 1)

    def finish(self) -> None:
        """Make one file of all that is on disk, also where a run was killed while it did."""
        self.flush()
        if self.disk is not None:
            self.disk.join()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        if self.disk is None or not self.chunks:
            return
        whole = self._whole()
        frames = h5md.Frames(
            positions=whole.positions,
            velocities=h5md.velocities_of(whole.momenta, self.system),
            cells=whole.cell,
            energy=whole.energy,
            stress=whole.stress,
            reservoir=whole.reservoir,
        )
        _, state, room = self.chunks[-1]
        meta = {
            "room": room,
            "n_replays": self.n_replays,
            "skin": self.skin,
            "dt": self.dt,
            "save_every": self.save_every,
            "step": int(np.max(np.asarray(state.step))),
        }
        self.disk.add(frames, state, meta)
        self.start, self.chunks, self.written = state, [], time.monotonic()

    def _whole(self) -> Record:
        shape = self.system.positions.shape
        batch = shape[:-2]
        ends = (shape, shape, batch, (*batch, 3, 3), (*batch, 3, 3), batch)
        empty = Record(*(np.zeros((0, *end)) for end in ends))
        records = [chunk for chunk, *_ in self.chunks] or [empty]
        return Record(*(np.concatenate(c) for c in zip(*records, strict=True)))

    def trajectory(self, *, load: bool = True) -> Trajectory:
        """All frames, from disk where they are there; none of those with `load=False`."""
        whole = self._whole()
        n_before = 0
        if self.disk is not None and self.disk.n_frames and load:
            whole = _loaded(self.disk, self.system)
        elif self.disk is not None:
            n_before = self.disk.n_frames
        n_frames = len(whole.energy)
        first_step = int(np.max(np.asarray(self.state.step))) - (n_before + n_frames) * self.save_every
        steps = first_step + self.save_every * np.arange(n_before + 1, n_before + n_frames + 1)
        return Trajectory(
            system=self.system,
            times=self.dt * steps,
            positions=whole.positions,
            momenta=whole.momenta,
            potential_energy=whole.energy,
            stress=whole.stress,
            cells=whole.cell,
            reservoir=whole.reservoir,
            state=self.state,
            n_replays=self.n_replays,
            skin=self.skin,
        )


def _loaded(disk: RunFolder, system: System, first: int = 0) -> Record:
    """Frames of a run on disk, all or from a number on."""
    with h5md.joined([each.path for each in disk.files]) as read:
        found = h5md.Frames(*(read(name, first, disk.n_frames) for name in h5md.Frames._fields))
    momenta = h5md.momenta_of(found.velocities, system)
    return Record(
        found.positions, momenta, found.energy, found.stress, found.cells, found.reservoir
    )  # fmt: skip


class Watch:
    """What the progress bar tells: temperature, speed, and how energy drifts where it is conserved."""

    def __init__(self, system: System, integrator: Integrator, dt: float) -> None:
        """Begin to watch."""
        self.system, self.dt = system, dt
        self.is_conserved = integrator.reservoir is not None
        self.n_atoms = int(np.sum(np.asarray(system.atomic_numbers) > 0))
        self.began = time.monotonic()
        self.start: float | None = None

    def note(self, frames: Record, n_steps: int) -> str:
        """Of the frames of a chunk that was done."""
        kelvin = np.mean(kinetic_temperature(self.system, frames.momenta[-1], frames.positions[-1]))
        now = time.monotonic()
        speed = n_steps * self.dt / units.PS / 1000 * 86400 / max(now - self.began, 1e-9)
        self.began = now
        text = f"{kelvin:.0f} K, {speed:.3g} ns/day"
        if self.is_conserved:
            masses = np.asarray(self.system.masses, np.float64)[..., None]
            kinetic = 0.5 * np.sum(np.asarray(frames.momenta[-1], np.float64) ** 2 / masses)
            rest = np.asarray(frames.energy[-1] + frames.reservoir[-1], np.float64)
            energy = float(kinetic + np.sum(rest))
            start = self.start = energy if self.start is None else self.start
            text += f", drift {(energy - start) / self.n_atoms * 1000:.2g} meV/atom"
        return text
