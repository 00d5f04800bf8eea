"""Every public function and type is documented, reachable by attribute, and shown in a few lines."""

import ast
import dataclasses
import enum
import inspect
import re
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from public import FUNCTIONS, PACKAGES, PUBLIC, TYPES, names_of

import difmd

SECTIONS = ("Args", "Returns", "Yields", "Raises", "Attributes")


def sections(text):
    """Names of the sections of a docstring in Google's style."""
    return {name for name in SECTIONS if re.search(rf"^{name}:$", inspect.cleandoc(text or ""), re.MULTILINE)}


def definition(function):
    """The syntax tree of a function, or None where it has none of its own."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        node = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    return node if isinstance(node, ast.FunctionDef) else None


def statements(node):
    """Nodes of a function without those of functions that it defines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        yield child
        yield from statements(child)


def can_raise(function, depth=1):
    """Whether the body of a function, or that of a function of difmd that it calls, raises."""
    node = definition(function)
    if node is None:
        return False
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    for child in statements(node):
        if isinstance(child, ast.Raise) and child.exc is not None:
            return True
        if depth and isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            called = scope.get(child.func.id)
            is_ours = inspect.isfunction(called) and called.__module__.startswith("difmd")
            if is_ours and can_raise(called, depth - 1):
                return True
    return False


@pytest.mark.parametrize("path", FUNCTIONS)
def test_functions_are_documented(path):
    function = FUNCTIONS[path]
    present = sections(function.__doc__)
    node = definition(function)
    missing = set()
    if inspect.signature(function).parameters:
        missing |= {"Args"} - present
    if node is not None and node.returns is not None and ast.unparse(node.returns).strip("'\"") != "None":
        missing |= set() if present & {"Returns", "Yields"} else {"Returns"}
    if can_raise(function):
        missing |= {"Raises"} - present
    assert not missing, f"the docstring of {path} lacks {sorted(missing)}"
    if "Args" in present:
        text = inspect.cleandoc(function.__doc__)
        absent = [n for n in inspect.signature(function).parameters if not re.search(rf"\b{n}\b", text)]
        assert not absent, f"the docstring of {path} does not name {absent}"


def fields(cls):
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]
    return list(getattr(cls, "_fields", ()))


@pytest.mark.parametrize("path", TYPES)
def test_types_are_documented(path):
    cls = TYPES[path]
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), f"{path} has no docstring"
    named = sections(cls.__doc__) & {"Attributes", "Args"}
    # Or a string below each field.
    source = inspect.getsource(cls)
    absent = [
        name for name in fields(cls)
        if not (named and re.search(rf"^\s*`?{name}`?\b", inspect.cleandoc(cls.__doc__), re.MULTILINE))
        and not re.search(rf"^    {name}\b[^\n]*\n    (\"\"\"|\")", source, re.MULTILINE)
    ]  # fmt: skip
    assert not absent, f"the docstring of {path} does not describe {absent}"


def test_everything_is_reachable_by_attribute():
    code = f"import functools, difmd\nfor path in {sorted(PUBLIC)!r}:\n"
    code += "    functools.reduce(getattr, path.split('.')[1:], difmd)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_sorted_out(package):
    names = names_of(package)
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("_")]


LARGE = np.zeros((1000, 3))
# What stands for a field, by the first of these words in its annotation; a large array without any.
STAND_INS = {
    "Array": LARGE, "Callable": abs, "dict": {"key": LARGE}, "Mapping": {"key": LARGE},
    "tuple": ("text",) * 1000, "list": ["text"] * 1000, "Sequence": ["text"] * 1000,
    "bool": True, "int": 3, "float": 1.5, "str": "text",
}  # fmt: skip


def filled(cls, **values):
    """An instance whose other fields hold what their annotations say, too large to be printed."""
    is_tuple = hasattr(cls, "_fields")
    names = list(cls._fields) if is_tuple else [field.name for field in dataclasses.fields(cls)]
    for name in names:
        annotation = str(cls.__annotations__.get(name, ""))
        words = [word for word in STAND_INS if word in annotation]
        first = min(words, key=annotation.index, default="Array")
        values.setdefault(name, STAND_INS["Array" if "Array" in words else first])
    if is_tuple:
        return cls(**values)
    instance = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance


def argon_crystal():
    grid = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    return difmd.make_system(5.4 * (cells + grid).reshape(-1, 3), np.full(32, 18), cell=[10.8] * 3)


def lennard_jones():
    return difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=5.0, truncation=difmd.switched(4.0))


def parameters():
    return {"layers": [{"weights": LARGE, "bias": LARGE}] * 50}


def trajectory():
    from difmd.trajectory.frames import Frames

    n = 1000
    arrays = {
        "positions": np.zeros((n, 32, 3)),
        "momenta": np.zeros((n, 32, 3)),
        "cells": np.zeros((n, 3, 3)) + 10 * np.eye(3),
        "potential_energy": np.zeros(n),
        "stress": np.zeros((n, 3, 3)),
        "reservoir": np.zeros(n),
    }
    return difmd.Trajectory(
        system=argon_crystal(),
        frames=Frames(**arrays),
        steps=np.arange(n),
        dt=0.1,
    )


def relaxation():
    scalar = {"energy": np.float64(1.0), "largest_force": np.float64(1e-4), "n_steps": np.int64(7)}
    return filled(
        difmd.Relaxation,
        system=argon_crystal(),
        status=difmd.Status.ok(),
        force_tolerance=1e-3,
        pressure=np.float64(0.0),
        **scalar,
    )


