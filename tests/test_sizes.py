"""Limits on the size of the package: files, functions, the median file, the total."""

import ast
import statistics
from pathlib import Path

import difmd

ROOT = Path(difmd.__file__).parent
LINES = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in sorted(ROOT.rglob("*.py"))}


def test_no_file_is_too_long():
    assert {str(file.relative_to(ROOT)): n for file, n in LINES.items() if n > 400} == {}


def test_no_function_is_too_long():
    too_long = {}
    for file in LINES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n = node.end_lineno - node.lineno + 1
                if n > 90:
                    too_long[f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"] = n
    assert too_long == {}


def test_the_median_file_is_short():
    assert statistics.median(LINES.values()) <= 150


def test_the_package_is_not_too_large():
    """What has to be read; raise it for a new family of methods, not for repeats."""
    assert sum(LINES.values()) <= 28_100
