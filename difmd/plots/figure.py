"""What plots share: figures, histograms, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Kinds or elements with a colour of their own.
COLORED = 8


def few_ticks(axis: Any) -> None:
    """Logarithmic axes that span a decade or two have readable ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for one, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        if one.get_scale() == "log" and high / low < 300:
            subs: tuple[float, ...] = (1, 2, 5) if high / low > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
            one.set_major_locator(LogLocator(subs=subs))
            one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            one.set_minor_formatter(NullFormatter())


def histogram(axis: Any, series: Sequence[Any], label: str, names: Sequence[str] = ()) -> None:
    """Stacked histograms; an axis without data says so."""
    axis.set(xlabel=label, ylabel="count")
    finite = [values for entry in series if len(values := np.asarray(entry)[np.isfinite(entry)])]
    if not finite:
        axis.text(0.5, 0.5, "none in the data", ha="center", va="center", transform=axis.transAxes)
        return
    axis.hist(finite, bins=60, stacked=True, label=list(names) or None)
    if len(names) > 1:
        axis.legend(frameon=False, fontsize=7)


def new_figure(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A figure [inches], and its axes row by row."""
    from matplotlib.figure import Figure

    # Not through pyplot, which would choose a window system and keep the figure alive.
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).ravel())


def save(figure: Any, path: str | Path) -> None:
    """Write a figure, and the folder it goes to."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
