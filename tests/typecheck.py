"""The type checker that conftest.py puts on the public functions of difmd."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# An int is a float, as for every type checker.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check_public(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check module-level public functions only.

    Constructors are left out because JAX itself fills pytrees with other things than arrays, as in
    `jax.tree.map(lambda x: True, system)`.
    """
    if function.__name__.startswith("_") or "<locals>" in function.__qualname__:
        return function
    return _checked(function)
