"""`Raw`: what a reader finds in a file before anything is named, converted or checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from difmd.errors import InputError


class Raw(NamedTuple):
    """One configuration as a file gives it, in the file's units.

    Attributes:
        positions: [atoms, 3].
        numbers: [atoms].
        cell: [3, 3]; None without.
        pbc: [3].
        masses: [amu], [atoms]; None where the file has none.
        values: everything else by name: labels, words, numbers.
        name: which frame of the file, such as "frame 12 (counted from 0)".
    """

    positions: np.ndarray
    numbers: np.ndarray
    cell: np.ndarray | None
    pbc: np.ndarray
    masses: np.ndarray | None
    values: Mapping[str, Any]
    name: str


class BadFrame(InputError):
    """One frame cannot be used; those that follow may be."""


class BadFile(InputError):
    """Nothing more can be read from a file."""
