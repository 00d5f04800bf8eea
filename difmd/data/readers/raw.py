"""`Raw`: content of a file before names, units and values are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from difmd.errors import InputError


class Raw(NamedTuple):
    """One configuration in the units of its file.

    Attributes:
        positions: [atoms, 3].
        numbers: [atoms].
        cell: [3, 3]; None if there is none.
        pbc: [3].
        masses: [amu], [atoms]; None if the file has none.
        values: all other content by name: labels, text, numbers.
        name: of the frame in the file, such as "frame 12 (counted from 0)".
    """

    positions: np.ndarray
    numbers: np.ndarray
    cell: np.ndarray | None
    pbc: np.ndarray
    masses: np.ndarray | None
    values: Mapping[str, Any]
    name: str


class BadFrame(InputError):
    """A frame cannot be used; the frames after it may be usable."""


class BadFile(InputError):
    """The rest of a file cannot be read."""
