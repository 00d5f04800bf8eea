"""The `Potential` protocol: two pure functions, a cut-off, and the species they know."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_type
from difmd.errors import InputError
from difmd.neighbors import Neighbors
from difmd.potentials.describe import made_from, summary
from difmd.potentials.multipoles import Multipoles
from difmd.system import System, check_system

Params: TypeAlias = Any
"""A pytree of arrays."""


def _nothing_wrong(system: System) -> None:
    del system


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Potential:
    """An energy model as pure functions; `first + second` is the sum of two.

    Attributes:
        init: `init(key) -> params`.
        apply: `apply(params, system, neighbors) -> energy` [eV], a scalar. The list may reach farther
            than `cutoff`; pairs beyond it must contribute exactly nothing.
        atomic: `atomic(params, system, neighbors) -> energies` [eV], [atoms], which add up to `apply`.
        cutoff: [Å].
        with_multipoles: `with_multipoles(params, system, neighbors) -> energy, multipoles`: `apply`, and the
            charges and dipoles of atoms from the same pass; None where it knows of no charges.
        species: atomic numbers it is defined for, or None for any.
        validate: `validate(system)` raises `InputError` for a system that it cannot be evaluated for (host).
        uses_reverse_edges: whether it evaluates each pair once, and needs lists with `reverse_edges`.
        on_grid: `on_grid(exponent)` is the same potential, its forces sums of multiples of 2^exponent [eV/Å]
            and therefore the same whatever list they come from; None where none is known.
        pull_back: `pull_back(params, system, neighbors, v)` → ∂/∂(params, positions) of Σ v · F in one pass
            over the pairs, or None where JAX has to do it; None where it always has to.
        description: factory and arguments, from which `from_description` makes it again; None where it has
            none.
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, System, Neighbors], Float[Array, ""]]
    atomic: Callable[[Params, System, Neighbors], Float[Array, "atoms"]]
    cutoff: float
    with_multipoles: Callable[[Params, System, Neighbors], tuple[Float[Array, ""], Multipoles]] | None = None
    species: frozenset[int] | None = None
    validate: Callable[[System], None] = _nothing_wrong
    uses_reverse_edges: bool = False
    on_grid: Callable[[int], Potential] | None = None
    pull_back: Callable[[Params, System, Neighbors, Array], tuple[Params, Array] | None] | None = None
    # Not hashable, and functions tell potentials apart.
    description: Mapping[str, Any] | None = dataclasses.field(default=None, compare=False)

    def __repr__(self) -> str:
        """Species, cut-off, and the call that made it."""
        species = "any species" if self.species is None else " ".join(_symbols(self.species))
        return f"Potential: {species}, cutoff {self.cutoff:.6g} Å, {summary(self.description)}"

    def __add__(self, other: Potential) -> Potential:
        """The sum; its params are the pair of both params, its species those that both know.

        Its charges and dipoles are the sums of those of the potentials that have some.

        Raises:
            InputError: they share no species.
        """
        if not isinstance(other, Potential):
            return NotImplemented
        return _sum_of(self, other)


def _sum_of(first: Potential, second: Potential) -> Potential:
    def init(key: Array) -> Params:
        one, two = jax.random.split(key)
        return first.init(one), second.init(two)

    def parts(params: Params) -> tuple[Params, Params]:
        if not isinstance(params, tuple | list) or len(params) != 2:
            raise InputError(
                f"params of a sum are the pair of both its terms, got {jax.tree.structure(params)}: give "
                "what its `init`, a fit or `load` returned"
            )
        return params[0], params[1]

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        one, two = parts(params)
        return first.apply(one, system, neighbors) + second.apply(two, system, neighbors)

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        one, two = parts(params)
        return first.atomic(one, system, neighbors) + second.atomic(two, system, neighbors)

    def with_multipoles(params: Params, system: System, neighbors: Neighbors) -> tuple[Array, Multipoles]:
        energies, found = [], []
        for potential, own in zip((first, second), parts(params), strict=True):
            if potential.with_multipoles is None:
                energies.append(potential.apply(own, system, neighbors))
            else:
                energy, multipoles = potential.with_multipoles(own, system, neighbors)
                energies.append(energy)
                found.append(multipoles)
        total = found[0] if len(found) == 1 else jax.tree.map(jnp.add, *found)
        return energies[0] + energies[1], total

    has_charges = first.with_multipoles is not None or second.with_multipoles is not None

    def validate(system: System) -> None:
        first.validate(system)
        second.validate(system)

    if first.species is None or second.species is None:
        species = second.species if first.species is None else first.species
    else:
        species = first.species & second.species
        if not species:
            raise InputError(
                f"the potentials of a sum share no species: {sorted(first.species)}, {sorted(second.species)}"
            )
    on_grid = None
    if first.on_grid is not None and second.on_grid is not None:
        both = (first.on_grid, second.on_grid)
        on_grid = functools.cache(lambda exponent: _sum_of(*(own(exponent) for own in both)))

    def pull_back(
        params: Params, system: System, neighbors: Neighbors, v: Array
    ) -> tuple[Params, Array] | None:
        assert first.pull_back is not None and second.pull_back is not None
        one, two = parts(params)
        found = first.pull_back(one, system, neighbors, v), second.pull_back(two, system, neighbors, v)
        if found[0] is None or found[1] is None:
            return None
        return type(params)((found[0][0], found[1][0])), found[0][1] + found[1][1]

    is_quick = first.pull_back is not None and second.pull_back is not None
    cutoff = max(first.cutoff, second.cutoff)
    description = None
    if first.description is not None and second.description is not None:
        description = {"name": "sum", "terms": [first.description, second.description]}
    return Potential(
        init=init,
        apply=apply,
        atomic=atomic,
        cutoff=cutoff,
        with_multipoles=with_multipoles if has_charges else None,
        species=species,
        validate=validate,
        uses_reverse_edges=first.uses_reverse_edges or second.uses_reverse_edges,
        on_grid=on_grid,
        pull_back=pull_back if is_quick else None,
        description=description,
    )


