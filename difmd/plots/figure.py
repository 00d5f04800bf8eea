"""Figures, axes and histograms that the plots share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Number of kinds, elements or structures that are coloured separately.
COLORED = 8


def few_ticks(axis: Any) -> None:
    """Label logarithmic axes that span less than two or three decades with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for side, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
        if side.get_scale() == "log" and high / low < 300:
            subs: tuple[float, ...] = (1, 2, 5) if high / low > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
            side.set_major_locator(LogLocator(subs=subs))
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            side.set_minor_formatter(NullFormatter())


def histogram(axis: Any, series: Sequence[Any], label: str, names: Sequence[str] = ()) -> None:
    """Stacked histograms of the finite values, or a note that there are none."""
    axis.set(xlabel=label, ylabel="count")
    finite = [values for entry in series if len(values := np.asarray(entry)[np.isfinite(entry)])]
    if not finite:
        note(axis, "none in the data")
        return
    axis.hist(finite, bins=60, stacked=True, label=list(names) or None)
    if len(names) > 1:
        axis.legend(frameon=False, fontsize=7)


def note(axis: Any, text: str) -> None:
    """Write a text into the middle of an empty panel."""
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


def new_figure(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    """A figure of a size in inches, and its axes row by row."""
    from difmd.plots.notebook_figure import NotebookFigure

    figure = NotebookFigure(figsize=size, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).ravel())


def finish(figure: Figure, path: str | Path | None) -> Figure:
    """Save the figure if there is a path, creating its folder, and return the figure."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    return figure
