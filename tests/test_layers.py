"""The layers of the package: imports go down, files form no circle, functions shadow no module."""

import ast
import importlib
import re
import types
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import difmd

ROOT = Path(difmd.__file__).parent

# From the bottom up: what stands in a line may import what stands in earlier lines, and its own package.
LAYERS = (
    ("units", "errors"),
    ("_internal",),
    ("system",),
    ("neighbors",),
    ("potentials",),
    ("forces",),
    ("integrators",),
    ("gradients",),
    ("trajectory",),
    ("simulation",),
    ("relaxation",),
    ("observables",),
    ("sensitivity",),
    ("datasets", "data"),
    ("training",),
    ("fitting",),
    ("validation",),
    ("interop",),
    ("plots",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Imports that climb, each for a reason. Three at most.
EXCEPTIONS = {
    # `fit.plot()` draws itself.
    ("difmd.fitting.result", "difmd.plots"),
    # `python -m difmd.data` draws its tables when it is asked to.
    ("difmd.data.__main__", "difmd.plots"),
}

FILES = sorted(ROOT.rglob("*.py"))


def module_of(file: Path) -> str:
    parts = ("difmd", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def imported_by(file: Path) -> Iterator[tuple[str, int]]:
    """Modules of difmd that a file imports, with the line: at its top, in functions, for types, by name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative imports hide where they lead"
            names = [
                full if (full := f"{node.module}.{alias.name}") in MODULES else str(node.module)
                for alias in node.names
            ]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # The modules that `lazy.importer` and `import_module` take as text.
            names = [node.value] if re.fullmatch(r"difmd(\.\w+)+", node.value) else []
            names = [name for name in names if name in MODULES and MODULES[name] != file]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "difmd")


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def is_exception(importer: str, imported: str) -> bool:
    return any(importer == a and (imported == b or imported.startswith(f"{b}.")) for a, b in EXCEPTIONS)


def test_every_module_has_a_layer():
    names = {path.stem if path.suffix else path.name for path in ROOT.iterdir()}
    assert names - {"__init__", "__pycache__", "py.typed"} == set(LEVEL)


def test_top_level_modules():
    assert {path.name for path in ROOT.glob("*.py")} == {
        "__init__.py", "system.py", "units.py", "errors.py", "forces.py",
    }  # fmt: skip


@pytest.mark.parametrize("layer", [name for names in LAYERS for name in names])
def test_imports_go_down(layer):
    climbing = []
    for module, file in MODULES.items():
        if layer_of(module) != layer:
            continue
        for name, line in imported_by(file):
            target = layer_of(name)
            down = target == layer or (target != "" and LEVEL[target] < LEVEL[layer])
            if not down and not is_exception(module, name):
                climbing.append(f"{file}:{line}: {module} imports {name}")
    assert not climbing, "\n".join(climbing)


def test_exceptions_are_few_and_needed():
    assert len(EXCEPTIONS) <= 3
    for importer, imported in EXCEPTIONS:
        names = [name for name, _ in imported_by(MODULES[importer])]
        assert any(name == imported or name.startswith(f"{imported}.") for name in names), (
            importer,
            imported,
        )


def test_files_form_no_circle():
    """A package counts as the file that imports its names; one that a file imports is no circle by itself."""
    graph = {module: {name for name, _ in imported_by(file)} for module, file in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" → ".join(reversed(circle.args[1])))


def test_no_name_shadows_a_module():
    """`difmd.x` is the module where there is a `difmd/x`."""
    for name in LEVEL:
        importlib.import_module(f"difmd.{name}")
        assert isinstance(getattr(difmd, name), types.ModuleType), name
