"""Configurations from everything that ASE reads."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from difmd.data.readers.raw import BadFile, BadFrame, Raw

if TYPE_CHECKING:
    import ase

_COMPRESSED = (".gz", ".bz2", ".xz")


def is_extxyz(path: Path) -> bool:
    """Whether the name is that of an extended XYZ file, compressed or not."""
    name = path.with_suffix("") if path.suffix in _COMPRESSED else path
    return name.suffix in (".xyz", ".extxyz")


def read_extxyz(path: Path) -> Iterator[Raw | BadFrame]:
    """Frames of an extended XYZ file, one by one, each parsed by ASE.

    The file is cut into frames here, so that a fault is that of one frame, which can be named and left out.

    Raises:
        BadFile: the file ends within a frame, or its compression is broken; or there is no number of atoms
            where one is due.
    """
    from ase.io.extxyz import read_xyz
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rt") as file:
        for index, text in enumerate(_cut(file)):
            name = f"frame {index} (counted from 0)"
            try:
                (atoms,) = read_xyz(StringIO(text), slice(None))
            # Whatever ASE meets in a frame is a fault of that frame.
            except Exception as error:
                yield BadFrame(f"{name}: {_explain(error)}")
                continue
            yield _raw(atoms, name)


def _cut(file: IO[str]) -> Iterator[str]:
    """The text of one frame after the other."""
    done = 0
    while True:
        name = f"frame {done} (counted from 0)"
        remedy = (
            f"{done} frames before it are complete: copy or write the file again, or keep those with "
            "skip_bad=True"
        )
        lines: list[str] = []
        n_atoms = None
        try:
            header = file.readline()
            if not header.strip():
                rest = header + file.read(200)
                if rest.strip():
                    raise BadFile(f"{name}: an empty line where a number of atoms is due; {remedy}")
                return
            try:
                n_atoms = int(header)
                if n_atoms < 1:
                    raise ValueError
            except ValueError:
                raise BadFile(
                    f"{name}: {header.strip()[:40]!r} where a number of atoms is due; {remedy}"
                ) from None
            lines = [file.readline() for _ in range(n_atoms + 1)]
        except (EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
            raise BadFile(f"{name}: the file cannot be read any further ({error}); {remedy}") from error
        if not lines[-1].strip():
            there = max(0, sum(bool(line.strip()) for line in lines[1:]))
            raise BadFile(
                f"{name}: the file ends within it, after {there} of {n_atoms} atoms; {remedy}",
            )
        yield header + "".join(lines)
        done += 1


def read_database(path: Path) -> Iterator[Raw | BadFrame]:
    """Rows of an ASE database; labels are those of its calculator, its key-value pairs and its data.

    Raises:
        BadFile: it is no database.
    """
    from ase.db import connect

    try:
        for index, row in enumerate(connect(str(path)).select()):
            name = f"frame {index} (counted from 0; row id {row.id})"
            try:
                raw = _raw(row.toatoms(), name)
                # No pickle is unpacked here: ASE keeps data as JSON.
                values = {**row.data, **row.key_value_pairs, **raw.values}
            except Exception as error:
                yield BadFrame(f"{name}: {_explain(error)}")
                continue
            yield raw._replace(values=values)
    # The database below raises errors of its own on a file that is none, or is cut off.
    except Exception as error:
        raise BadFile(f"ASE cannot read the database ({_explain(error)}): copy or write it again") from error


def read_other(path: Path) -> Iterator[Raw | BadFrame]:
    """Frames of any other file that ASE knows: outputs of VASP, QE, aims, ORCA; trajectories.

    Raises:
        BadFile: ASE does not know the format, or cannot read the file.
    """
    from ase.io import iread

    done = 0
    try:
        for atoms in iread(str(path), index=":"):
            yield _raw(atoms, f"frame {done} (counted from 0)")
            done += 1
    # The parsers of ASE raise anything on a file that is cut off or is not what it seems.
    except Exception as error:
        raise BadFile(
            f"frame {done} (counted from 0): ASE cannot read it ({_explain(error)}); {done} frames before it "
            "are complete: check that the calculation came to its end, or convert the file to extended XYZ"
        ) from error


def _raw(atoms: ase.Atoms, name: str) -> Raw:
    values: dict[str, Any] = {
        key: value for key, value in atoms.arrays.items() if key not in ("positions", "numbers", "masses")
    }
    values.update(atoms.info)
    if atoms.calc is not None:
        values.update({key: value for key, value in atoms.calc.results.items() if value is not None})
    return Raw(
        positions=atoms.positions,
        numbers=atoms.numbers,
        cell=np.asarray(atoms.cell),
        pbc=atoms.pbc,
        masses=atoms.arrays.get("masses"),
        values=values,
        name=name,
    )


def _explain(error: Exception) -> str:
    # A KeyError says only the key: that of an element which is none.
    if isinstance(error, KeyError):
        return f"{error} is not known; is it a chemical symbol?"
    return f"{type(error).__name__}: {error}"
