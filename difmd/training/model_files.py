"""The best and the last model of a training, in files that `difmd.load` reads."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
import numpy as np

from difmd._internal.version import __version__
from difmd.potentials import Params, Potential
from difmd.potentials.model_file import save
from difmd.training.recipe import Recipe, optimizer_of

NO_DESCRIPTION = (
    "best.npz and last.npz are not written: this potential has no description that a file could hold (an "
    "argument of it is a function, or difmd lacks its factory). The checkpoint and the result hold the "
    "parameters"
)
_DEEPEST = 40


def provenance(
    recipe: Recipe, references: Mapping[int, float], counts: Mapping[str, int], hashes: Mapping[str, str]
) -> dict[str, Any]:
    """The origin of trained models in types of JSON, with numbers and hashes of the frames by part."""
    settings = {
        name: describe(value) if isinstance(value, tuple) or callable(value) else value
        for name, value in vars(recipe).items()
    }
    settings["optimizer"] = describe(optimizer_of(recipe).update)
    return {
        "recipe": settings,
        "seed": recipe.seed,
        "references_eV": {str(z): float(energy) for z, energy in references.items()},
        "n_frames": dict(counts),
        "sha256": dict(hashes),
        "versions": {"difmd": __version__, "jax": jax.__version__},
    }


def save_model(path: Path, potential: Potential, params: Params, source: Mapping[str, Any]) -> None:
    """Write a model unless its parameters are not finite; the file is complete or does not exist."""
    if all(np.isfinite(x).all() for x in jax.tree.leaves(params)):
        save(path, potential, params, provenance=source)


def finite_or_none(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with None for numbers that are not finite, which JSON lacks."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}


def describe(value: Any, depth: int = 0) -> Any:
    """What determines a function or a container, in types of JSON.

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
