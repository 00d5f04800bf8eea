"""Configurations from HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from difmd.data.readers.raw import BadFile, BadFrame, Raw

_FIXED = ("positions", "atomic_numbers", "cell", "pbc", "masses")


def read_hdf5(path: Path) -> Iterator[Raw | BadFrame]:
    """Frames of every group that has `positions`, in order of the groups' names.

    A group contains frames of the same atoms:

        atomic_numbers  [atoms]
        positions       [frames, atoms, 3]
        cell            [frames, 3, 3] or [3, 3]; missing for molecules
        pbc             [3]; default: periodic if there is a cell
        masses          [atoms]; default: standard weights
        energy [frames], forces [frames, atoms, 3], stress [frames, 3, 3], dipole [frames, 3],
        charges [frames, atoms], and any other dataset [frames, ...] named in `Keys`
        config_type     an attribute of the group, or a dataset of strings [frames]

    Raises:
        BadFile: h5py is not installed, the file is not in HDF5, or a dataset is missing or has a wrong shape.
    """
    try:
        import h5py
    except ImportError as error:
        raise BadFile("h5py is needed for HDF5 files: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise BadFile(f"HDF5 cannot open it ({error}): copy or write the file again") from error
    with file:
        groups: list[str] = [""] if "positions" in file else []

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Group) and "positions" in item:
                groups.append(name)

        file.visititems(note)
        if not groups:
            raise BadFile("no group has a dataset positions [frames, atoms, 3]")
        for name in sorted(groups):
            yield from _read_group(h5py, name, file[name] if name else file)


def _read_group(h5py: Any, name: str, group: Any) -> Iterator[Raw | BadFrame]:
    where = f"group {name or '/'}"
    if "atomic_numbers" not in group:
        raise BadFile(f"{where} has no dataset atomic_numbers [atoms]")
    positions, numbers = group["positions"], group["atomic_numbers"][:]
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3):
        shape = list(positions.shape)
        raise BadFile(f"{where}: positions has shape {shape}, not [frames, {len(numbers)} atoms, 3]")
    n_frames = len(positions)
    cell = group["cell"] if "cell" in group else None
    if cell is not None and cell.shape not in ((3, 3), (n_frames, 3, 3)):
        raise BadFile(f"{where}: cell has shape {list(cell.shape)}, not [{n_frames}, 3, 3] or [3, 3]")
    pbc = np.broadcast_to(np.asarray(group["pbc"][()] if "pbc" in group else cell is not None, bool), 3)
    series = {}
    for key, item in group.items():
        if key in _FIXED or isinstance(item, h5py.Group):
            continue
        if not item.shape or len(item) != n_frames:
            raise BadFile(f"{where}: {key} has shape {list(item.shape)}, not [{n_frames} frames, ...]")
        series[key] = item.asstr() if h5py.check_string_dtype(item.dtype) else item
    for index in range(n_frames):
        yield Raw(
            positions=positions[index], numbers=numbers,
            cell=None if cell is None else (cell[()] if cell.ndim == 2 else cell[index]), pbc=pbc,
            masses=group["masses"][:] if "masses" in group else None,
            values={**dict(group.attrs), **{key: item[index] for key, item in series.items()}},
            name=f"{where}, frame {index} (counted from 0)",
        )  # fmt: skip
