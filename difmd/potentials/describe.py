"""Descriptions of potentials in numbers and words, from which they can be made again."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import numpy as np

from difmd.errors import InputError
from difmd.potentials.base import Potential

_Arguments = ParamSpec("_Arguments")

_factories: dict[str, Callable[..., Potential]] = {}


def described(factory: Callable[_Arguments, Potential]) -> Callable[_Arguments, Potential]:
    """Let what `factory` makes know its name and arguments, unless these are more than numbers and words."""
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def made(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Potential:
        bound = signature.bind(*args, **kwargs)
        potential = factory(*args, **kwargs)
        given = set(bound.arguments)
        # Defaults too: they may be others in the difmd that loads it.
        bound.apply_defaults()
        arguments = {}
        for name, value in bound.arguments.items():
            try:
                arguments[name] = _plain(value)
            except TypeError:
                if name in given:
                    return potential
        return dataclasses.replace(potential, description={"name": factory.__name__, "arguments": arguments})

    _factories[factory.__name__] = made
    return made


def from_description(description: Mapping[str, Any]) -> Potential:
    """The potential that a description is of.

    Raises:
        InputError: a name that difmd does not know, or arguments that its factory refuses.
    """
    name = description.get("name")
    if name == "sum":
        first, second = (from_description(term) for term in description["terms"])
        return first + second
    if name not in _factories:
        raise InputError(f"difmd has no potential {name!r} that can be loaded; it knows {sorted(_factories)}")
    try:
        return _factories[name](**description["arguments"])
    except TypeError as error:
        raise InputError(f"{name} does not take the arguments that were saved: {error}") from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    raise TypeError
