"""`Finding`: what one check says of a data set."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from difmd.data.frames import Frame


class Verdict(enum.Enum):
    """How a check ended; UNKNOWN where the data do not allow it."""

    OK = "OK"
    DOUBTFUL = "DOUBTFUL"
    WRONG = "WRONG"
    UNKNOWN = "UNKNOWN"


class Finding(NamedTuple):
    """Outcome of one check.

    Attributes:
        item: what was checked.
        verdict: how it ended.
        summary: what was found, with numbers; names the first frames concerned.
        remedy: what to do; "" where nothing is to be done.
        frames: indices of the frames concerned, into the list that was examined.
    """

    item: str
    verdict: Verdict
    summary: str
    remedy: str = ""
    frames: tuple[int, ...] = ()


def name_frames(frames: Sequence[Frame], indices: Iterable[Any], most: int = 3) -> str:
    """The first of some frames in words, and how many more there are."""
    indices = [int(i) for i in indices]
    names = [_name(frames[i].source, i) for i in indices[:most]]
    more = f" and {len(indices) - most} more" if len(indices) > most else ""
    return "; ".join(names) + more


def _name(source: str, index: int) -> str:
    here = f"frame {index} (counted from 0)"
    # Where several files were put together, the number in the file is not that in the list.
    return source if here in source else f"{here} of the list" + (f" ({source})" if source else "")
