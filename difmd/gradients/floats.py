"""The differentiable numbers of a pytree, separated from its other leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from difmd.integrators import Forces, Integrator, MDState


def floats(tree: Any, selected: Sequence[bool] | None = None) -> tuple[list[Any], Callable[..., Any]]:
    """Differentiable leaves, if `selected`, and a function `insert(numbers, other)` that replaces them.

    The remaining leaves are those of `other`, a pytree of the same structure or None; default: `tree`.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact) for x in leaves]
    if selected is not None:
        is_float = [both == (True, True) for both in zip(is_float, selected, strict=True)]

    def insert(numbers: list[Any], other: Any = tree) -> Any:
        others = [None] * len(leaves) if other is None else jax.tree.leaves(other)
        values = iter(numbers)
        inserted = [next(values) if is_ else x for is_, x in zip(is_float, others, strict=True)]
        return jax.tree.unflatten(structure, inserted)

    return [x for is_, x in zip(is_float, leaves, strict=True) if is_], insert


Marks: TypeAlias = list[tuple[()] | None]
"""Whether each leaf of a pytree is differentiated, () or None. Without leaves, it passes through JAX."""


def marks_of(perturbed: Any) -> Marks:
    """Marks from a pytree of booleans."""
    return [() if varies else None for varies in jax.tree.leaves(perturbed)]


def is_marked(marks: Marks) -> list[bool]:
    """Whether each leaf is differentiated."""
    return [mark is not None for mark in marks]


def instantiated(cotangents: Any) -> Any:
    """Arrays of zeros for symbolic zeros of differentiable numbers."""

    def instance(x: Any) -> Any:
        if isinstance(x, SymbolicZero) and jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.zeros(x.shape, x.dtype)
        return x

    return jax.tree.map(instance, cotangents)


def moved_by(integrator: Integrator, state: MDState) -> list[bool]:
    """Whether a step changes each leaf of a state or passes it on."""

    def stepped(state: MDState) -> MDState:
        forces = 2 * state.forces
        return integrator.step(state, Forces(lambda _: forces, lambda _: (forces, 2 * state.system.cell)))

    traced = jax.make_jaxpr(stepped)(state).jaxpr
    return [after is not before for before, after in zip(traced.invars, traced.outvars, strict=True)]
