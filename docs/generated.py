"""Pages that are generated: the reference from `__all__`, and copies of notebooks and experiments.

`python docs/generated.py` writes them without building the documentation.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).resolve().parents[1]


def write_all(docs: Path) -> None:
    """Write `reference/`, `notebooks/`, `experiments/`, `contributing.md` and `changelog.md` below `docs`."""
    for name in ("reference", "notebooks", "experiments"):
        shutil.rmtree(docs / name, ignore_errors=True)
        (docs / name).mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(path, docs / "notebooks")
    for path in sorted((ROOT / "experiments").glob("*/README.md")):
        (docs / "experiments" / f"{path.parent.name}.md").write_text(_portable(path.read_text()))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        (docs / name.lower()).write_text((ROOT / name).read_text().replace("](docs/", "]("))
    modules = public_modules()
    for module in modules:
        (docs / "reference" / f"{module.__name__}.md").write_text(_page(module))
    (docs / "reference" / "index.md").write_text(_index(modules))


def public_modules() -> list[ModuleType]:
    """`difmd`, its public packages and modules, and the converters of `difmd.interop`."""
    top = importlib.import_module("difmd")
    names = [f"difmd.{found.name}" for found in pkgutil.iter_modules(top.__path__) if found.name[0] != "_"]
    names += ["difmd.interop.ase", "difmd.interop.jax_md"]
    return [top, *(importlib.import_module(name) for name in sorted(names))]


def public_names(module: ModuleType) -> list[str]:
    """`__all__`, or the public names that a module without one defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed, key=str.lower)
    names = [name for name, value in vars(module).items() if name[0] != "_" and _is_defined(value, module)]
    return sorted(names, key=str.lower)


def is_field(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples and data classes, which the docstring of the class describes."""
    is_tuple_field = type(value).__name__ == "_tuplegetter"
    is_slot = inspect.ismemberdescriptor(value)
    is_default = what == "class" and not callable(value) and not isinstance(value, property | classmethod)
    return True if is_tuple_field or is_slot or (is_default and not _is_function(value)) else None


def escape(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Escape `*` and `|` outside backquotes: shapes and norms, and no markup in our docstrings."""
    for k, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("*", r"\*").replace("|", r"\|") for part in parts[::2]]
        # A plural after a name needs a separator.
        lines[k] = re.sub(r"(?<=\w`)(?=s\b)", r"\\ ", "`".join(parts))


def _is_function(value: Any) -> bool:
    return isinstance(value, staticmethod) or inspect.isroutine(value) or hasattr(value, "func")


def _is_defined(value: Any, module: ModuleType) -> bool:
    if isinstance(value, int | float):
        return module.__name__ == "difmd.units"
    return getattr(value, "__module__", None) == module.__name__


def _page(module: ModuleType) -> str:
    """Entries of all public names: modules as links, everything else from its docstring."""
    name = module.__name__
    summary = inspect.getdoc(module) or ""
    lines = [f"# {name}", "", "```{eval-rst}", summary, "```", "", f"```{{py:module}} {name}", "```", ""]
    for entry in public_names(module):
        lines += _entry(name, entry, getattr(module, entry))
    return "\n".join(lines)


def _entry(module: str, name: str, value: Any) -> list[str]:
    if isinstance(value, ModuleType):
        line = f"Package: see [{value.__name__}]({value.__name__}.md)."
        return [
            f"```{{py:data}} {module}.{name}",
            ":no-typesetting:",
            "```",
            "",
            f"`{name}`",
            f": {line}",
            "",
        ]
    home = _home(module, name, value)
    if home is not None:
        summary = (inspect.getdoc(value) or "").split("\n")[0]
        kind = "class" if inspect.isclass(value) else "function"
        return [
            "```{eval-rst}", f".. py:{kind}:: {module}.{name}", "",
            f"   {summary} See :py:obj:`{home}`.", "```", "",
        ]  # fmt: skip
    options = []
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        options = ["   :members:"]
    elif callable(value) and hasattr(value, "__name__"):
        kind = "function"
    elif isinstance(value, int | float):
        kind = "data"
    else:
        lines = [f"   {line}" for line in _comment(module, name)]
        return ["```{eval-rst}", f".. py:data:: {module}.{name}", "", *lines, "```", ""]
    return ["```{eval-rst}", f".. auto{kind}:: {module}.{name}", *options, "```", ""]


def _comment(module: str, name: str) -> list[str]:
    """The string below the definition of a constant or a type alias, in a module of the package."""
    for other, found in sorted(sys.modules.items()):
        if other.startswith(module) and name in vars(found):
            comment = ModuleAnalyzer.for_module(other).find_attr_docs().get(("", name))
            if comment:
                return list(comment)
    return []


def _home(module: str, name: str, value: Any) -> str | None:
    """The package that documents a name of `difmd`; None where this is the place."""
    if module != "difmd":
        return None
    for other in public_modules()[1:]:
        if name in public_names(other) and getattr(other, name, None) is value:
            return f"{other.__name__}.{name}"
    return None


def _index(modules: list[ModuleType]) -> str:
    names = [module.__name__ for module in modules]
    table = [
        f"| [{module.__name__}]({module.__name__}.md) | {(inspect.getdoc(module) or '').splitlines()[0]} |"
        for module in modules
    ]
    table = [row.replace("`", "") for row in table]
    return "\n".join(
        [
            "# API reference",
            "",
            "Every public name, generated from the docstrings.",
            "",
            "| | |",
            "| --- | --- |",
        ]
        + table
        + ["", "```{toctree}", ":hidden:", "", *names, "```", ""]
    )


def _portable(text: str) -> str:
    """A README of an experiment as a page: links to its files become their names."""
    text = re.sub(r"\]\(\.\./(\w+)/README\.md\)", r"](\1.md)", text)
    return re.sub(r"\[([^\]]+)\]\((?!http)[\w/]+\.(?:json|py|csv)\)", r"`\1`", text)


if __name__ == "__main__":
    write_all(Path(__file__).resolve().parent)
