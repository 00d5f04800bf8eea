"""The type checker that conftest.py puts on the public functions of difmd."""

import ast
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook

# An int is a float, as for every type checker.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def leave_private_functions() -> None:
    """Let the import hook of jaxtyping wrap no private functions, nor those inside of functions.

    It wraps them although they are not checked, which slows tests down. Versions of jaxtyping that do so in
    another way are left as they are.
    """
    transformer: Any = getattr(_import_hook, "JaxtypingTransformer", None)
    if transformer is None:
        return
    decorate = transformer.visit_FunctionDef

    def visit(self: Any, node: ast.FunctionDef) -> ast.AST:
        is_local = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
        return node if is_local or node.name.startswith("_") else decorate(self, node)

    transformer.visit_FunctionDef = visit


def check_public_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check public functions and methods.

    Constructors are left out because JAX itself fills pytrees with other things than arrays, as in
    `jax.tree.map(lambda x: True, system)`.
    """
    if function.__name__.startswith("_") or "<locals>" in function.__qualname__:
        return function
    return _checked(function)
