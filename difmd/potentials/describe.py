"""Descriptions of potentials in numbers and words, from which they can be made again."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np

from difmd._internal.lazy import import_late
from difmd.errors import InputError

_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made")
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Numbers of a table that `summary` writes out.
_MOST_SHOWN = 8

LATE_MODULES: list[str] = []
"""Modules with further factories, imported when a description names none of those known so far."""

_factories: dict[str, Callable[..., Any]] = {}
_functions: dict[str, Callable[..., Any]] = {}


def described(factory: Callable[_Arguments, _Made]) -> Callable[_Arguments, _Made]:
    """Let what `factory` makes know its name and arguments, unless these are more than can be written down.

    Numbers, words, tables, what another described factory makes, and `named` functions can. What is made is
    a dataclass with a field `description`.
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def made(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Made:
        bound = signature.bind(*args, **kwargs)
        found: Any = factory(*args, **kwargs)
        # Defaults too: they may be others in the difmd that loads it.
        bound.apply_defaults()
        try:
            arguments = {name: _plain(value) for name, value in bound.arguments.items()}
        except TypeError:
            return found
        return dataclasses.replace(found, description={"name": factory.__name__, "arguments": arguments})

    _factories[factory.__name__] = made
    return made


def named(function: _Function) -> _Function:
    """Let descriptions refer to `function` by its name."""
    _functions[function.__name__] = function
    return function


def made_from(description: Mapping[str, Any]) -> Any:
    """What a description is of: a potential, or a part of one such as a truncation.

    Raises:
        InputError: a name that difmd does not know, or arguments that its factory refuses.
    """
    name = description.get("name")
    if name == "sum":
        first, second = (made_from(term) for term in description["terms"])
        return first + second
    if name not in _factories:
        for module in LATE_MODULES:
            import_late(module)
    if name not in _factories:
        raise InputError(f"difmd has no potential {name!r} that can be loaded; it knows {sorted(_factories)}")
    arguments = {key: _live(value) for key, value in description["arguments"].items()}
    try:
        return _factories[name](**arguments)
    except TypeError as error:
        raise InputError(f"{name} does not take the arguments that were saved: {error}") from error


def summary(description: Mapping[str, Any] | None) -> str:
    """A description in a line, as the call that it is of; long tables are shortened."""
    if description is None:
        return "made of functions"
    if description["name"] == "sum":
        return " + ".join(summary(term) for term in description["terms"])
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in description["arguments"].items())
    return f"{description['name']}({arguments})"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return value["function"] if set(value) == {"function"} else summary(value)
    shape = np.shape(value)
    return f"<table {' × '.join(map(str, shape))}>" if np.prod(shape) > _MOST_SHOWN else repr(value)


def _live(value: Any) -> Any:
    """An argument from the form in which it is written down."""
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"name", "arguments"}:
        return made_from(value)
    if set(value) == {"function"}:
        if value["function"] not in _functions:
            raise InputError(f"difmd has no function {value['function']!r}; it knows {sorted(_functions)}")
        return _functions[value["function"]]
    return value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(getattr(value, "description", None), Mapping):
        return value.description
    if callable(value):
        # A function of its own may bear the name of one that is known.
        names = [name for name, function in _functions.items() if function is value]
        if not names:
            raise TypeError
        return {"function": names[0]}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    raise TypeError
