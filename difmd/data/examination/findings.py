"""`Finding`: the outcome of a check of a data set."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from difmd._internal.summaries import brief_repr
from difmd.data.frames import Frame


class Verdict(enum.Enum):
    """Outcome of a check; UNKNOWN if the data do not permit it."""

    OK = "OK"
    DOUBTFUL = "DOUBTFUL"
    WRONG = "WRONG"
    UNKNOWN = "UNKNOWN"


@brief_repr
class Finding(NamedTuple):
    """Outcome of one check.

    Attributes:
        item: name of the check.
        verdict: its outcome.
        summary: explanation with numbers and the first affected frames.
        remedy: what to do; "" if nothing.
        frames: indices of the affected frames in the examined list.
    """

    item: str
    verdict: Verdict
    summary: str
    remedy: str = ""
    frames: tuple[int, ...] = ()


def name_frames(frames: Sequence[Frame], indices: Iterable[Any], most: int = 3) -> str:
    """Names of the first frames, and the number of the others."""
    indices = [int(i) for i in indices]
    names = []
    for i in indices[:most]:
        source, here = frames[i].source, f"frame {i} (counted from 0)"
        # In a list from several files the number in the file is not the index in the list.
        names.append(source if here in source else f"{here} of the list" + (f" ({source})" if source else ""))
    return "; ".join(names) + (f" and {len(indices) - most} more" if len(indices) > most else "")
