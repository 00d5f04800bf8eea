"""Names of a package that are imported on first access, so that `import difmd` is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def importer(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562), from the module of each name; of a submodule, itself."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_late(homes[name])
        value = module if homes[name] == f"{package}.{name}" else getattr(module, name)
        # Later accesses bypass this function.
        setattr(sys.modules[package], name, value)
        return value

    return find


def import_late(module: str) -> ModuleType:
    """Import a module; raises ImportError for an `AttributeError`, which would look like a missing name."""
    try:
        return importlib.import_module(module)
    except AttributeError as error:
        raise ImportError(f"{module} cannot be imported: {error}") from error
