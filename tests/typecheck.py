"""The type checker that conftest.py puts on the public functions of difmd."""

import ast
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping._import_hook import JaxtypingTransformer

# An int is a float, as for every type checker.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_decorate = JaxtypingTransformer.visit_FunctionDef


def leave_private_functions() -> None:
    """Let the import hook of jaxtyping wrap no private functions, nor those inside of functions.

    It would wrap them whatever the checker returns, which takes an eighth of the time of the tests.
    """

    def visit(transformer: JaxtypingTransformer, node: ast.FunctionDef) -> ast.AST:
        is_local = any(isinstance(parent, ast.FunctionDef) for parent in transformer._parents)
        return node if is_local or node.name.startswith("_") else _decorate(transformer, node)

    JaxtypingTransformer.visit_FunctionDef = visit


def check_public_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check public functions and methods.

    Constructors are left out because JAX itself fills pytrees with other things than arrays, as in
    `jax.tree.map(lambda x: True, system)`.
    """
    if function.__name__.startswith("_") or "<locals>" in function.__qualname__:
        return function
    return _checked(function)
