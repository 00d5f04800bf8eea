"""Arguments of a wrong type, found before they get anywhere (host)."""

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
    """Refuse a value of another type.

    Raises:
        InputError: naming the argument, its type and the remedy.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is of type {type(value).__name__}, but must be a {kind.__name__}: {remedy}")


def check_integer(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse what is no whole number, or less than that.

    Raises:
        InputError: naming the argument and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} = {value!r} must be a whole number of at least {least}")
    if value < least:
        raise InputError(f"{name} = {value} must be at least {least}")


def check_key(key: Any) -> None:
    """Refuse what is not one key of JAX; traced ones are known, too.

    Raises:
        InputError: with its value.
    """
    if not jnp.issubdtype(getattr(key, "dtype", int), jax.dtypes.prng_key):
        raise InputError(f"key = {key} is not a key of JAX: write key=jax.random.key(0)")
    if key.shape != ():
        raise InputError(f"key has shape {list(key.shape)}: give one key, from which others are split")


def as_path(name: str, value: Any) -> Path:
    """A path.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name} = {value!r} is no path: give a str or a pathlib.Path")
    return Path(value)


def real_numbers(name: str, values: Any) -> np.ndarray:
    """An array of float64 from what a user gave, which may be NaN.

    Raises:
        InputError: text, complex numbers, truth values, None, lists of unequal lengths, or another object.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from None
    if not (jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer)):
        kind = type(values).__name__ if array.dtype == object or array.ndim == 0 else str(array.dtype)
        raise InputError(f"{name} is not an array of numbers: {reprlib.repr(values)} is of type {kind}")
    return array.astype(np.float64)


def warn_of_pressure(pressure: Any) -> None:
    """Warn of a pressure that is likely to lack its unit: 1 eV/Å³ is 160 GPa; traced ones pass (host)."""
    if isinstance(pressure, jax.core.Tracer):
        return
    largest = float(np.max(np.abs(np.asarray(pressure, np.float64)), initial=0))
    if largest >= 1:
        warnings.warn(
            f"a pressure of {largest:.3g} eV/Å³ is {160.2177 * largest:.0f} GPa: if that is not meant, write "
            "`1 * units.BAR` or `1 * units.GPA`",
            stacklevel=3,
        )
