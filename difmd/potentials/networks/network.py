"""From a flax module that sees environments to a `Potential`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.argument_checks import real_numbers
from difmd._internal.dtypes import default_float, floats
from difmd._internal.gather import take
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors
from difmd.neighbors.types import ReverseEdges
from difmd.potentials.base import Params, Potential, check_names
from difmd.potentials.multipoles import Multipoles
from difmd.potentials.networks.environment import Environment, environment
from difmd.potentials.networks.heads import Outputs
from difmd.potentials.pair import PairValues, pair_table
from difmd.potentials.slots import known, species_numbers
from difmd.system import System

SpeciesValues: TypeAlias = float | Sequence[float] | np.ndarray
"""One number for all species, or one for each."""


def network_potential(
    module: nn.Module,
    *,
    species: Sequence[int | str],
    cutoff: float,
    scale: SpeciesValues = 1.0,
    shift: SpeciesValues = 0.0,
    charges: bool = False,
    nearest: PairValues | None = None,
) -> Potential:
    """E = Σ_i shift_{Z_i} + scale_{Z_i} [ε(environment of i) − ε(nothing around an atom of Z_i)].

    An atom by itself has the energy `shift`, whatever the weights are.

    Args:
        module: `module(environment) -> ε`, a number for each center, or `Outputs` with it; where no neighbour
            is in reach it must depend on the species alone, and what is out of reach must not enter.
        species: symbols or atomic numbers, in the order of `Environment.types`.
        cutoff: [Å].
        scale: [eV], one for all or one for each species; a typical force times 1 Å does.
        shift: [eV], likewise.
        charges: whether the module yields `Outputs` with charges, of which the potential is to tell.
        nearest: [Å], one distance for all pairs of species or a symmetric table: the nearest ones in the
            data. Pairs that come nearer are, to the network, hardly nearer than that (`held_above`).
            What it would make of them otherwise grows with powers of what it has never seen. A repulsion
            has to be added, such as `zbl`, which alone acts there. None: distances are as they are.

    Returns:
        `Potential`; its params are `{"network": weights, "scale": [species], "shift": [species]}`.

    Raises:
        InputError: cutoff not positive, an unknown or repeated species, or a scale or shift that is not
            finite or not one a species, or distances that are not positive or no symmetric table. When
            applied: weights of another network.

    References:
        Bochkarev et al., Phys. Rev. Mater. 6, 013804 (2022), doi:10.1103/PhysRevMaterials.6.013804 (a
        repulsion that takes over within an inner cut-off).
    """
    check_positive("cutoff", cutoff, "Å")
    cutoff = float(cutoff)
    numbers = species_numbers(species)
    first = {"scale": _per_species("scale", scale, numbers), "shift": _per_species("shift", shift, numbers)}

    floor = None if nearest is None else pair_table("nearest", nearest, len(numbers))

    # Compiled as a whole, which takes less time than its operations one by one; and without the efforts that
    # pay where a program runs more than once, which JAX allows outside of other programs only.
    inner = jax.jit(module.init)
    outer = jax.jit(module.init, compiler_options={"xla_backend_optimization_level": 0})

    def init(key: Array) -> Params:
        dtype = default_float()
        weights = (inner if isinstance(key, jax.core.Tracer) else outer)(
            key, _alone(len(numbers), cutoff, dtype)
        )["params"]
        return {
            "network": jax.tree.map(lambda w: w.astype(dtype), weights),
            **{name: floats(values) for name, values in first.items()},
        }

    def sites(params: Params, system: System, neighbors: Neighbors) -> tuple[Outputs, Array]:
        """Energy [eV] and charge of each center, and the center that each atom is."""
        check_names(params, "network", "scale", "shift")
        dtype = system.positions.dtype
        cast = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
        if cast["scale"].shape != (len(numbers),) or cast["shift"].shape != (len(numbers),):
            raise InputError(
                f"params hold a scale of {list(cast['scale'].shape)} and a shift of "
                f"{list(cast['shift'].shape)} for {len(numbers)} species: give one entry a species"
            )
        env, rank = environment(system, neighbors, numbers=numbers, cutoff=cutoff, nearest=floor)
        nothing = _alone(len(numbers), cutoff, dtype)
        try:
            own = _outputs(module.apply({"params": cast["network"]}, env))
            offset = _outputs(module.apply({"params": cast["network"]}, nothing))
        except flax.errors.FlaxError as error:
            raise InputError(
                f"the weights are not those of this network ({error}): make it with the settings that they "
                "were trained with"
            ) from error
        energy = take(cast["shift"], env.types) + take(cast["scale"], env.types) * (
            own.energy - take(offset.energy, env.types)
        )
        return own._replace(energy=jnp.where(env.is_atom, energy, 0)), rank

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        return known(numbers, system) * jnp.sum(sites(params, system, neighbors)[0].energy)

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        found, rank = sites(params, system, neighbors)
        return known(numbers, system) * take(found.energy, rank)

    def with_multipoles(params: Params, system: System, neighbors: Neighbors) -> tuple[Array, Multipoles]:
        found, rank = sites(params, system, neighbors)
        is_known, is_atom = known(numbers, system), system.atomic_numbers > 0
        if found.charges is None:
            raise InputError("the network yields no charges: let its module return Outputs(ε, charges)")
        own = is_known * jnp.where(is_atom, take(found.charges, rank), 0)
        dipoles = jnp.zeros_like(system.positions)
        if found.dipoles is not None:
            dipoles = is_known * jnp.where(is_atom[:, None], take(found.dipoles, rank), 0)
        return is_known * jnp.sum(found.energy), Multipoles(own, dipoles)

    return Potential(
        init=init,
        apply=apply,
        atomic=atomic,
        cutoff=cutoff,
        with_multipoles=with_multipoles if charges else None,
        species=frozenset(numbers),
        uses_reverse_edges=True,
    )


def _outputs(found: Any) -> Outputs:
    return found if isinstance(found, Outputs) else Outputs(found)


def _alone(n_species: int, cutoff: float, dtype: Any) -> Environment:
    """An atom of each species with nothing in reach."""
    shape = (n_species, 1)
    zero, away = jnp.zeros(shape, dtype), jnp.full(shape, 2 * cutoff, dtype)
    return Environment(
        types=jnp.arange(n_species, dtype=jnp.int32),
        is_atom=jnp.ones(n_species, bool),
        senders=jnp.zeros(shape, jnp.int32),
        vectors=(zero, zero, away),
        distances=away,
        reverse_edges=ReverseEdges(jnp.zeros(shape, jnp.int32), jnp.zeros((2, 1), jnp.int32)),
        lengths=away[:1, 0],
    )


def _per_species(name: str, values: Any, numbers: Sequence[int]) -> np.ndarray:
    array = real_numbers(name, values)
    if array.ndim == 0:
        array = np.full(len(numbers), array)
    if array.shape != (len(numbers),) or not np.isfinite(array).all():
        raise InputError(
            f"{name} = {values!r} must be one finite number, or one for each of the {len(numbers)} species"
        )
    return array
