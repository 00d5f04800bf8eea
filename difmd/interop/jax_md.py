"""difmd potentials as energy functions of jax-md, and energy functions of jax-md as difmd potentials."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from difmd._internal.lattice import complete_cell, heights, invert, product
from difmd._internal.pairs import as_triple
from difmd._internal.summaries import fields_summary
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors, has_overflowed, neighbor_list, update
from difmd.potentials import Params, Potential, validate_inputs
from difmd.system import System, check_single

# Its import computes with mixed types, which strict promotion would refuse.
with jax.numpy_dtype_promotion("standard"):
    from jax_md import space


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JaxMDNeighbors:
    """A list of difmd with the interface of jax-md.

    Attributes:
        system: the system at the last update.
        list: the list.
        uses_fractions: whether positions are fractions of the box.
    """

    system: System
    list: Neighbors
    uses_fractions: bool = dataclasses.field(default=False, metadata={"static": True})

    __repr__ = fields_summary

    @property
    def did_buffer_overflow(self) -> Array:
        """Whether a capacity was exceeded; then `allocate` a new list."""
        return self.list.overflow | self.list.too_small

    def update(self, R: Float[Array, "atoms 3"], *, box: Any = None, **unused: Any) -> JaxMDNeighbors:
        """The list for these positions, rebuilt once an atom has moved half the skin.

        Args:
            R: positions [Å], or fractions of the box; [atoms, 3].
            box: as in jax-md; default: the cell of the system.
            unused: further arguments of jax-md.
        """
        system = _moved(self.system, R, box, self.uses_fractions, self.list.periodic)
        return dataclasses.replace(self, system=system, list=update(system, self.list))


class JaxMDNeighborFns(NamedTuple):
    """The counterpart of `jax_md.partition.NeighborListFns`.

    Attributes:
        allocate: `allocate(R, box=None)`, a list with spare capacity (host).
        update: `update(R, neighbors, box=None)`, as `neighbors.update`.
    """

    allocate: Callable[..., JaxMDNeighbors]
    update: Callable[..., JaxMDNeighbors]


def to_jax_md(
    potential: Potential,
    params: Params,
    system: System,
    *,
    skin: float = 0.5,
    fractional_coordinates: bool = False,
) -> tuple[JaxMDNeighborFns, Callable[..., Float[Array, ""]]]:
    """The counterpart of `jax_md.energy.*_neighbor_list` for a potential of difmd.

        neighbor_fn, energy_fn = to_jax_md(potential, params, system)
        neighbors = neighbor_fn.allocate(system.positions)
        init, step = jax_md.simulate.nve(energy_fn, shift, dt)
        state = init(key, system.positions, kT=kT, mass=system.masses, neighbor=neighbors)
        neighbors = neighbors.update(state.position)
        state = step(state, neighbor=neighbors)

    As in jax-md, energies are wrong after an overflow: check `did_buffer_overflow`.

    Args:
        potential: the energy model.
        params: its parameters; `energy_fn(R, neighbors, params=...)` accepts others.
        system: atoms, cell and periodic directions.
        skin: of lists [Å].
        fractional_coordinates: whether positions are fractions of the box, with gradients in real space, as
            in `jax_md.space.periodic_general`.

    Returns:
        `neighbor_fn` and `energy_fn(R, neighbor, params=..., box=...)` [eV]; `box` holds lattice vectors as
        columns, or their lengths.

    Raises:
        InputError: several replicas, an unknown species, or params of another potential or not finite.
    """
    validate_inputs(potential, params, system)
    check_single(system)
    check_positive("skin", skin, "Å")
    periodic = as_triple(system.pbc)

    def allocate(R: Array, *, box: Any = None, **unused: Any) -> JaxMDNeighbors:
        moved = _moved(system, R, box, fractional_coordinates, periodic)
        edges = potential.uses_reverse_edges
        neighbors = neighbor_list(moved, cutoff=potential.cutoff, skin=skin, reverse_edges=edges)
        if has_overflowed(neighbors):
            raise InputError("the capacity of the list is exceeded: give positions that are finite")
        return JaxMDNeighbors(moved, neighbors, fractional_coordinates)

    def updated(R: Array, neighbors: JaxMDNeighbors, **more: Any) -> JaxMDNeighbors:
        return neighbors.update(R, **more)

    def energy_fn(
        R: Array, neighbor: JaxMDNeighbors, *, params: Params = params, box: Any = None, **unused: Any
    ) -> Array:
        moved = _moved(neighbor.system, R, box, fractional_coordinates, periodic)
        return potential.apply(params, moved, neighbor.list)

    return JaxMDNeighborFns(allocate, updated), energy_fn


def from_jax_md(
    make: Callable[[Any, Params], Callable[[Array], Array]],
    *,
    cutoff: float,
    init: Callable[[Array], Params] | None = None,
) -> Potential:
    """A potential of difmd from energy functions of jax-md.

        silicon = from_jax_md(lambda displacement, params: energy.stillinger_weber(displacement), cutoff=3.78)

    The cost is that of all N² pairs: for tests, small systems, and potentials that difmd lacks.

    Args:
        make: `make(displacement, params) -> energy_fn(R)` [eV], with `displacement(Ra, Rb)` for the current
            cell in real coordinates.
        cutoff: range of the energy function [Å].
        init: `init(key) -> params`; default: `{}`.

    Returns:
        The `Potential`, for any species.

    Raises:
        InputError: a cutoff that is not positive. When used: padding, a cell lower than twice the cut-off, or
            a request for energies of atoms.
    """
    check_positive("cutoff", cutoff, "Å")

    def validate(system: System) -> None:
        if (np.asarray(system.atomic_numbers) == 0).any():
            raise InputError("energy functions of jax-md do not support padding atoms: remove them")
        periodic = as_triple(system.pbc)
        across = heights(complete_cell(np.asarray(system.cell, np.float64), periodic))[list(periodic)]
        if len(across) and across.min() < 2 * cutoff:
            raise InputError(
                f"the cell is {across.min():.4g} Å high, less than twice the cut-off of {cutoff} Å: jax-md "
                "considers the nearest image only; repeat the cell"
            )

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        displacement = _displacement(system.cell, neighbors.periodic)
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(make(displacement, params)(system.positions), system.positions.dtype)

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        raise InputError("energy functions of jax-md do not provide energies of atoms")

    init = (lambda key: {}) if init is None else init
    return Potential(init=init, apply=apply, atomic=atomic, cutoff=float(cutoff), validate=validate)


def _displacement(cell: Array, periodic: tuple[bool, bool, bool]) -> Callable[..., Array]:
    """Ra − Rb between nearest images."""
    full = complete_cell(cell, periodic)
    inverse = invert(full)

    def displacement(Ra: Array, Rb: Array, **unused: Any) -> Array:
        apart = Ra - Rb
        turns = lax.stop_gradient(jnp.where(jnp.asarray(periodic), jnp.round(product(apart, inverse)), 0))
        return apart - product(turns, full)

    return displacement


def _moved(
    system: System, R: Array, box: Any, uses_fractions: bool, periodic: tuple[bool, bool, bool]
) -> System:
    """The system with positions, and a box, of jax-md."""
    cell = system.cell
    if box is not None:
        given = jnp.asarray(box, cell.dtype)
        cell = given.T if given.ndim == 2 else jnp.diag(jnp.broadcast_to(given, 3))
    # The function of jax-md has the derivative in real space.
    positions = jnp.asarray(space.transform(cell.T, R) if uses_fractions else R, system.positions.dtype)
    # jax-md wraps atoms into the box, whereas lists follow unwrapped positions.
    full = complete_cell(cell, periodic)
    turns = jnp.round(product(system.positions - positions, invert(full)))
    turns = lax.stop_gradient(jnp.where(jnp.asarray(periodic), turns, 0))
    return system.replace(positions=positions + product(turns, full), cell=cell)
