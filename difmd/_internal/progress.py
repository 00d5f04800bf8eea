"""Progress bars."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[..., None]
"""`advance(steps, note="")`."""


@contextmanager
def progress_bar(
    title: str, total: int | None, *, enabled: bool = True, every: float = 10.0
) -> Iterator[Advance]:
    """A bar with elapsed and remaining time; yields `advance(steps, note="")`.

    Text printed meanwhile appears above the bar.

    Args:
        title: name of the task.
        total: number of steps; None if it is unknown.
        enabled: False shows nothing.
        every: interval of lines in a log file, where there is no bar [s].
    """
    if not enabled:
        yield lambda steps, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        yield _lines(title, total, every)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: int, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance


def _lines(title: str, total: int | None, every: float) -> Advance:
    """A line at intervals, for a log file, where a bar would appear only at the end."""
    done, began = 0, time.monotonic()
    printed = began - every

    def advance(steps: int, note: str = "") -> None:
        nonlocal done, printed
        done += steps
        now = time.monotonic()
        if now - printed >= every or (total is not None and done >= total):
            printed = now
            print(f"{title.strip()}: {done}/{total or '?'}, {now - began:.0f} s, {note}", flush=True)

    return advance
