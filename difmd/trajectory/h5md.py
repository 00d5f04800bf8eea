"""H5MD files of frames in Å, ps and eV, with the state after the last frame and a checksum.

H5MD: de Buyl, Colberg & Höfling, Comput. Phys. Commun. 185, 1546 (2014), doi:10.1016/j.cpc.2014.01.018.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from difmd._internal.checkpoint import atomically
from difmd.errors import InputError
from difmd.system import System
from difmd.trajectory.frames import Frames
from difmd.units import PS

_VERSION = (1, 1)

# Frames copied at a time.
_BLOCK = 64


class End(NamedTuple):
    """The state after the last frame of a file, and a fingerprint `settings` of what the frames depend on.

    `first` is the number of the frame before the first one in the file, `last` that of the last one.
    """

    leaves: list[np.ndarray]
    meta: dict[str, Any]
    settings: str
    first: int
    last: int


# The series of a file by their H5MD names, and their units.
_OBSERVED = {"potential_energy": "eV", "stress": "eV Angstrom-3", "reservoir": "eV"}
_SERIES = {"position": "Angstrom", "velocity": "Angstrom ps-1", "box/edges": "Angstrom", **_OBSERVED}

Read: TypeAlias = Callable[[str, int, int], np.ndarray]
"""`read(name, low, high)` → frames `low` to `high` of a series, counted from 0."""

# What HDF5 raises for a truncated or modified file.
_UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)


class Damaged(Exception):
    """A file that is truncated, was modified, or was not written by `simulate`."""


def write(
    path: Path, system: System, read: Read, end: End, *, dt: float, every: int, previous: Path | None = None
) -> None:
    """Write a file, completely or not at all, and move an existing one to `previous`.

    Its bytes depend on its contents alone. `every` is the number of steps between frames. Raises `InputError`
    if the file cannot be written; an existing one is then unchanged.
    """
    with atomically(path, what="trajectory ", previous=previous) as partial:
        with h5py().File(partial, "w") as file:
            _fill(file, system, read, end, dt, every)


def read_end(path: Path) -> End:
    """The `End` of a file after its checksum was verified; raises `Damaged` with the reason."""
    try:
        with h5py().File(path, "r") as file:
            group = file["difmd"]
            attributes = dict(group.attrs)
            n_leaves = sum(name.startswith("state_") for name in group)
            leaves = [np.asarray(group[f"state_{n}"][()]) for n in range(n_leaves)]
            first, last = int(attributes["first"]), int(attributes["last"])
            end = End(leaves, json.loads(attributes["meta"]), str(attributes["settings"]), first, last)
            if _digest(lambda *of: series(file, *of), end, _start_in(file)) != attributes["sha256"]:
                raise Damaged("wrong checksum")
            return end
    except _UNREADABLE as error:
        raise Damaged(str(error)) from error


def read_start(path: Path) -> System:
    """The initial configuration of the run of a file, in NumPy; raises `Damaged` with the reason."""
    try:
        with h5py().File(path, "r") as file:
            return _start_in(file)
    except _UNREADABLE as error:
        raise Damaged(str(error)) from error


def _start_in(file: Any) -> System:
    """The initial configuration in an open file."""
    groups = [file[f"particles/{name}"] for name in sorted(file["particles"])]
    start = file["difmd/start"]

    def each(of: Callable[[Any], Any]) -> Any:
        values = [np.asarray(of(group)) for group in groups]
        return np.stack(values) if start["positions"].ndim == 3 else values[0]

    return System(
        positions=start["positions"][()],
        atomic_numbers=each(lambda group: group["species"][()]),
        masses=each(lambda group: group["mass"][()]),
        cell=start["cell"][()],
        # Bytes or text, depending on h5py.
        pbc=each(lambda group: [x in (b"periodic", "periodic") for x in group["box"].attrs["boundary"]]),
        fixed=start["fixed"][()] if "fixed" in start else None,
    )


def series_of(frames: Frames, system: System) -> dict[str, np.ndarray]:
    """Frames as the series of a file, with velocities [Å/ps] instead of momenta."""
    momenta = frames.momenta
    velocities = (momenta / np.asarray(system.masses)[..., None] * PS).astype(momenta.dtype)
    particles = {"position": frames.positions, "velocity": velocities, "box/edges": frames.cells}
    return particles | {name: getattr(frames, name) for name in _OBSERVED}


def frames_of(read: Callable[[str], np.ndarray], system: System) -> Frames:
    """The frames whose series `read(name)` returns; the inverse of `series_of`."""
    velocities = read("velocity")
    return Frames(
        positions=read("position"),
        momenta=(velocities * np.asarray(system.masses)[..., None] / PS).astype(velocities.dtype),
        cells=read("box/edges"),
        **{name: read(name) for name in _OBSERVED},
    )


def series(file: Any, name: str, low: int, high: int) -> np.ndarray:
    """Frames `low` to `high` of a series in an open file."""
    if name in _OBSERVED:
        return file[f"observables/{name}/value"][low:high]
    groups = sorted(file["particles"])
    parts = [file[f"particles/{group}/{name}/value"][low:high] for group in groups]
    return parts[0] if groups == ["all"] else np.stack(parts, axis=1)


def _fill(file: Any, system: System, read: Read, end: End, dt: float, every: int) -> None:
    """Write everything in a fixed order."""
    file.create_group("h5md").attrs["version"] = _VERSION
    for role in ("author", "creator"):
        group = file.create_group(f"h5md/{role}")
        group.attrs["name"], group.attrs["version"] = "difmd", "1"
    steps = every * np.arange(end.first + 1, end.last + 1)
    times = steps * (dt / PS)
    numbers, masses, pbc = (np.asarray(x) for x in (system.atomic_numbers, system.masses, system.pbc))
    # The groups of particles, and the index of each among the replicas.
    places: dict[str, Any] = {"all": ()}
    if numbers.ndim == 2:
        places = {f"replica_{r:04d}": (r,) for r in range(len(numbers))}
    n_frames = end.last - end.first

    def element(place: str, value: np.ndarray, unit: str) -> Any:
        group = file.create_group(place)
        group["step"], group["time"] = steps, times
        group["time"].attrs["unit"] = "ps"
        dataset = group.create_dataset("value", shape=(n_frames, *value.shape), dtype=value.dtype)
        dataset.attrs["unit"] = unit
        return dataset

    for name, at in places.items():
        particles = file.create_group(f"particles/{name}")
        particles["species"], particles["mass"] = numbers[at], masses[at]
        particles["mass"].attrs["unit"] = "amu"
        box = particles.create_group("box")
        box.attrs["dimension"] = 3
        box.attrs["boundary"] = [b"periodic" if p else b"none" for p in pbc[at]]
    for key, unit in _SERIES.items():
        first = read(key, 0, 1)[0]
        if key in _OBSERVED:
            targets: dict[Any, Any] = {(): element(f"observables/{key}", first, unit)}
        else:
            targets = {at: element(f"particles/{name}/{key}", first[at], unit) for name, at in places.items()}
        for low in range(0, n_frames, _BLOCK):
            high = min(low + _BLOCK, n_frames)
            block = read(key, low, high)
            for at, target in targets.items():
                target[low:high] = block[(slice(None), *at)]
    group = file.create_group("difmd")
    for key in ("positions", "cell", "fixed"):
        if getattr(system, key) is not None:
            group[f"start/{key}"] = np.asarray(getattr(system, key))
    for n, leaf in enumerate(end.leaves):
        group[f"state_{n}"] = leaf
    group.attrs["meta"] = json.dumps(end.meta, sort_keys=True)
    for key in ("settings", "first", "last"):
        group.attrs[key] = getattr(end, key)
    group.attrs["sha256"] = _digest(read, end, system)


def _digest(read: Read, end: End, start: System) -> str:
    """The checksum of all series and of the rest of a file."""
    digest = hashlib.sha256()
    n_frames = end.last - end.first
    for name in _SERIES:
        for low in range(0, n_frames, _BLOCK):
            digest.update(np.ascontiguousarray(read(name, low, min(low + _BLOCK, n_frames))).tobytes())
    for leaf in (*end.leaves, *jax.tree.leaves(start)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    digest.update(json.dumps([end.meta, end.settings, end.first, end.last], sort_keys=True).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def joined(paths: Sequence[Path]) -> Iterator[Read]:
    """`Read` over the frames of consecutive files; raises `Damaged` with the reason."""
    with contextlib.ExitStack() as stack:
        try:
            files = [stack.enter_context(h5py().File(path, "r")) for path in paths]
            lengths = [int(file["difmd"].attrs["last"] - file["difmd"].attrs["first"]) for file in files]
        except _UNREADABLE as error:
            raise Damaged(str(error)) from error
        begins = [sum(lengths[:k]) for k in range(len(lengths))]

        def read(name: str, low: int, high: int) -> np.ndarray:
            return np.concatenate([
                series(file, name, max(low - begin, 0), min(high - begin, length))
                for file, begin, length in zip(files, begins, lengths, strict=True)
                if begin < high and low < begin + length
            ])  # fmt: skip

        yield read


def h5py() -> Any:
    """The h5py package, or an `InputError` if it is not installed."""
    try:
        import h5py as package
    except ImportError as error:
        raise InputError("h5py is needed for trajectories on disk: pip install h5py") from error
    return package
