"""The table of validations that is printed during a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Approximate number of lines, and the number of lines between two headers.
_LINES, _BETWEEN = 100, 25


class Column(NamedTuple):
    """A column of the table: title and unit of its header, characters, and text of an entry."""

    title: str
    unit: str
    width: int
    text: Callable[[Mapping[str, Any]], str]


def duration(seconds: float) -> str:
    """Hours, minutes and seconds; "–" if unknown."""
    if not math.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def milli(value: float, digits: int = 4) -> str:
    """A value in thousandths of its unit; "–" if it is NaN."""
    if math.isnan(value):
        return "–"
    if not abs(1e3 * value) < 10**digits:
        return f"{1e3 * value:.2e}"
    # Trailing zeros keep columns even.
    return f"{1e3 * value:#.{digits}g}".rstrip(".")


COLUMNS = (
    Column("epoch", "", 6, lambda entry: str(entry["epoch"] + 1)),
    Column("time", "", 9, lambda entry: duration(entry["seconds"])),
    Column("left", "", 9, lambda entry: duration(entry["eta"])),
    Column("train loss", "", 10, lambda entry: f"{entry['train_loss']:.3e}"),
    Column("E rmse", "meV/atom", 9, lambda entry: milli(entry["energy_rmse"])),
    Column("F rmse", "meV/Å", 9, lambda entry: milli(entry["forces_rmse"])),
    Column("rate", "", 8, lambda entry: f"{entry['learning_rate']:.1e}"),
)
"""Columns of the table; the errors are those of the validation frames."""


class Table:
    """At most about a hundred lines per training, alike in a terminal, a log file and a notebook."""

    def __init__(self, n_epochs: int, validate_every: int, *, enabled: bool = True) -> None:
        """Prepare the table of a training of `n_epochs`; nothing is printed if it is not enabled."""
        self.enabled = enabled
        self._n_epochs = n_epochs
        # Validations per line.
        self._every = max(-(-n_epochs // validate_every) / _LINES, 1.0)
        self._validate_every = validate_every
        self._n_lines = 0

    def print(self, text: str) -> None:
        """Print a line of text."""
        if self.enabled:
            print(text, flush=True)

    def show(self, entries: Sequence[Mapping[str, Any]], *, is_best: bool, eta: float, is_last: bool) -> None:
        """Print means over members of a validation if it is due or the last; a star marks the best."""
        index = entries[0]["epoch"] // self._validate_every
        is_due = self._n_lines == 0 or index // self._every != (index - 1) // self._every
        if not self.enabled or not (is_due or is_last):
            return
        if self._n_lines % _BETWEEN == 0:
            print(" ".join(c.title.rjust(c.width) for c in COLUMNS) + "  *: best")
            print(" ".join(c.unit.rjust(c.width) for c in COLUMNS).rstrip())
        self._n_lines += 1
        names = ("seconds", "train_loss", "energy_rmse", "forces_rmse", "learning_rate")
        shown = {name: sum(entry[name] for entry in entries) / len(entries) for name in names}
        shown |= {"epoch": entries[0]["epoch"], "eta": eta}
        cells = (column.text(shown).rjust(column.width) for column in COLUMNS)
        print(" ".join(cells) + ("  *" if is_best else ""), flush=True)
