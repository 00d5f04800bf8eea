"""`Raw`: content of a file before names, units and values are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from difmd.errors import InputError


class Raw(NamedTuple):
    """One configuration in the units of its file."""

    positions: np.ndarray  # [atoms, 3]
    numbers: np.ndarray  # [atoms]
    cell: np.ndarray | None  # [3, 3]; None if there is none
    pbc: np.ndarray  # [3]
    masses: np.ndarray | None  # [amu], [atoms]; None if the file has none
    values: Mapping[str, Any]  # all other content by name: labels, text, numbers
    name: str  # of the frame in the file, such as "frame 12 (counted from 0)"


class BadFrame(InputError):
    """A frame cannot be used; the frames after it may be usable."""


class BadFile(InputError):
    """The rest of a file cannot be read."""
