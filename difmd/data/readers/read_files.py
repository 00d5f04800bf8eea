"""`read` and `stream`: files of all formats to checked `Frame`s in eV, Å and e."""

from __future__ import annotations

import difflib
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from difmd._internal.argument_checks import as_path
from difmd._internal.progress import progress_bar
from difmd.data.frames import Frame
from difmd.data.label_units import Units, factors_of
from difmd.data.readers.ase_files import is_extxyz, read_database, read_extxyz, read_other
from difmd.data.readers.convert import NO_VOLUME, to_frame
from difmd.data.readers.deepmd import read_deepmd
from difmd.data.readers.hdf5 import read_hdf5
from difmd.data.readers.labels import Keys
from difmd.data.readers.raw import BadFile, BadFrame, Raw
from difmd.errors import InputError

# A progress bar appears after this time [s].
_LONG = 2.0


def read(
    path: str | Path,
    *,
    keys: Keys = Keys(),  # noqa: B008 (immutable)
    units: Units = Units(),  # noqa: B008
    skip_bad: bool = False,
    progress: bool | None = None,
) -> list[Frame]:
    """Read configurations with their labels, and check each of them.

    Formats: extended XYZ (`.xyz`, `.extxyz`, also `.gz`, `.bz2`, `.xz`), folders of DeePMD-kit, HDF5 with the
    layout of `difmd.data.readers.hdf5` (`.h5`, `.hdf5`), ASE databases (`.db`), and all other formats of ASE,
    such as vasprun.xml, OUTCAR, trajectories, and outputs of QE, aims, ORCA, GPAW and CASTEP.

    Args:
        path: a file, or a folder of DeePMD-kit or of several such folders.
        keys: names of the labels in the file; default: common names.
        units: of the numbers in the file; default: eV and Å.
        skip_bad: skip invalid frames with a warning that states their number and the reasons, instead of
            refusing the file.
        progress: show a progress bar; default: after 2 s.

    Returns:
        The frames, in the order of the file. A virial is converted to the stress −virial/V; it is ignored in
        frames without three periodic directions.

    Raises:
        InputError: the file is missing, empty, truncated or of an unknown format; a frame has an unknown
            element, positions or labels that are not finite or have a wrong shape, or coinciding atoms; no
            frame has a label. The message names file, frame and remedy.
    """
    path = as_path("path", path)
    frames = []
    began = time.monotonic()
    # The number of frames is unknown until the end of the file.
    bar = progress_bar(f"reading {path.name}", None)
    with ExitStack() as stack:
        advance = stack.enter_context(bar) if progress else None
        for frame in _stream(path, keys, units, skip_bad, stacklevel=3):
            frames.append(frame)
            if advance is None and progress is None and time.monotonic() - began > _LONG:
                advance = stack.enter_context(bar)
                advance(len(frames) // 100 * 100)
            elif advance is not None and len(frames) % 100 == 0:
                advance(100)
    return frames


def stream(
    path: str | Path,
    *,
    keys: Keys = Keys(),  # noqa: B008 (immutable)
    units: Units = Units(),  # noqa: B008
    skip_bad: bool = False,
) -> Iterator[Frame]:
    """As `read`, but frame by frame, so that a file may be larger than memory.

    Args:
        path: as for `read`.
        keys: as for `read`.
        units: as for `read`.
        skip_bad: as for `read`; the warning is issued at the end.

    Returns:
        An iterator over the frames.

    Raises:
        InputError: as `read`, when the iteration reaches the invalid frame.
    """
    return _stream(as_path("path", path), keys, units, skip_bad, stacklevel=2)


def _stream(path: Path, keys: Keys, units: Units, skip_bad: bool, *, stacklevel: int) -> Iterator[Frame]:
    """Yield frames, and warn at the end of what was skipped or ignored."""
    factors = factors_of(units)
    skipped: list[str] = []
    # Names of each label, and of all content, with the number of frames that have them.
    used: dict[str, Counter[str]] = {}
    seen: Counter[str] = Counter()
    done = labelled = 0
    for name_of_source, source in _sources(path):
        try:
            for raw in source():
                try:
                    if isinstance(raw, BadFrame):
                        raise raw
                    frame = to_frame(raw, name_of_source, keys, factors, used)
                except InputError as error:
                    if isinstance(error, BadFile):
                        raise
                    message = f"{name_of_source}: {error}" if isinstance(raw, BadFrame) else str(error)
                    if not skip_bad:
                        raise InputError(f"{message}; or skip such frames with skip_bad=True") from error
                    skipped.append(message)
                    continue
                seen.update(raw.values.keys())
                done += 1
                labelled += bool(frame.labels)
                yield frame
        except BadFile as error:
            message = f"{name_of_source}: {error}"
            if not (skip_bad and done):
                raise InputError(message) from error
            skipped.append(message)
    if not done:
        why = f"all {len(skipped)} frames are invalid, the first: {skipped[0]}" if skipped else "it is empty"
        raise InputError(f"{path} contains no valid frame: {why}; check how it was written")
    if not labelled:
        names = ", ".join(sorted(seen)) or "nothing"
        raise InputError(
            f"{path}: none of {done} frames has an energy, forces, stress, dipole or charges; besides atoms "
            f"they contain {names}: name the labels with Keys(energy=..., forces=...)"
        )
    for label, name in zip(Keys._fields, keys, strict=True):
        if name is not None and name not in seen:
            near = difflib.get_close_matches(name, seen, n=1) or sorted(seen)
            raise InputError(
                f"{path}: Keys({label}={name!r}) is in none of {done} frames; available are {', '.join(near)}"
            )
    for message in _remarks(path, done, skipped, used):
        warnings.warn(message, stacklevel=stacklevel)


def _sources(path: Path) -> list[tuple[str, Callable[[], Iterator[Raw | BadFrame]]]]:
    """The parts of a data set: the name of each in messages, and its reader."""
    if not path.exists():
        folder = path.parent
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
        holds = f"holds {', '.join(names[:8]) or 'nothing'}" if folder.is_dir() else "does not exist either"
        hint = f"did you mean {', '.join(near)}?" if near else f"{folder} {holds}"
        raise InputError(f"there is no file {path}: {hint}")
    if path.is_dir():
        folders = sorted(file.parent for file in path.rglob("type.raw"))
        if not folders:
            names = sorted(item.name for item in path.iterdir())
            raise InputError(
                f"{path} is a folder without a DeePMD system (type.raw); give one of its files: "
                f"{', '.join(names[:8]) or 'it is empty'}"
            )
        return [(str(path.name / each.relative_to(path)), partial(read_deepmd, each)) for each in folders]
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: 0 bytes; copy or write it again")
    of_suffix = {".h5": read_hdf5, ".hdf5": read_hdf5, ".db": read_database}
    reader = read_extxyz if is_extxyz(path) else of_suffix.get(path.suffix, read_other)
    return [(path.name, partial(reader, path))]


def _remarks(path: Path, done: int, skipped: list[str], used: dict[str, Counter[str]]) -> Iterator[str]:
    """Warnings after reading."""
    if skipped:
        reasons = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
        yield f"{path}: {len(skipped)} frames skipped, {done} read: {reasons}"
    energies = used.get("energy", Counter())
    if len(energies) > 1:
        counts = ", ".join(f"{name} in {count}" for name, count in energies.items())
        yield f"{path}: the energy has different names in some frames ({counts}): check that they agree"
    if NO_VOLUME in used:
        yield (
            f"{path}: the virial of {used[NO_VOLUME]['virial']} frames ignored: without three periodic "
            "directions there is no volume and no stress"
        )
