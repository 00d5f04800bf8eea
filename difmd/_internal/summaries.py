"""Summaries of public types for `repr` and for notebooks: a few lines, never the arrays."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np

MAX_LINES = 6
"""Lines of a `repr`."""

_WIDTH = 100

_Class = TypeVar("_Class", bound=type)


def summary(title: str, rows: Mapping[str, Any]) -> str:
    """A title and at most five rows `label: value`."""
    lines = [title] + [f"  {label}: {_clipped(short(value))}" for label, value in rows.items()]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [f"  and {', '.join(list(rows)[MAX_LINES - 2 :])}"]
    return "\n".join(_clipped(line) for line in lines)


def fields_summary(value: Any) -> str:
    """A `repr` of any dataclass or named tuple: `Name(field=…, …)`, arrays as dtype and shape."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
    else:
        names = list(value._fields)
    lines: list[str] = []
    line = f"{type(value).__name__}("
    for k, name in enumerate(names):
        part = f"{name}={short(getattr(value, name))}" + ("" if k == len(names) - 1 else ", ")
        if len(line) + len(part) > _WIDTH:
            lines, line = [*lines, line.rstrip()], "  "
        line += _clipped(part)
    lines.append(line + ")")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = ["  …)"]
    return "\n".join(lines)


def brief_repr(cls: _Class) -> _Class:
    """Decorate a dataclass or named tuple to use `fields_summary` as its `repr`."""
    cls.__repr__ = fields_summary  # type: ignore[assignment]
    return cls


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """An HTML table of rows `label, value` under a title, for `_repr_html_`."""
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(str(label))}</th>"
        f"<td style='text-align:left'>{html.escape(short(value))}</td></tr>"
        for label, value in rows.items()
    )
    return f"<table><caption><b>{html.escape(title)}</b></caption><tbody>{body}</tbody></table>"


def short(value: Any) -> str:
    """A value in a few words: arrays as `float64[32, 3]`, containers by their size."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if np.ndim(value) == 0 and isinstance(value, np.generic | np.ndarray):
            return f"{value:.6g}" if np.issubdtype(value.dtype, np.floating) else str(value)
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(str(key) for key in value) + "}"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        if len(value) > 4 or any(hasattr(item, "shape") or isinstance(item, Mapping) for item in value):
            return f"{type(value).__name__} of {len(value)}"
        return repr(value)
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return type(value).__name__ + "(…)"
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    return repr(value) if not isinstance(value, str) else value


def with_error(value: float, error: float) -> str:
    """A number with its standard error as `1.23(4)`; an error that begins with 1 keeps two digits."""
    if not (np.isfinite(value) and np.isfinite(error) and error > 0):
        return f"{value:.6g} ± {error:.2g}"
    exponent = math.floor(math.log10(error))
    digits = -exponent + (error / 10.0**exponent < 1.95)
    scale = max(abs(value), error)
    if digits < 0 or scale < 1e-4:
        power = math.floor(math.log10(scale))
        return f"{with_error(value / 10.0**power, error / 10.0**power)}e{power}"
    return f"{value:.{digits}f}({round(error * 10**digits)})"


def formula(numbers: np.ndarray) -> str:
    """Chemical formula in Hill's order."""
    from ase.data import chemical_symbols
    from ase.formula import Formula

    return format(Formula.from_list([chemical_symbols[z] for z in numbers]), "hill")


def cell_summary(cell: np.ndarray, pbc: np.ndarray) -> str:
    """Edges, angles and periodic directions."""
    if not pbc.any():
        return "none, no periodic direction"
    edges = np.linalg.norm(cell, axis=1)
    text = " × ".join(f"{edge:.4g}" for edge in edges) + " Å"
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = [cell[i] @ cell[j] / (edges[i] * edges[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    if np.any(np.abs(cosines) > 1e-6):
        angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        text += ", angles " + " ".join(f"{angle:.4g}°" for angle in angles)
    return text + ", periodic" + ("" if pbc.all() else " along " + " ".join(np.array(["a", "b", "c"])[pbc]))


def concrete(value: Any) -> np.ndarray | None:
    """An array on the host; None under jit, and for placeholders in a pytree."""
    if isinstance(value, jax.core.Tracer) or not isinstance(value, np.ndarray | np.generic | jax.Array):
        return None
    return np.asarray(value)


def _clipped(text: str) -> str:
    line = text.replace("\n", " ")
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