def from_description(description: Mapping[str, Any]) -> Potential:
    """The potential that a description is of.

    Raises:
        InputError: a name that difmd does not know, one of something else than a potential, or arguments that
            its factory refuses.
    """
    found = made_from(description)
    if not isinstance(found, Potential):
        raise InputError(f"{summary(description)} is no potential")
    return found


def validate_inputs(potential: Potential, params: Params, system: System) -> None:
    """Check on the host that `potential` can be evaluated for `system`.

    Raises:
        InputError: objects of another kind, an element the potential does not know, parameters of another
            potential or that are not finite, or what `potential.validate` finds.
    """
    check_model(potential, params)
    check_finite(params)
    validate_structure(potential, system)


def validate_structure(potential: Potential, system: System) -> None:
    """Check on the host that `potential` knows the atoms of `system`, whatever its parameters.

    Raises:
        InputError: no system, an element the potential does not know, or what `potential.validate` finds.
    """
    check_system(system)
    if potential.species is not None:
        present = {int(z) for z in np.unique(np.asarray(system.atomic_numbers))} - {0}
        unknown = sorted(present - potential.species)
        if unknown:
            raise InputError(
                f"the potential has no parameters for {', '.join(_symbols(unknown))}; it knows "
                f"{', '.join(_symbols(potential.species))}: add the species "
                "where the potential is made, or change the atomic numbers"
            )
    potential.validate(system)


def check_model(potential: Potential, params: Params) -> None:
    """Refuse params whose names and shapes are not those that `potential.init` gives; traced ones, too.

    Raises:
        InputError: naming them; or no potential.
    """
    remedy = "lennard_jones(...), mace(...) and other factories make one; difmd.load(file).potential has one"
    check_type("potential", potential, Potential, remedy)
    wanted, found = _places(potential), _shapes(params)
    remedy = "give what its `init`, a fit or `load` returned"
    foreign = f"they are not those of this potential; {remedy}"
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    parts = [f"{verb} {_some(names)}" for verb, names in (("lack", missing), ("hold", unknown)) if names]
    if parts:
        raise InputError(f"params {' and '.join(parts)}: {foreign}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise InputError(f"params{name} has shape {list(found[name])}, expected {list(shape)}: {foreign}")


def _some(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(place): np.shape(leaf) for place, leaf in leaves}


@functools.lru_cache(maxsize=32)
def _places(potential: Potential) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the params of a potential."""
    # A trace that goes on around it does not matter.
    with jax.ensure_compile_time_eval():
        return _shapes(jax.eval_shape(potential.init, jax.eval_shape(lambda: jax.random.key(0))))


def check_names(params: Params, *names: str) -> None:
    """Refuse params that are no dictionary of arrays or trees with just these names.

    Raises:
        InputError: names are missing or too many, or it is another structure.
    """
    if not isinstance(params, Mapping) or set(params) != set(names):
        found = sorted(params) if isinstance(params, Mapping) else type(params).__name__
        raise InputError(
            f"params hold {found}, expected {sorted(names)}: they are not those of this potential; give what "
            "its `init`, a fit or `load` returned"
        )


def check_finite(params: Params) -> None:
    """Refuse parameters that are NaN or infinite, naming them (host).

    Raises:
        InputError: some parameter is not finite.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values = np.asarray(leaf)
        if not (jnp.issubdtype(values.dtype, np.floating) or jnp.issubdtype(values.dtype, np.integer)):
            raise InputError(f"params{jax.tree_util.keystr(path)} = {values!r} must be real numbers")
        if not np.isfinite(values).all():
            raise InputError(f"params{jax.tree_util.keystr(path)} = {values} is not finite")


def _symbols(numbers: Iterable[int]) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in sorted(numbers)]
