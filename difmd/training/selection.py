"""Selection of the trained parameters by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from difmd.errors import InputError
from difmd.potentials import Params

Path = tuple[Any, ...]
"""Keys of an array of params."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A predicate of paths; made by `only` and `all_but`."""

    names: tuple[str, ...]  # parts of keys, in lower case
    are_trained: bool  # whether the parameters with such a name are trained, or all others

    def __call__(self, path: Path) -> bool:
        """Whether the array at this path is trained."""
        if self.are_trained:
            return any(matches(name, path) for name in self.names)
        return is_not_scale(path) and not any(matches(name, path) for name in self.names)


def only(*names: str) -> Named:
    """Train only the parameters with one of these names: `train(..., is_trained=only("readout"))`.

    Args:
        *names: parts of the keys of params, in any case: "radial" selects all radial networks, "product" all
            product bases; a number selects a term of a sum of potentials.

    Returns:
        The predicate, for `train`, which refuses names that no parameter has.

    Raises:
        InputError: no name, or an empty one.
    """
    return Named(_lower(names), True)


def all_but(*names: str) -> Named:
    """Train all parameters except those with one of these names and `scale` and `shift` of networks.

    Args:
        *names: as in `only`, such as "embedding".

    Returns:
        The predicate, for `train`.

    Raises:
        InputError: as `only`.
    """
    return Named(_lower(names), False)


def is_not_scale(path: Path) -> bool:
    """Whether this is not the scale or shift of a network: the default of `train`."""
    return not path or path[-1] not in ("scale", "shift") or "network" in path


def matches(name: str, path: Path) -> bool:
    """Whether a key of the path contains the name; a number must equal the key."""
    return any(str(key) == name if name.isdigit() else name in str(key).lower() for key in path)


def mask_of(params: Params, is_trained: Callable[[Path], bool]) -> Any:
    """A tree of bools with the structure of params."""
    paths = [
        tuple(getattr(k, "key", getattr(k, "idx", k)) for k in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    available = ", ".join(dict.fromkeys("/".join(str(key) for key in path) for path in paths))
    if isinstance(is_trained, Named):
        for name in is_trained.names:
            if not any(matches(name, path) for path in paths):
                raise InputError(f"no parameter has the name {name!r}; there are {available}")
    chosen = [bool(is_trained(path)) for path in paths]
    if not any(chosen):
        raise InputError(f"is_trained leaves nothing to train; there are {available}")
    return jax.tree.unflatten(jax.tree.structure(params), chosen)


def _lower(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not all(names):
        raise InputError('give at least one name, such as "radial" or "embedding", and no empty one')
    return tuple(name.lower() for name in names)
