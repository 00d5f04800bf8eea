"""From a flax module over environments to a `Potential`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.argument_checks import check_integer
from difmd._internal.dtypes import default_float, floats
from difmd._internal.gather import take
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors
from difmd.neighbors.types import ReverseEdges
from difmd.potentials.base import Params, Potential
from difmd.potentials.multipoles import Multipoles
from difmd.potentials.networks.environment import Environment, environment
from difmd.potentials.networks.heads import Outputs
from difmd.potentials.pair import PairValues, pair_table
from difmd.potentials.species import Species, SpeciesValues, as_species, nan_if_unknown, species_values
from difmd.system import System

# Settings of networks that may be zero.
_MAY_VANISH = ("l_max", "l_max_features")
_FLAGS = ("parity", "charges", "atomic_dipoles")


def network_potential(
    module: nn.Module,
    *,
    species: Species,
    cutoff: float,
    scale: SpeciesValues = 1.0,
    shift: SpeciesValues = 0.0,
    charges: bool = False,
    nearest: PairValues | None = None,
) -> Potential:
    """E = Σ_i shift_{Z_i} + scale_{Z_i} [ε(environment of i) − ε(isolated atom of Z_i)].

    An isolated atom has the energy `shift`, whatever the weights are.

    Args:
        module: `module(environment) -> ε`, a number for each center, or `Outputs` with it. Without neighbours
            within the cut-off ε must depend on the species alone; neighbours beyond it must not contribute.
        species: symbols or atomic numbers, in the order of `Environment.types`.
        cutoff: [Å].
        scale: [eV], one for all or one per species; a typical force times 1 Å is a good choice.
        shift: [eV], in the same form; energies of isolated atoms.
        charges: whether the module returns `Outputs` with charges.
        nearest: [Å], one distance for all pairs of species or a symmetric table: the shortest distances in
            the data. Closer pairs, where the network would extrapolate, are evaluated at 0.95 to 1 times
            that distance: add a repulsion such as `zbl`, which then acts alone. None: distances unchanged.

    Returns:
        `Potential`; its params are `{"network": weights, "scale": [species], "shift": [species]}`.

    Raises:
        InputError: a cut-off or distance that is not positive, an unknown or repeated species, a scale or
            shift that is not finite or not one per species, or distances that are not a symmetric table.

    References:
        Bochkarev et al., Phys. Rev. Mater. 6, 013804 (2022), doi:10.1103/PhysRevMaterials.6.013804 (a
        repulsion that takes over within an inner cut-off).
    """
    check_positive("cutoff", cutoff, "Å")
    numbers = as_species(species)
    table = None if nearest is None else pair_table("nearest", nearest, len(numbers))
    network = _Network(module, numbers, float(cutoff), table)
    scale, shift = species_values("scale", scale, numbers), species_values("shift", shift, numbers)

    def init(key: Array) -> Params:
        return {"network": network.weights(key), "scale": floats(scale), "shift": floats(shift)}

    return Potential(
        init=init,
        apply=network.apply,
        atomic=network.atomic,
        cutoff=network.cutoff,
        with_multipoles=network.with_multipoles if charges else None,
        species=frozenset(numbers),
        uses_reverse_edges=True,
    )


def build_network(
    module: type[nn.Module], species: Species, settings: Mapping[str, Any], **options: Any
) -> Potential:
    """`network_potential` of a module whose fields are `n_species` and these settings, which are checked."""
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        checked[name] = value
        if name in ("cutoff", "avg_num_neighbors"):
            check_positive(name, value, "Å" if name == "cutoff" else "neighbours")
            checked[name] = float(value)
        elif name == "radial_hidden":
            checked[name] = tuple(value)
            for width in value:
                check_integer(name, width)
        elif name not in _FLAGS:
            check_integer(name, value, least=0 if name in _MAY_VANISH else 1)
    if checked.get("atomic_dipoles") and not (checked["charges"] and checked["l_max"] >= 1):
        raise InputError(
            "atomic_dipoles=True needs charges=True and l_max ≥ 1, but "
            f"charges = {checked['charges']}, l_max = {checked['l_max']}"
        )
    numbers = as_species(species)
    made = module(n_species=len(numbers), **checked)
    return network_potential(made, species=numbers, cutoff=checked["cutoff"], **options)


@dataclasses.dataclass(frozen=True, eq=False)
class _Network:
    """The functions of `network_potential`; `nearest` is a table."""

    module: nn.Module
    numbers: tuple[int, ...]
    cutoff: float
    nearest: np.ndarray | None

    def weights(self, key: Array) -> Any:
        """Initial weights in the default precision."""
        dtype = default_float()
        initialize = self._traced_init if isinstance(key, jax.core.Tracer) else self._init
        variables = initialize(key, _isolated(len(self.numbers), self.cutoff, dtype))
        return jax.tree.map(lambda w: w.astype(dtype), variables["params"])

    # Compiled, which takes less time than separate operations; and without optimisations that pay only for
    # repeated runs, an option that JAX allows only outside of other programs.
    @functools.cached_property
    def _init(self) -> Any:
        return jax.jit(self.module.init, compiler_options={"xla_backend_optimization_level": 0})

    @functools.cached_property
    def _traced_init(self) -> Any:
        return jax.jit(self.module.init)

    def centers(self, params: Params, system: System, neighbors: Neighbors) -> tuple[Outputs, Array]:
        """Energy [eV] and charge of each center, and the center of each atom."""
        dtype = system.positions.dtype
        cast = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
        env, rank = environment(
            system, neighbors, numbers=self.numbers, cutoff=self.cutoff, nearest=self.nearest
        )

        def outputs(env: Environment) -> Outputs:
            returned: Any = self.module.apply({"params": cast["network"]}, env)
            return returned if isinstance(returned, Outputs) else Outputs(returned)

        centers = outputs(env)
        offset = outputs(_isolated(len(self.numbers), self.cutoff, dtype)).energy
        energy = take(cast["shift"], env.types) + take(cast["scale"], env.types) * (
            centers.energy - take(offset, env.types)
        )
        return centers._replace(energy=jnp.where(env.is_atom, energy, 0)), rank

    def apply(self, params: Params, system: System, neighbors: Neighbors) -> Array:
        """See `Potential`."""
        energies = self.centers(params, system, neighbors)[0].energy
        return nan_if_unknown(self.numbers, system) * jnp.sum(energies)

    def atomic(self, params: Params, system: System, neighbors: Neighbors) -> Array:
        """See `Potential`."""
        centers, rank = self.centers(params, system, neighbors)
        return nan_if_unknown(self.numbers, system) * take(centers.energy, rank)

    def with_multipoles(
        self, params: Params, system: System, neighbors: Neighbors
    ) -> tuple[Array, Multipoles]:
        """See `Potential`."""
        centers, rank = self.centers(params, system, neighbors)
        factor, is_atom = nan_if_unknown(self.numbers, system), system.atomic_numbers > 0
        if centers.charges is None:
            raise InputError("the module returns no charges: let it return Outputs(ε, charges)")
        charges = factor * jnp.where(is_atom, take(centers.charges, rank), 0)
        dipoles = jnp.zeros_like(system.positions)
        if centers.dipoles is not None:
            dipoles = factor * jnp.where(is_atom[:, None], take(centers.dipoles, rank), 0)
        return factor * jnp.sum(centers.energy), Multipoles(charges, dipoles)


def _isolated(n_species: int, cutoff: float, dtype: Any) -> Environment:
    """An isolated atom of each species."""
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
