"""What difmd makes public: the names in `__all__` of difmd and of its public packages."""

import importlib
import inspect
from typing import Any

import difmd

PACKAGES = (
    "difmd",
    "difmd.units",
    "difmd.errors",
    "difmd.system",
    "difmd.neighbors",
    "difmd.potentials",
    "difmd.potentials.networks",
    "difmd.forces",
    "difmd.integrators",
    "difmd.gradients",
    "difmd.trajectory",
    "difmd.simulation",
    "difmd.relaxation",
    "difmd.observables",
    "difmd.sensitivity",
    "difmd.datasets",
    "difmd.data",
    "difmd.training",
    "difmd.fitting",
    "difmd.validation",
    "difmd.interop.ase",
    "difmd.interop.jax_md",
    "difmd.plots",
)


def names_of(package: str) -> list[str]:
    """`__all__`, or the public functions and classes that a module without one defines."""
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == package
    ]  # fmt: skip


def public() -> dict[str, Any]:
    """Functions and classes by the shortest path through which they are public."""
    found: dict[int, tuple[str, Any]] = {}
    for package in PACKAGES:
        for name in names_of(package):
            value = getattr(importlib.import_module(package), name)
            if (
                value is not Any
                and inspect.isclass(value)
                or inspect.isroutine(value)
                or hasattr(value, "__wrapped__")
            ):
                found.setdefault(id(value), (f"{package}.{name}", value))
    return dict(found.values())


PUBLIC = public()
FUNCTIONS = {path: value for path, value in PUBLIC.items() if not inspect.isclass(value)}
TYPES = {path: value for path, value in PUBLIC.items() if inspect.isclass(value)}


def by_attribute(path: str) -> Any:
    """What `import difmd` and the dots of a path lead to."""
    value: Any = difmd
    for name in path.split(".")[1:]:
        value = getattr(value, name)
    return value
