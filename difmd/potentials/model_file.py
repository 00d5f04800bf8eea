"""A fitted potential in one file: its description, parameters and provenance."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from difmd._internal.argument_checks import as_path
from difmd._internal.checkpoint import write_archive
from difmd._internal.summaries import summary
from difmd.errors import InputError
from difmd.potentials.base import Params, Potential, check_finite, check_model, from_description

_FORMAT = 2


class Model(NamedTuple):
    """A potential with its parameters: `potential, params, _ = load(path)`.

    Attributes:
        potential: the energy model.
        params: its parameters, in JAX's default precision.
        provenance: the dictionary given to `save`, such as data, errors and versions.
    """

    potential: Potential
    params: Params
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        """Potential, number of parameters and provenance."""
        n_params = sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        rows = {"potential": " ".join(repr(self.potential).split()), "params": f"{n_params} numbers"}
        return summary("Model", {**rows, "provenance": self.provenance or "none"})


def save(
    path: str | Path, potential: Potential, params: Params, *, provenance: Mapping[str, Any] | None = None
) -> None:
    """Write a potential with its parameters to a NumPy archive without pickle; it is complete or absent.

    It contains the arrays of `params`, and JSON with the factory of the potential, its arguments and units.

    Args:
        path: such as "methane.npz".
        potential: made by a factory of difmd from numbers, text, tables, truncations and mixing rules, or a
            sum of such potentials.
        params: of the potential, finite.
        provenance: anything that JSON can represent.

    Raises:
        InputError: a potential that cannot be described, parameters that are not finite, a provenance that is
            not JSON, or a file that cannot be written.
    """
    path = as_path("path", path)
    check_model(potential, params)
    if potential.description is None:
        raise InputError(
            "this potential cannot be saved because it is made of functions (pair_potential, a custom mixing "
            "rule, …): keep the code that makes it, and save its parameters with numpy.savez"
        )
    check_finite(params)
    meta = {
        "format": _FORMAT,
        "potential": potential.description,
        "units": {"energy": "eV", "length": "Å", "mass": "amu"},
        "params": [name for name, _ in _places(params)],
        "provenance": dict(provenance or {}),
    }
    try:
        text = json.dumps(meta, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"provenance cannot be written as JSON: {error}") from error
    arrays = {f"leaf_{n}": np.asarray(leaf) for n, leaf in enumerate(jax.tree.leaves(params))}
    arrays["meta"] = np.frombuffer(text.encode(), np.uint8)
    write_archive(path, arrays)


def load(path: str | Path) -> Model:
    """Read a file of `save`.

    Args:
        path: the file.

    Returns:
        The `Model`.

    Raises:
        InputError: no such file, a damaged one, or one of another version of the format.
    """
    path = as_path("path", path)
    if not path.exists():
        raise InputError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(archive["meta"].tobytes())
            stored = [archive[f"leaf_{n}"] for n in range(len(meta["params"]))]
        version = meta["format"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a model of difmd, or it is damaged: {error}") from error
    if version != _FORMAT:
        remedy = "save the model again" if version < _FORMAT else "install a newer version of difmd"
        raise InputError(f"{path} has format {version}, but this version reads {_FORMAT}: {remedy}")
    try:
        potential = from_description(meta["potential"])
    except (KeyError, AttributeError, ValueError, TypeError) as error:
        raise InputError(f"{path} describes a potential that difmd cannot make: {error}") from error
    like = jax.eval_shape(potential.init, jax.random.key(0))
    if [(name, x.shape) for name, x in zip(meta["params"], stored, strict=True)] != _places(like):
        raise InputError(f"{path}: its parameters are not those of the potential that it describes")
    leaves = [jnp.asarray(x, y.dtype) for x, y in zip(stored, jax.tree.leaves(like), strict=True)]
    params = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return Model(potential, params, meta["provenance"])


def _places(params: Params) -> list[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(jax.tree_util.keystr(place), np.shape(leaf)) for place, leaf in leaves]
