"""The best and the last model of a training, in files that `difmd.load` reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from difmd._internal.version import __version__
from difmd.potentials import Params, Potential
from difmd.potentials.model_file import save
from difmd.training.describe import describe
from difmd.training.recipe import Recipe, optimizer_of

NO_DESCRIPTION = (
    "best.npz and last.npz are not written: this potential has no description that a file could hold (an "
    "argument of it is a function, or difmd lacks its factory). The checkpoint and the result hold the "
    "parameters"
)


def provenance(
    recipe: Recipe, references: Mapping[int, float], counts: Mapping[str, int], hashes: Mapping[str, str]
) -> dict[str, Any]:
    """The origin of the models of a training, as JSON holds it, with numbers and hashes of frames by part."""
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
