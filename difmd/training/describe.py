"""Names and numbers of functions, such as those of optax, for fingerprints and provenance."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import numpy as np

_DEEPEST = 40


def describe(value: Any, depth: int = 0) -> Any:
    """What determines a function or a container, as JSON holds it.

    A function is described by its name, its defaults and what it closes over; a user's function also by the
    numbers in its code. Optimizers of optax made with different numbers have different descriptions.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        # Schedules of optax turn their integers into floats when they are first called.
        return float(value)
    if depth > _DEEPEST:
        return "…"
    inner = functools.partial(describe, depth=depth + 1)
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return inner(value._asdict())
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return np.asarray(value).tolist()
    if isinstance(value, functools.partial):
        return {"partial": [inner(value.func), inner(value.args), inner(value.keywords)]}
    value = getattr(value, "__wrapped__", value)
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{named.__module__}.{named.__qualname__}"
    if not isinstance(value, FunctionType):
        return name
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    content = dict(zip(value.__code__.co_freevars, cells, strict=True)) | (value.__kwdefaults__ or {})
    content |= {str(k): default for k, default in enumerate(value.__defaults__ or ())}
    if not value.__module__.startswith(("optax", "jax")):
        content["constants"] = [c for c in value.__code__.co_consts if isinstance(c, int | float)]
    return {name: inner(content)} if content else name
