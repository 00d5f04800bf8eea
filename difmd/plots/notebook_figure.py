"""A figure that notebooks display without pyplot."""

import io

from matplotlib.figure import Figure
from PIL import Image


class NotebookFigure(Figure):
    """A `Figure` made without pyplot, which would choose a window system and keep the figure alive."""

    def _repr_png_(self) -> bytes:
        drawn, small = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=72)
        # A palette makes the files of notebooks several times smaller.
        Image.open(drawn).convert("RGB").quantize(64).save(small, format="png", optimize=True)
        return small.getvalue()
