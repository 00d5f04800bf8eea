"""Checks of the types of arguments (host)."""

from __future__ import annotations

import os
import reprlib
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from difmd.errors import InputError


def check_type(name: str, value: Any, kind: type, remedy: str) -> None:
    """Refuse a value of another type."""
    if not isinstance(value, kind):
        raise InputError(f"{name} is of type {type(value).__name__}, but must be a {kind.__name__}: {remedy}")


def is_traced(tree: Any) -> bool:
    """Whether a pytree holds arrays without values: under jit, grad or vmap."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def check_integer(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse a value that is not an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} = {value!r} must be an integer of at least {least}")
    if value < least:
        raise InputError(f"{name} = {value} must be at least {least}")


def check_key(key: Any) -> None:
    """Refuse a value that is not a single PRNG key of JAX; works under jit."""
    if not jnp.issubdtype(getattr(key, "dtype", int), jax.dtypes.prng_key):
        raise InputError(f"key = {key} is not a key of JAX: write key=jax.random.key(0)")
    if key.shape != ():
        raise InputError(f"key has shape {list(key.shape)}: give a single key, which is split as needed")


def as_path(name: str, value: Any) -> Path:
    """`value` as a path; refuses other types."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name} = {value!r} is not a path: give a str or a pathlib.Path")
    return Path(value)


def real_numbers(name: str, values: Any) -> np.ndarray:
    """`values` as an array of float64; refuses whatever is not an array of numbers, but not NaN."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from None
    if not (jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer)):
        kind = type(values).__name__ if array.dtype == object or array.ndim == 0 else str(array.dtype)
        raise InputError(f"{name} is not an array of numbers: {reprlib.repr(values)} is of type {kind}")
    return array.astype(np.float64)


def warn_of_pressure(pressure: Any) -> None:
    """Warn of a pressure that probably lacks its unit, as 1 eV/Å³ is 160 GPa; traced values pass (host)."""
    if isinstance(pressure, jax.core.Tracer):
        return
    largest = float(np.max(np.abs(np.asarray(pressure, np.float64)), initial=0))
    if largest >= 1:
        warnings.warn(
            f"the pressure is {largest:.3g} eV/Å³ = {160.2177 * largest:.0f} GPa: give its unit, as in "
            "`1 * units.BAR` or `1 * units.GPA`",
            stacklevel=3,
        )
