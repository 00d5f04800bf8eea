"""The numbers of a pytree that can be differentiated, apart from the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from difmd.integrators import Forces, Integrator, MDState


def floats(tree: Any, wanted: Sequence[bool] | None = None) -> tuple[list[Any], Callable[..., Any]]:
    """Leaves that can be differentiated, and a function that puts such into the tree again.

    The function takes the other leaves from a second tree of the same kind, the first one if none is given,
    and leaves None for them if that is None.

    Args:
        tree: any pytree.
        wanted: whether to take a leaf, for each of them; default all that can be differentiated.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.inexact) for x in leaves]
    if wanted is not None:
        is_float = [can and wants for can, wants in zip(is_float, wanted, strict=True)]

    def put(numbers: list[Any], other: Any = tree) -> Any:
        rest = [None] * len(leaves) if other is None else jax.tree.leaves(other)
        given = iter(numbers)
        return jax.tree.unflatten(
            structure, [next(given) if is_ else x for is_, x in zip(is_float, rest, strict=True)]
        )

    return [x for is_, x in zip(is_float, leaves, strict=True) if is_], put


Marks: TypeAlias = list[tuple[()] | None]
"""Which leaves of a pytree are differentiated, () or None. As it has no leaves, it passes through JAX."""


def marks_of(perturbed: Any) -> Marks:
    """Marks from a pytree of booleans."""
    return [() if varies else None for varies in jax.tree.leaves(perturbed)]


def is_marked(marks: Marks) -> list[bool]:
    """Whether each leaf is differentiated."""
    return [mark is not None for mark in marks]


def instantiated(cotangents: Any) -> Any:
    """Zeros for symbolic zeros that stand for numbers."""

    def instance(x: Any) -> Any:
        if isinstance(x, SymbolicZero) and jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.zeros(x.shape, x.dtype)
        return x

    return jax.tree.map(instance, cotangents)


def moved_by(integrator: Integrator, state: MDState) -> list[bool]:
    """Whether a step changes each leaf of a state, or hands it on as it is."""

    def stepped(state: MDState) -> MDState:
        nothing = 2 * state.forces
        return integrator.step(state, Forces(lambda _: nothing, lambda _: (nothing, 2 * state.system.cell)))

    traced = jax.make_jaxpr(stepped)(state).jaxpr
    return [after is not before for before, after in zip(traced.invars, traced.outvars, strict=True)]
