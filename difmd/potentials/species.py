"""Species of a potential: symbols or atomic numbers, and one value for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from difmd._internal.argument_checks import real_numbers
from difmd._internal.reductions import largest
from difmd.errors import InputError
from difmd.system import System

Species: TypeAlias = int | str | np.integer | Iterable[int | str | np.integer]
"""One chemical symbol or atomic number, or several."""

SpeciesValues: TypeAlias = float | Sequence[float] | np.ndarray
"""One number for all species, or one for each."""


def as_species(species: Species) -> tuple[int, ...]:
    """Atomic numbers, in the given order, of symbols or numbers such as "Ar", 18 or ["H", "O"]."""
    from ase.data import atomic_numbers

    names = [species] if isinstance(species, str | int | np.integer) else species
    names = list(names) if isinstance(names, Iterable) else []
    if not names:
        raise InputError(f"species = {species!r} must be a symbol such as 'Ar', or a list such as ['H', 'O']")
    numbers = []
    for name in names:
        is_number = isinstance(name, int | np.integer) and not isinstance(name, bool)
        number = int(name) if is_number else atomic_numbers.get(name) if isinstance(name, str) else None
        if number is None or not 0 < number <= 118:
            raise InputError(f"species {name!r} is neither a chemical symbol nor a number from 1 to 118")
        numbers.append(number)
    if len(set(numbers)) < len(numbers):
        raise InputError(f"species {tuple(names)} contains an element twice")
    return tuple(numbers)


def symbols(numbers: Iterable[int]) -> list[str]:
    """Chemical symbols of atomic numbers."""
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in numbers]


def species_values(
    name: str, values: SpeciesValues, numbers: Sequence[int], *, positive: bool = False
) -> Float[np.ndarray, "species"]:
    """One finite value for each species, from one for all or one for each (host)."""
    array = real_numbers(name, values)
    if array.ndim == 0:
        array = np.full(len(numbers), array)
    if array.shape != (len(numbers),):
        raise InputError(
            f"{name} has {array.size} values for {len(numbers)} species: give one value, or one per species"
        )
    if not (np.isfinite(array) & (array > 0 if positive else True)).all():
        raise InputError(f"{name} = {array.tolist()} must be {'positive and ' * positive}finite")
    return array


def type_table(numbers: Sequence[int]) -> Int[np.ndarray, "119"]:
    """Index of each element in `numbers`, −1 if it is absent."""
    table = np.full(119, -1, np.int32)
    table[list(numbers)] = np.arange(len(numbers))
    return table


def types_of(numbers: Sequence[int], atomic_numbers: Int[Array, "atoms"]) -> Int[Array, "atoms"]:
    """Index of each atom's species in `numbers`; 0 for padding and absent species."""
    return jnp.maximum(jnp.asarray(type_table(numbers))[atomic_numbers], 0)


def nan_if_unknown(numbers: Sequence[int], system: System) -> Float[Array, ""]:
    """1, or NaN if an atom's species is not in `numbers`: nothing can be raised under jit."""
    unknown = (system.atomic_numbers > 0) & (jnp.asarray(type_table(numbers))[system.atomic_numbers] < 0)
    dtype = system.positions.dtype
    # A maximum of floats, which a run has compiled for other uses.
    return jnp.where(largest(unknown.astype(dtype)) > 0, jnp.nan, 1).astype(dtype)


def check_species(numbers: Iterable[int] | None, system: System) -> None:
    """Refuse atoms of a species that is not in `numbers`, None for any (host)."""
    if numbers is None:
        return
    present = {int(z) for z in np.unique(np.asarray(system.atomic_numbers))} - {0}
    unknown = sorted(present - set(numbers))
    if unknown:
        raise InputError(
            f"the potential has no parameters for {', '.join(symbols(unknown))}, only for "
            f"{', '.join(symbols(sorted(numbers)))}: add the species where the potential is made, or change "
            "the atomic numbers"
        )
