"""Configurations from folders of DeePMD-kit (`npy` format)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from difmd.data.readers.raw import BadFile, BadFrame, Raw


def read_deepmd(path: Path) -> Iterator[Raw | BadFrame]:
    """Frames of one DeePMD system, its sets in order of their names.

    The files are `type.raw`, `type_map.raw`, `nopbc` and, in every `set.*`, `coord.npy` [frames, 3·atoms],
    `box.npy` [frames, 9], `energy.npy` [frames], `force.npy` [frames, 3·atoms], `virial.npy` [frames, 9]
    and `real_atom_types.npy` [frames, atoms] (mixed types; −1 marks padding). Units are eV and Å: DeePMD-kit
    manual, "Formats of a system" (docs.deepmodeling.com).
    """
    from ase.data import atomic_numbers

    types = np.atleast_1d(np.loadtxt(path / "type.raw", dtype=int))
    names_file = path / "type_map.raw"
    if not names_file.exists():
        raise BadFile(
            f"{names_file} is missing: write the symbol of each type into it, one per line, in the order of "
            "the types"
        )
    names = names_file.read_text().split()
    unknown = [name for name in names if name not in atomic_numbers]
    if unknown:
        raise BadFile(f"{names_file}: {unknown[0]!r} is not a chemical symbol")
    if types.max() >= len(names):
        raise BadFile(
            f"{path / 'type.raw'}: type {types.max()} is not among the {len(names)} of {names_file}"
        )
    symbols = np.array([atomic_numbers[name] for name in names])
    periodic = not (path / "nopbc").exists()
    folders = sorted(path.glob("set.*"))
    if not folders:
        raise BadFile(f"{path} contains no folder set.*: put the frames into set.000")
    for folder in folders:
        yield from _read_set(folder, types, symbols, periodic)


def _read_set(folder: Path, types: np.ndarray, symbols: np.ndarray, periodic: bool) -> Iterator[Raw]:
    n_atoms = len(types)
    positions = _load(folder / "coord.npy", None, 3 * n_atoms)
    if positions is None:
        raise BadFile(f"{folder / 'coord.npy'} is missing")
    n_frames = len(positions)
    cells = _load(folder / "box.npy", n_frames, 9)
    if periodic and cells is None:
        raise BadFile(
            f"{folder / 'box.npy'} is missing: add it, or an empty file nopbc if the system is not periodic"
        )
    labels = {
        "energy": _load(folder / "energy.npy", n_frames, 1),
        "forces": _load(folder / "force.npy", n_frames, 3 * n_atoms),
        "virial": _load(folder / "virial.npy", n_frames, 9),
    }
    mixed = _load(folder / "real_atom_types.npy", n_frames, n_atoms)
    if mixed is not None and len(mixed) and mixed.max() >= len(symbols):
        raise BadFile(
            f"{folder / 'real_atom_types.npy'} contains the type {int(mixed.max())}, but type_map.raw names "
            f"{len(symbols)} types: add the missing ones there"
        )
    for index in range(n_frames):
        kinds = types if mixed is None else mixed[index].astype(int)
        real = kinds >= 0
        values = {name: array[index] for name, array in labels.items() if array is not None}
        if "energy" in values:
            values["energy"] = values["energy"][0]
        if "forces" in values:
            values["forces"] = values["forces"].reshape(-1, 3)[real]
        yield Raw(
            positions=positions[index].reshape(-1, 3)[real], numbers=symbols[kinds[real]],
            cell=None if cells is None else cells[index].reshape(3, 3), pbc=np.full(3, periodic), masses=None,
            values=values, name=f"{folder.name}, frame {index} (counted from 0)",
        )  # fmt: skip


def _load(path: Path, n_frames: int | None, width: int) -> np.ndarray | None:
    """An array [frames, width], or None if the file does not exist."""
    if not path.exists():
        return None
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadFile(f"{path} cannot be read ({error}): copy or write it again") from error
    flat = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    if flat.shape[1] != width or (n_frames is not None and len(flat) != n_frames):
        frames = "frames" if n_frames is None else n_frames
        raise BadFile(f"{path} has shape {list(array.shape)}, not [{frames}, {width}]")
    return flat.astype(np.float64)
