"""Configurations from files that ASE reads."""

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
    """Frames of an extended XYZ file, parsed by ASE one by one, so that an error concerns only its frame."""
    from ase.io.extxyz import read_xyz
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rt") as file:
        for index, text in enumerate(_texts(file)):
            name = f"frame {index} (counted from 0)"
            try:
                (atoms,) = read_xyz(StringIO(text), slice(None))
            # Any exception of ASE is an error of this frame.
            except Exception as error:
                yield BadFrame(f"{name}: {_explain(error)}")
                continue
            yield _raw(atoms, name)


def _texts(file: IO[str]) -> Iterator[str]:
    """The text of each frame."""
    done = 0
    while True:
        name = f"frame {done} (counted from 0)"
        remedy = (
            f"{done} frames before it are complete: copy or write the file again, or read them with "
            "skip_bad=True"
        )
        try:
            header = file.readline()
            if not header.strip():
                if file.read(200).strip():
                    raise BadFile(f"{name}: an empty line instead of a number of atoms; {remedy}")
                return
            try:
                n_atoms = int(header)
                if n_atoms < 1:
                    raise ValueError
            except ValueError:
                raise BadFile(
                    f"{name}: {header.strip()[:40]!r} instead of a number of atoms; {remedy}"
                ) from None
            lines = [file.readline() for _ in range(n_atoms + 1)]
        except (EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
            raise BadFile(f"{name}: the rest of the file cannot be read ({error}); {remedy}") from error
        if not lines[-1].strip():
            n_complete = max(0, sum(bool(line.strip()) for line in lines[1:]))
            raise BadFile(f"{name}: the file ends within it, after {n_complete} of {n_atoms} atoms; {remedy}")
        yield header + "".join(lines)
        done += 1


def read_database(path: Path) -> Iterator[Raw | BadFrame]:
    """Rows of an ASE database, with labels from its calculator, its key-value pairs and its data."""
    from ase.db import connect

    try:
        for index, row in enumerate(connect(str(path)).select()):
            name = f"frame {index} (counted from 0; row id {row.id})"
            try:
                raw = _raw(row.toatoms(), name)
                # ASE stores data as JSON; nothing is unpickled.
                values = {**row.data, **row.key_value_pairs, **raw.values}
            except Exception as error:
                yield BadFrame(f"{name}: {_explain(error)}")
                continue
            yield raw._replace(values=values)
    # sqlite raises exceptions of its own for a file that is truncated or not a database.
    except Exception as error:
        raise BadFile(f"ASE cannot read the database ({_explain(error)}): copy or write it again") from error


def read_other(path: Path) -> Iterator[Raw | BadFrame]:
    """Frames of any other format of ASE: outputs of VASP, QE, aims, ORCA; trajectories."""
    from ase.io import iread

    done = 0
    try:
        for atoms in iread(str(path), index=":"):
            yield _raw(atoms, f"frame {done} (counted from 0)")
            done += 1
    # The parsers of ASE raise any exception for a file that is truncated or of another format.
    except Exception as error:
        raise BadFile(
            f"frame {done} (counted from 0): ASE cannot read it ({_explain(error)}); {done} frames before it "
            "are complete: check that the calculation has finished, or convert the file to extended XYZ"
        ) from error


def _raw(atoms: ase.Atoms, name: str) -> Raw:
    known = ("positions", "numbers", "masses")
    values: dict[str, Any] = {key: value for key, value in atoms.arrays.items() if key not in known}
    values.update(atoms.info)
    if atoms.calc is not None:
        values.update({key: value for key, value in atoms.calc.results.items() if value is not None})
    masses = atoms.arrays.get("masses")
    return Raw(atoms.positions, atoms.numbers, np.asarray(atoms.cell), atoms.pbc, masses, values, name)


def _explain(error: Exception) -> str:
    # A KeyError contains only the key, here an unknown element.
    if isinstance(error, KeyError):
        return f"{error} is unknown; is it a chemical symbol?"
    return f"{type(error).__name__}: {error}"
