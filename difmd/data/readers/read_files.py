"""`read` and `stream`: files of any kind to `Frame`s, checked and in difmd's units."""

from __future__ import annotations

import difflib
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from difmd._internal.argument_checks import as_path
from difmd._internal.progress import progress_bar
from difmd.data.frames import Frame
from difmd.data.label_units import Units, factors_of
from difmd.data.readers.ase_files import is_extxyz, read_database, read_extxyz, read_other
from difmd.data.readers.convert import NO_VOLUME, to_frame
from difmd.data.readers.deepmd import find_deepmd, read_deepmd
from difmd.data.readers.hdf5 import read_hdf5
from difmd.data.readers.labels import Keys
from difmd.data.readers.raw import BadFile, BadFrame, Raw
from difmd.errors import InputError

# Longer than this one does not like to wait without a sign [s].
_LONG = 2.0


def read(
    path: str | Path,
    *,
    keys: Keys = Keys(),  # noqa: B008 (immutable)
    units: Units = Units(),  # noqa: B008
    skip_bad: bool = False,
    progress: bool | None = None,
) -> list[Frame]:
    """Read configurations with their labels, and check every one of them.

    Read are extended XYZ (`.xyz`, `.extxyz`, also `.gz`, `.bz2`, `.xz`), folders of DeePMD-kit, HDF5 files in
    the layout of `difmd.data.readers.hdf5` (`.h5`, `.hdf5`), ASE databases (`.db`) and every other file
    that ASE knows, such as vasprun.xml, OUTCAR, trajectories, and outputs of QE, aims, ORCA, GPAW and CASTEP.

    Args:
        path: a file, or a folder of DeePMD-kit or of several such folders.
        keys: names of the labels in the file; default: the common ones are looked for.
        units: of the numbers in the file; default: eV and Å.
        skip_bad: leave out frames that cannot be used, with a warning that says how many and why, instead of
            refusing the file.
        progress: show a bar; default: once it takes longer than 2 s.

    Returns:
        The frames, in the order of the file. A virial becomes the stress −virial/V; it is left out for
        frames that are not periodic, for which there is none.

    Raises:
        InputError: the file is missing, empty, cut off or of an unknown format; a frame has an element that
            is none, positions or labels that are not finite or of a wrong shape, or atoms that coincide; no
            frame has a label. The message names file, frame and remedy.
    """
    path = as_path("path", path)
    skipped: list[str] = []
    used: dict[str, Counter[str]] = {}
    frames = []
    found = _stream(path, keys, units, skip_bad, skipped, used)
    began = time.monotonic()
    # The length of a file is known only at its end, so the bar counts without one.
    bar = progress_bar(f"reading {path.name}", None)
    with ExitStack() as stack:
        advance = stack.enter_context(bar) if progress else None
        for frame in found:
            frames.append(frame)
            if advance is None and progress is None and time.monotonic() - began > _LONG:
                advance = stack.enter_context(bar)
                advance(len(frames) // 100 * 100)
            elif advance is not None and len(frames) % 100 == 0:
                advance(100)
    for message in _remarks(path, len(frames), skipped, used):
        warnings.warn(message, stacklevel=2)
    return frames


def stream(
    path: str | Path,
    *,
    keys: Keys = Keys(),  # noqa: B008 (immutable)
    units: Units = Units(),  # noqa: B008
    skip_bad: bool = False,
) -> Iterator[Frame]:
    """As `read`, but one frame after the other, so that a file may be larger than memory.

    Args:
        path: as for `read`.
        keys: as for `read`.
        units: as for `read`.
        skip_bad: as for `read`; the warning comes at the end.

    Returns:
        An iterator over the frames.

    Raises:
        InputError: as `read`, when the frame in question is reached.
    """
    return _warning_at_the_end(as_path("path", path), keys, units, skip_bad)


def _warning_at_the_end(path: Path, keys: Keys, units: Units, skip_bad: bool) -> Iterator[Frame]:
    skipped: list[str] = []
    used: dict[str, Counter[str]] = {}
    done = 0
    for frame in _stream(path, keys, units, skip_bad, skipped, used):
        done += 1
        yield frame
    for message in _remarks(path, done, skipped, used):
        warnings.warn(message, stacklevel=2)


def _stream(
    path: Path,
    keys: Keys,
    units: Units,
    skip_bad: bool,
    skipped: list[str],
    used: dict[str, Counter[str]],
) -> Iterator[Frame]:
    """Frames; what was left out and which names were used is written into `skipped` and `used`."""
    factors = factors_of(units)
    seen: Counter[str] = Counter()
    done = labelled = 0
    for place, source in _sources(path):
        try:
            for raw in source():
                try:
                    if isinstance(raw, BadFrame):
                        raise raw
                    frame = to_frame(raw, place, keys, factors, used)
                except InputError as error:
                    if isinstance(error, BadFile):
                        raise
                    message = f"{place}: {error}" if isinstance(raw, BadFrame) else str(error)
                    if not skip_bad:
                        raise InputError(f"{message}; or leave such frames out with skip_bad=True") from error
                    skipped.append(message)
                    continue
                seen.update(raw.values.keys())
                done += 1
                labelled += bool(frame.labels)
                yield frame
        except BadFile as error:
            message = f"{place}: {error}"
            if not (skip_bad and done):
                raise InputError(message) from error
            skipped.append(message)
    if not done:
        why = f"all {len(skipped)} frames are bad, the first: {skipped[0]}" if skipped else "it is empty"
        raise InputError(f"{path} holds no frame: {why}; check how it was written")
    if not labelled:
        there = ", ".join(sorted(seen)) or "nothing"
        raise InputError(
            f"{path}: none of {done} frames has an energy, forces, stress, dipole or charges; besides atoms "
            f"they carry {there}: say which of these are the labels with Keys(energy=..., forces=...)"
        )
    for label, name in zip(Keys._fields, keys, strict=True):
        if name is not None and name not in seen:
            near = difflib.get_close_matches(name, seen, n=1) or sorted(seen)
            raise InputError(
                f"{path}: Keys({label}={name!r}) is in none of {done} frames; there are {', '.join(near)}"
            )


def _sources(path: Path) -> list[tuple[str, Callable[[], Iterator[Raw | BadFrame]]]]:
    """What to read, each with the name that messages give it."""
    if not path.exists():
        folder = path.parent
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else f"{folder} "
            + (f"holds {', '.join(names[:8]) or 'nothing'}" if folder.is_dir() else "does not exist either")
        )
        raise InputError(f"there is no file {path}: {hint}")
    if path.is_dir():
        folders = find_deepmd(path)
        if not folders:
            names = sorted(item.name for item in path.iterdir())
            raise InputError(
                f"{path} is a folder without a DeePMD system (type.raw); give a file in it, of "
                f"{', '.join(names[:8]) or 'which it has none'}"
            )
        return [
            (str(Path(path.name) / folder.relative_to(path)), lambda folder=folder: read_deepmd(folder))  # type: ignore[misc]
            for folder in folders
        ]
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: 0 bytes; copy or write it again")
    if is_extxyz(path):
        return [(path.name, lambda: read_extxyz(path))]
    if path.suffix in (".h5", ".hdf5"):
        return [(path.name, lambda: read_hdf5(path))]
    if path.suffix == ".db":
        return [(path.name, lambda: read_database(path))]
    return [(path.name, lambda: read_other(path))]


def _remarks(path: Path, done: int, skipped: list[str], used: dict[str, Counter[str]]) -> Iterator[str]:
    """What the user should know although reading went through."""
    if skipped:
        reasons = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
        yield f"{path}: {len(skipped)} frames left out, {done} kept: {reasons}"
    energies = used.get("energy", Counter())
    if len(energies) > 1:
        counts = ", ".join(f"{name} in {count}" for name, count in energies.items())
        yield f"{path}: the energy has different names in different frames ({counts}): is it the same one?"
    if NO_VOLUME in used:
        yield (
            f"{path}: the virial of {used[NO_VOLUME]['virial']} frames left out: they are not periodic in "
            "all directions, and without a volume there is no stress"
        )