def diffusivity():
    estimate = filled(difmd.observables.Estimate, value=1.0, stderr=0.1)
    return filled(difmd.observables.Diffusivity, einstein=estimate, green_kubo=estimate, window=(1.0, 2.0))


def entry(epoch):
    errors = {name: 1.0 for name in ("energy_rmse", "forces_rmse")}
    return {"epoch": epoch, "loss": 1.0, "params": parameters(), **errors}


def training_result():
    return difmd.training.TrainingResult(
        best_params=parameters(),
        last_params=parameters(),
        references={18: -1.0},
        best_epoch=5,
        history=[entry(epoch) for epoch in range(1000)],
        n_compiled=2,
        seconds=100.0,
        is_complete=True,
        notes=("a note",) * 100,
    )


def committee_result():
    return difmd.training.CommitteeResult(
        best_params=parameters(),
        last_params=parameters(),
        references={18: -1.0},
        best_epochs=(5,) * 8,
        histories=[[entry(epoch) for epoch in range(100)]] * 8,
        n_compiled=2,
        seconds=100.0,
        is_complete=True,
    )


def fit_result():
    return filled(
        difmd.fitting.FitResult,
        params={"sigma": LARGE},
        best_params={"sigma": LARGE},
        best_loss=0.1,
        last_params={"sigma": LARGE},
        history=[{"loss": 1.0, "params": {"sigma": LARGE}}] * 1000,
        covariance=None,
    )


def report():
    from difmd.training.reports import Row

    rows = tuple(
        Row(part=part, by=by, group=str(k), n_frames=3, n_atoms=9, errors=example("difmd.training.Errors"))
        for part in ("valid", "test")
        for by in ("all", "kind")
        for k in range(100)
    )
    return filled(difmd.training.Report, rows=rows, residuals={}, notes=())


def certificate():
    check = filled(difmd.validation.Check, outcome="failed", name="forces")
    return filled(
        difmd.validation.Certificate,
        checks=(check,) * 30,
        potential="lennard_jones(…)",
        composition="Ar32",
        precision="float32",
        temperature=100.0,
        pressure=None,
        dt=0.1,
        seed=(0, 0),
        seconds=3.0,
    )


def examination():
    verdicts = list(difmd.data.Verdict)
    findings = tuple(
        filled(difmd.data.Finding, item=f"item {k}", verdict=verdicts[k % len(verdicts)]) for k in range(100)
    )
    return filled(
        difmd.data.Examination, findings=findings, n_atoms=(4, 8), elements=("Ar",), references=None
    )


# Examples of types that need more than fields with arrays; `filled` makes the others.
EXAMPLES = {
    "difmd.Model": lambda: difmd.Model(lennard_jones(), parameters(), {"note": "text"}),
    "difmd.System": argon_crystal,
    "difmd.Relaxation": relaxation,
    "difmd.Trajectory": trajectory,
    "difmd.Status": lambda: difmd.Status.ok(),
    "difmd.trajectory.Snapshot": lambda: trajectory()[3],
    "difmd.potentials.Potential": lennard_jones,
    "difmd.potentials.Truncation": lambda: difmd.switched(4.0),
    "difmd.observables.Diffusivity": diffusivity,
    "difmd.observables.RadialDistribution": lambda: filled(
        difmd.observables.RadialDistribution, r=np.linspace(0.1, 5, 200), g=np.ones(200), n_frames=10
    ),
    "difmd.data.Batches": lambda: difmd.data.Batches(4, ()),
    "difmd.data.Examination": examination,
    "difmd.training.Report": report,
    "difmd.training.Weights": difmd.training.Weights,
    "difmd.training.TrainingResult": training_result,
    "difmd.training.CommitteeResult": committee_result,
    "difmd.training.TrainingError": lambda: difmd.training.TrainingError("a message", training_result()),
    "difmd.training.TrainingInterrupted": lambda: difmd.training.TrainingInterrupted(
        "a message", training_result()
    ),
    "difmd.fitting.FitResult": fit_result,
    "difmd.fitting.FitError": lambda: difmd.fitting.FitError("a message", fit_result()),
    "difmd.fitting.FitInterrupted": lambda: difmd.fitting.FitInterrupted("a message", fit_result()),
    "difmd.fitting.StatePoint": lambda: filled(
        difmd.fitting.StatePoint, diffusivity=diffusivity(), correction=0.1, n_solid=0
    ),
    "difmd.sensitivity.GradientReport": lambda: filled(
        difmd.sensitivity.GradientReport,
        times=np.arange(1.0, 1000.0),
        costs=(filled(difmd.sensitivity.Cost, method="direct", refusal=""),) * 10,
    ),
    "difmd.validation.Certificate": certificate,
    "difmd.interop.ase.Calculator": lambda: difmd.interop.ase.Calculator(
        lennard_jones(), lennard_jones().init(jax.random.key(0))
    ),
}


def example(path):
    """An instance of a public type; fails for one without an example."""
    cls = TYPES[path]
    if path in EXAMPLES:
        return EXAMPLES[path]()
    if issubclass(cls, Exception):
        return cls("a message")
    if issubclass(cls, enum.Enum):
        return next(iter(cls))
    if hasattr(cls, "_fields") or dataclasses.is_dataclass(cls):
        return filled(cls)
    if inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        pytest.skip("an interface")
    pytest.fail(f"{path} has no example in EXAMPLES")


@pytest.mark.parametrize("path", TYPES)
def test_repr_is_short(path):
    text = repr(example(path))
    lines = text.splitlines()
    assert len(lines) <= 6, text[:2000]
    assert len(text) <= 1000, text[:2000]
    assert not re.search(r"array\(|\[\[? *-?\d+\.", text), f"prints an array: {text[:500]}"
