"""Descriptions of potentials in numbers and text, from which they can be made again."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np

from difmd._internal.lazy import import_late
from difmd.errors import InputError
from difmd.potentials.species import as_species, symbols

_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made")
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Numbers of a table that `summary` writes out.
_MOST_SHOWN = 8

LATE_MODULES: list[str] = []
"""Modules with further factories, imported when a description names an unknown factory."""

_factories: dict[str, Callable[..., Any]] = {}
_functions: dict[str, Callable[..., Any]] = {}


def described(factory: Callable[_Arguments, _Made]) -> Callable[_Arguments, _Made]:
    """Describe what `factory` makes by its name and arguments, if all of these can be written to a file.

    Numbers, text, tables, results of other described factories, and `named` functions can. The factory
    returns a dataclass with a field `description`.
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def made(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Made:
        bound = signature.bind(*args, **kwargs)
        result: Any = factory(*args, **kwargs)
        # Defaults too: they may differ in the version of difmd that loads it.
        bound.apply_defaults()
        try:
            arguments = {name: _plain(value) for name, value in bound.arguments.items()}
        except TypeError:
            return result
        return dataclasses.replace(result, description={"name": factory.__name__, "arguments": arguments})

    _factories[factory.__name__] = made
    return made


def named(function: _Function) -> _Function:
    """Let descriptions refer to `function` by its name."""
    _functions[function.__name__] = function
    return function


def made_from(description: Mapping[str, Any]) -> Any:
    """The object of a description: a potential, or a part of one such as a truncation."""
    name = description.get("name")
    if name == "sum":
        first, second = (made_from(term) for term in description["terms"])
        return first + second
    if name not in _factories:
        for module in LATE_MODULES:
            import_late(module)
    if name not in _factories:
        raise InputError(f"difmd has no potential {name!r} that can be loaded, only {sorted(_factories)}")
    arguments = {key: _live(value) for key, value in description["arguments"].items()}
    try:
        return _factories[name](**arguments)
    except TypeError as error:
        raise InputError(f"{name} does not take the arguments that were saved: {error}") from error


def summary(description: Mapping[str, Any] | None) -> str:
    """The call that a description stands for, without defaults; long tables are shortened."""
    if description is None:
        return "functions"
    if description["name"] == "sum":
        return " + ".join(summary(term) for term in description["terms"])
    name, given = description["name"], dict(description["arguments"])
    parts = [_species_text(given.pop("species"))] if "species" in given else []
    parameters = inspect.signature(_factories[name]).parameters if name in _factories else {}
    for key, value in given.items():
        if key not in parameters or _is_default(value, parameters[key].default):
            continue
        text = _short(value) + (" Å" if key in ("cutoff", "onset") and np.ndim(value) == 0 else "")
        parts.append(text if key in ("truncation", "onset") else f"{key}={text}")
    return f"{name}({', '.join(parts)})"


def _species_text(species: Any) -> str:
    names = symbols(as_species(species))
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def _is_default(value: Any, default: Any) -> bool:
    try:
        return bool(value == _plain(default))
    except TypeError:
        return False


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        if set(value) == {"function"}:
            return str(value["function"])
        return summary(value) if set(value) == {"name", "arguments"} else f"<{', '.join(map(str, value))}>"
    shape = np.shape(value)
    if np.prod(shape) > _MOST_SHOWN:
        return f"<table {' × '.join(map(str, shape))}>"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _live(value: Any) -> Any:
    """An argument from its written form."""
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"name", "arguments"}:
        return made_from(value)
    if set(value) == {"function"}:
        if value["function"] not in _functions:
            raise InputError(f"difmd has no function {value['function']!r}, only {sorted(_functions)}")
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
        # A function of a user may have the name of a registered one.
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
