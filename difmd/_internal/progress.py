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
    """A bar with elapsed and remaining time; in a log file, a line every so many seconds."""
    if not enabled:
        yield lambda steps, note="": None
        return
    from rich import progress
    from rich.console import Console

    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        yield _lines(title, total, every)
        return
    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(), progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with progress.Progress(*columns, console=console) as bar:
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
