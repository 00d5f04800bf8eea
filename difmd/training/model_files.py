"""The best and the last potential of a training, in files that `difmd.load` reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from difmd._internal.version import __version__
from difmd.potentials import Params, Potential
from difmd.potentials.model_file import save
from difmd.training.recipe import Recipe

NO_DESCRIPTION = (
    "this potential has no description that a file could hold (an argument of it is a function, or its "
    "factory is unknown to difmd): best.npz and last.npz are not written. The checkpoint and the result "
    "have the parameters"
)


def provenance(
    recipe: Recipe,
    *,
    references: Mapping[int, float],
    counts: Mapping[str, int],
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    """Where the potentials of a training come from, as JSON holds it; errors and epoch are added later.

    Args:
        recipe: how it was trained.
        references: energy of an atom of each element, which it knows nothing of [eV].
        counts: frames of each part of the data.
        hashes: of each part of the data, from `hash_frames`.
    """
    settings = dataclasses.asdict(recipe)
    for name in ("start", "end"):
        settings[name] = {k: float(w) for k, w in getattr(recipe, name)._asdict().items()}
    return {
        "recipe": settings,
        "seed": recipe.seed,
        "references_eV": {str(z): float(energy) for z, energy in references.items()},
        "n_frames": dict(counts),
        "sha256": dict(hashes),
        "versions": {"difmd": __version__, "jax": jax.__version__},
    }


def keep(
    folder: Path,
    name: str,
    potential: Potential,
    members: Sequence[Params],
    sources: Sequence[Mapping[str, Any]],
) -> None:
    """Write `best.npz` or `last.npz`, of a committee `best_0.npz` and so on; each is complete or not there.

    What is not finite is not written.

    Args:
        folder: where.
        name: "best" or "last".
        potential: with a description.
        members: parameters, one for each member or one.
        sources: provenance of each; empty leaves it out.
    """
    for k, (params, source) in enumerate(zip(members, sources, strict=True)):
        if source and all(np.isfinite(x).all() for x in jax.tree.leaves(params)):
            file = f"{name}.npz" if len(members) == 1 else f"{name}_{k}.npz"
            save(folder / file, potential, params, provenance=source)


def plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with None for numbers that are not finite, which JSON does not know."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
