"""The numbers of a pytree that can be differentiated, apart from the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def floats(tree: Any, wanted: Sequence[bool] | None = None) -> tuple[list[Any], Callable[..., Any]]:
    """Leaves that can be differentiated, and a function that puts such into the tree again.

    The function takes the other leaves from a second tree of the same kind, the first one if none is given,
    and leaves None for them if that is None.

    Args:
        tree: any pytree.
        wanted: whether to take a leaf, for each of them; default all that can be differentiated.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact) for x in leaves]
    if wanted is not None:
        is_float = [can and wants for can, wants in zip(is_float, wanted, strict=True)]

    def put(numbers: list[Any], other: Any = tree) -> Any:
        rest = [None] * len(leaves) if other is None else jax.tree.leaves(other)
        given = iter(numbers)
        return jax.tree.unflatten(
            structure, [next(given) if is_ else x for is_, x in zip(is_float, rest, strict=True)]
        )

    return [x for is_, x in zip(is_float, leaves, strict=True) if is_], put
