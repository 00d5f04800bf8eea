"""`Frame`: one configuration with its labels, on the host."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from difmd._internal.summaries import brief_repr
from difmd.system import System

LABELS = ("energy", "forces", "stress", "dipole", "charges")
"""Names of the labels of a frame."""


@brief_repr
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One configuration with computed labels; NumPy arrays, float64.

    A label that was not computed is None; frames of a data set may have different labels.

    Attributes:
        system: the atoms; valid as an argument of `neighbor_list`.
        energy: total energy, whose negative gradient the forces are [eV].
        forces: [eV/Å]; [atoms, 3].
        stress: tension positive, as in ASE [eV/Å³]; [3, 3].
        dipole: [e·Å]; [3].
        charges: [e]; [atoms].
        kind: what the configuration represents, such as "surface" or "liquid 300 K"; "" if unknown.
        source: its origin, such as "train.xyz.gz, frame 12 (counted from 0)".
    """

    system: System
    energy: float | None = None
    forces: Float[np.ndarray, "atoms 3"] | None = None
    stress: Float[np.ndarray, "3 3"] | None = None
    dipole: Float[np.ndarray, "3"] | None = None
    charges: Float[np.ndarray, "atoms"] | None = None
    kind: str = ""
    source: str = ""

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return self.system.n_atoms

    @property
    def numbers(self) -> np.ndarray:
        """Atomic numbers; int32 [atoms]."""
        return np.asarray(self.system.atomic_numbers)

    @property
    def positions(self) -> np.ndarray:
        """Cartesian positions [Å]; [atoms, 3]."""
        return np.asarray(self.system.positions)

    @property
    def cell(self) -> np.ndarray:
        """Lattice vectors as rows [Å]; [3, 3]."""
        return np.asarray(self.system.cell)

    @property
    def pbc(self) -> np.ndarray:
        """Periodic directions; bool [3]."""
        return np.asarray(self.system.pbc)

    @property
    def volume(self) -> float | None:
        """Volume of the cell [Å³]; None unless all three directions are periodic."""
        return float(abs(np.linalg.det(self.cell))) if self.pbc.all() else None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that are not None."""
        return tuple(name for name in LABELS if getattr(self, name) is not None)

    def replace(self, **changes: Any) -> Frame:
        """A copy with replaced fields, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


def is_isolated_atom(frame: Frame) -> bool:
    """Whether the frame is one atom at least 6 Å from its images, whose energy is a reference energy.

    Args:
        frame: a labelled configuration.

    Returns:
        Whether it is an isolated atom.
    """
    if frame.n_atoms != 1:
        return False
    vectors = frame.cell[frame.pbc]
    if not len(vectors):
        return True
    return bool((1 / np.linalg.norm(np.linalg.pinv(vectors), axis=0)).min() >= 6.0)


def hash_frames(frames: Sequence[Frame]) -> str:
    """SHA-256 of the bits of atoms and labels, in order; hexadecimal digits.

    Args:
        frames: labelled configurations.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for frame in frames:
        for array in (frame.numbers, frame.positions, frame.cell, frame.pbc):
            digest.update(np.ascontiguousarray(array).tobytes())
        for name in frame.labels:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(getattr(frame, name), np.float64).tobytes())
    return digest.hexdigest()
