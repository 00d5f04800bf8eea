"""Progress bars, the same everywhere; silent when the output is not wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[..., None]
"""`advance(steps, note="")`."""


@contextmanager
def progress_bar(title: str, total: int, *, enabled: bool = True) -> Iterator[Advance]:
    """A bar with elapsed and remaining time; yields `advance(steps, note="")`.

    Args:
        title: what is going on.
        total: steps to do.
        enabled: False shows nothing.
    """
    if not enabled:
        yield lambda steps, note="": None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: int, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance
