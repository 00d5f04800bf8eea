"""Which parameters a training changes, by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from difmd.errors import InputError
from difmd.potentials import Params

Path = tuple[Any, ...]
"""Keys that lead to an array of params."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A predicate of paths; made by `only` and `all_but`.

    Attributes:
        names: parts of keys, in small letters.
        are_trained: whether what has such a name is trained, or everything else.
    """

    names: tuple[str, ...]
    are_trained: bool

    def __call__(self, path: Path) -> bool:
        """Whether the array at this path is trained."""
        if self.are_trained:
            return any(matches(name, path) for name in self.names)
        return is_no_scale(path) and not any(matches(name, path) for name in self.names)


def only(*names: str) -> Named:
    """Train what has one of these names, and nothing else: `train(..., is_trained=only("readout"))`.

    Args:
        *names: parts of the keys of params, in small or capital letters: "radial" is all radial networks,
            "product" all product bases; a number is a term of a sum of potentials.

    Raises:
        InputError: no name. `train` raises it where a name is found nowhere, and tells which there are.
    """
    return Named(_small(names), True)


def all_but(*names: str) -> Named:
    """Train everything but what has one of these names; `scale` and `shift` of networks stay as well.

    Args:
        *names: as in `only`, such as "embedding".

    Raises:
        InputError: as `only`.
    """
    return Named(_small(names), False)


def is_no_scale(path: Path) -> bool:
    """Whether this is not the scale or shift of a network: what is trained unless something else is said."""
    return not path or path[-1] not in ("scale", "shift") or "network" in path


def matches(name: str, path: Path) -> bool:
    """Whether a key of the path contains the name; a number must be the key."""
    return any(str(key) == name if name.isdigit() else name in str(key).lower() for key in path)


def mask_of(params: Params, is_trained: Callable[[Path], bool]) -> Any:
    """A tree of bools, like params.

    Raises:
        InputError: nothing is trained, or a name is found nowhere.
    """
    paths = [
        tuple(getattr(k, "key", getattr(k, "idx", k)) for k in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    there = ", ".join(dict.fromkeys("/".join(str(key) for key in path) for path in paths))
    if isinstance(is_trained, Named):
        for name in is_trained.names:
            if not any(matches(name, path) for path in paths):
                raise InputError(f"no parameter has the name {name!r}; there are {there}")
    chosen = [bool(is_trained(path)) for path in paths]
    if not any(chosen):
        raise InputError(f"is_trained leaves nothing to train; there are {there}")
    return jax.tree.unflatten(jax.tree.structure(params), chosen)


def _small(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not all(names):
        raise InputError('give at least one name, such as "radial" or "embedding", and none that is empty')
    return tuple(name.lower() for name in names)
