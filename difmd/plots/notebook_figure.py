"""A figure that notebooks display without pyplot."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A `Figure` made without pyplot, which would choose a window system and keep the figure alive."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()
