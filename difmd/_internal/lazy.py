"""Names of a package that are imported when they are first asked for, so that `import difmd` is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def importer(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package, as of PEP 562.

    Args:
        package: `__name__` of it.
        homes: module that each name is in; a submodule of the package is its own home.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_late(homes[name])
        found = module if homes[name] == f"{package}.{name}" else getattr(module, name)
        # Found at once from now on.
        setattr(sys.modules[package], name, found)
        return found

    return find


def import_late(module: str) -> ModuleType:
    """Import a module of difmd.

    Raises:
        ImportError: also for an `AttributeError` on the way, which Python would take for a name that is not
            there.
    """
    try:
        return importlib.import_module(module)
    except AttributeError as error:
        raise ImportError(f"{module} cannot be imported: {error}") from error
