"""The `Potential` protocol: pure functions, a cut-off, and the species they are defined for."""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_type, is_traced
from difmd._internal.dtypes import floats
from difmd.errors import InputError
from difmd.neighbors import Neighbors, is_stale
from difmd.neighbors.types import check_belongs
from difmd.potentials.describe import made_from, summary
from difmd.potentials.multipoles import Multipoles
from difmd.potentials.species import check_species, symbols
from difmd.system import System, check_system

Params: TypeAlias = Any
"""A pytree of arrays."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Potential:
    """An energy model as pure functions; `first + second` is the sum of two.

    `apply`, `atomic` and `with_multipoles` raise `InputError` for params of another potential and for a list
    of another system or too short a cut-off. Outside jit they also refuse unknown species, params that are
    not finite, and stale lists; under jit an unknown species gives NaN.

    Attributes:
        init: `init(key) -> params`.
        apply: `apply(params, system, neighbors) -> energy` [eV], a scalar. The list may extend beyond
            `cutoff`; pairs beyond it contribute exactly nothing.
        atomic: `atomic(params, system, neighbors) -> energies` [eV], [atoms]; their sum is `apply`.
        cutoff: [Å].
        with_multipoles: `with_multipoles(params, system, neighbors) -> energy, multipoles`: `apply`, and the
            charges and dipoles of the atoms from the same pass; None without charges.
        species: atomic numbers it is defined for, or None for any.
        validate: `validate(system)` raises `InputError` for a system that cannot be evaluated (host).
        uses_reverse_edges: whether it evaluates each pair once, which needs lists with `reverse_edges`.
        on_grid: `on_grid(exponent)` is the same potential with forces that are sums of multiples of
            2^exponent [eV/Å], so that they do not depend on the order of a list; or None.
        pull_back: `pull_back(params, system, neighbors, v)` → ∂/∂(params, positions) of Σ v · F in one pass
            over the pairs, or None where JAX has to differentiate; None where it always has to.
        description: factory and arguments, the input of `from_description`; None if there is none.
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, System, Neighbors], Float[Array, ""]]
    atomic: Callable[[Params, System, Neighbors], Float[Array, "atoms"]]
    cutoff: float
    with_multipoles: Callable[[Params, System, Neighbors], tuple[Float[Array, ""], Multipoles]] | None = None
    species: frozenset[int] | None = None
    validate: Callable[[System], None] = lambda system: None
    uses_reverse_edges: bool = False
    on_grid: Callable[[int], Potential] | None = None
    pull_back: Callable[[Params, System, Neighbors, Array], tuple[Params, Array] | None] | None = None
    # Not hashable; functions distinguish potentials.
    description: Mapping[str, Any] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Make the functions check their arguments."""
        for name in ("apply", "atomic", "with_multipoles"):
            function = getattr(self, name)
            if function is not None:
                bare = function.function if isinstance(function, _Checked) else function
                object.__setattr__(self, name, _Checked(bare, self))

    def __repr__(self) -> str:
        """The call that made it."""
        if self.description is None:
            species = "any species" if self.species is None else ", ".join(symbols(sorted(self.species)))
            return f"Potential({species}, cutoff={self.cutoff:.6g} Å)"
        return textwrap.fill(
            summary(self.description), 110, max_lines=6, subsequent_indent="    ", break_long_words=False
        )

    def __add__(self, other: Potential) -> Potential:
        """The sum; its params are the pair of both params, its species those of both.

        Its charges and dipoles are the sums of those of its terms.

        Raises:
            InputError: they share no species.
        """
        return _sum_of(self, other) if isinstance(other, Potential) else NotImplemented


@dataclasses.dataclass(frozen=True)
class _Checked:
    """A function of a potential that checks its arguments first."""

    function: Callable[..., Any]
    potential: Potential = dataclasses.field(compare=False, repr=False)

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, params: Params, system: System, neighbors: Neighbors) -> Any:
        check_arguments(self.potential, params, system, neighbors)
        return self.function(params, system, neighbors)


def constant_init(**tables: Any) -> Callable[[Array], Params]:
    """An `init` that returns these tables in the default precision, whatever its key."""

    def init(key: Array) -> Params:
        del key
        return {name: floats(table) for name, table in tables.items()}

    return init


def from_description(description: Mapping[str, Any]) -> Potential:
    """The potential of a description, the reverse of `Potential.description`.

    Args:
        description: `{"name": factory, "arguments": {…}}`, or `{"name": "sum", "terms": […]}`.

    Returns:
        The `Potential`.

    Raises:
        InputError: an unknown factory, a description of something else, or arguments that the factory
            refuses.
    """
    check_type("description", description, Mapping, "use Potential.description")
    made = made_from(description)
    if not isinstance(made, Potential):
        raise InputError(f"{summary(description)} is not a potential")
    return made


def _sum_of(first: Potential, second: Potential) -> Potential:
    if first.species is None or second.species is None:
        species = second.species if first.species is None else first.species
    else:
        species = first.species & second.species
        if not species:
            raise InputError(
                f"the potentials of a sum share no species: {sorted(first.species)}, {sorted(second.species)}"
            )
    terms = (first, second)

    def init(key: Array) -> Params:
        return tuple(term.init(k) for term, k in zip(terms, jax.random.split(key), strict=True))

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        return first.apply(params[0], system, neighbors) + second.apply(params[1], system, neighbors)

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        return first.atomic(params[0], system, neighbors) + second.atomic(params[1], system, neighbors)

    def with_multipoles(params: Params, system: System, neighbors: Neighbors) -> tuple[Array, Multipoles]:
        energies, multipoles = [], []
        for term, term_params in zip(terms, params, strict=True):
            if term.with_multipoles is None:
                energies.append(term.apply(term_params, system, neighbors))
            else:
                energy, term_multipoles = term.with_multipoles(term_params, system, neighbors)
                energies.append(energy)
                multipoles.append(term_multipoles)
        total = multipoles[0] if len(multipoles) == 1 else jax.tree.map(jnp.add, *multipoles)
        return energies[0] + energies[1], total

    def pull_back(
        params: Params, system: System, neighbors: Neighbors, v: Array
    ) -> tuple[Params, Array] | None:
        assert first.pull_back is not None and second.pull_back is not None
        a = first.pull_back(params[0], system, neighbors, v)
        b = second.pull_back(params[1], system, neighbors, v)
        return None if a is None or b is None else (type(params)((a[0], b[0])), a[1] + b[1])

    def validate(system: System) -> None:
        first.validate(system)
        second.validate(system)

    on_grid = None
    if first.on_grid is not None and second.on_grid is not None:
        both = (first.on_grid, second.on_grid)
        on_grid = functools.cache(lambda exponent: _sum_of(*(term(exponent) for term in both)))
    descriptions = [term.description for term in terms]
    return Potential(
        init=init,
        apply=apply,
        atomic=atomic,
        cutoff=max(first.cutoff, second.cutoff),
        with_multipoles=with_multipoles if any(term.with_multipoles for term in terms) else None,
        species=species,
        validate=validate,
        uses_reverse_edges=first.uses_reverse_edges or second.uses_reverse_edges,
        on_grid=on_grid,
        pull_back=pull_back if all(term.pull_back for term in terms) else None,
        description=None if None in descriptions else {"name": "sum", "terms": descriptions},
    )


_REMEDY = "build it with neighbor_list(system, cutoff=potential.cutoff)"


def check_arguments(potential: Potential, params: Params, system: System, neighbors: Neighbors) -> None:
    """As `check_shapes`; outside jit also as `validate_inputs`, and refuse a stale or overflowed list."""
    check_shapes(potential, params, system, neighbors)
    if not is_traced(system.atomic_numbers):
        check_species(potential.species, system)
    if not is_traced(params):
        check_finite(params)
    # Constants of a function that is being compiled have values, too.
    with jax.ensure_compile_time_eval():
        if not is_traced(system):
            potential.validate(system)
        if is_traced((system, neighbors)):
            return
        for flag, explanation in (
            (neighbors.overflow, "has overflowed"),
            (neighbors.too_small, "has too few images for this cell"),
            (is_stale(system, neighbors), "is stale: atoms have moved more than skin/2 since it was built"),
        ):
            if bool(flag):
                raise InputError(f"the neighbour list {explanation}: {_REMEDY}")


def check_shapes(potential: Potential, params: Params, system: System, neighbors: Neighbors) -> None:
    """Refuse types and shapes that do not match, a batch of replicas, or a list with too short a cut-off."""
    check_model(potential, params)
    check_belongs(system, neighbors, _REMEDY)
    if neighbors.cutoff < potential.cutoff:
        raise InputError(
            f"the neighbour list reaches {neighbors.cutoff} Å, the potential {potential.cutoff} Å: {_REMEDY}"
        )


def validate_inputs(potential: Potential, params: Params, system: System) -> None:
    """Check on the host that `potential` with `params` can be evaluated for `system`.

    Args:
        potential: the energy model.
        params: its parameters.
        system: the configuration.

    Raises:
        InputError: objects of another kind, a species the potential is not defined for, params of another
            potential or that are not finite, or as `potential.validate`.
    """
    check_model(potential, params)
    check_finite(params)
    validate_structure(potential, system)


def validate_structure(potential: Potential, system: System) -> None:
    """Check on the host that `potential` is defined for `system`, whatever its parameters."""
    check_system(system)
    check_species(potential.species, system)
    potential.validate(system)


def check_model(potential: Potential, params: Params) -> None:
    """Check that params, traced or not, have the names and shapes that `potential.init` returns."""
    remedy = "lennard_jones(...), mace(...) and other factories make one; difmd.load(file).potential is one"
    check_type("potential", potential, Potential, remedy)
    expected, given = _shapes_of(potential), _shapes(params)
    foreign = "they are not those of this potential; use what its `init`, a fit or `load` returned"
    missing, unknown = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    parts = [f"{verb} {_first(names)}" for verb, names in (("lack", missing), ("hold", unknown)) if names]
    if parts:
        raise InputError(f"params {' and '.join(parts)}: {foreign}")
    for name, shape in expected.items():
        if given[name] != shape:
            raise InputError(f"params{name} has shape {list(given[name])}, expected {list(shape)}: {foreign}")


def _first(names: list[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}


@functools.lru_cache(maxsize=64)
def _shapes_of(potential: Potential) -> dict[str, tuple[int, ...]]:
    # An enclosing trace does not matter.
    with jax.ensure_compile_time_eval():
        return _shapes(jax.eval_shape(potential.init, jax.eval_shape(lambda: jax.random.key(0))))


def check_finite(params: Params) -> None:
    """Check on the host that all parameters are real and finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values = np.asarray(leaf)
        if not (jnp.issubdtype(values.dtype, np.floating) or jnp.issubdtype(values.dtype, np.integer)):
            raise InputError(f"params{jax.tree_util.keystr(path)} = {values!r} must be real numbers")
        if not np.isfinite(values).all():
            raise InputError(f"params{jax.tree_util.keystr(path)} = {values} is not finite")
