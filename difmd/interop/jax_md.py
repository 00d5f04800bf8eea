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
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors, has_overflowed, neighbor_list, update
from difmd.potentials import Params, Potential, validate_inputs
from difmd.system import System

# While it is imported it computes with numbers of different types, which users may have forbidden.
with jax.numpy_dtype_promotion("standard"):
    from jax_md import space


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JaxMDNeighbors:
    """A list of difmd with the names that jax-md has for what one does with lists.

    Attributes:
        system: what the list is for, with the positions of its last update.
        list: the list.
        uses_fractions: whether positions are fractions of the box.
    """

    system: System
    list: Neighbors
    uses_fractions: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def did_buffer_overflow(self) -> Array:
        """Whether the list has too little room; `allocate` a new one then."""
        return self.list.overflow | self.list.too_small

    def update(self, R: Float[Array, "atoms 3"], *, box: Any = None, **unused: Any) -> JaxMDNeighbors:
        """The list for these positions, built anew where an atom has moved half the skin."""
        del unused
        system = _moved(self.system, R, box, self.uses_fractions, self.list.periodic)
        return dataclasses.replace(self, system=system, list=update(system, self.list))


class JaxMDNeighborFns(NamedTuple):
    """As `jax_md.partition.NeighborListFns`.

    Attributes:
        allocate: `allocate(R, box=None)`, a list with room to spare (host).
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
    """What `jax_md.energy.*_neighbor_list` return, for a potential of difmd.

        neighbor_fn, energy_fn = to_jax_md(potential, params, system)
        neighbors = neighbor_fn.allocate(system.positions)
        init, step = jax_md.simulate.nve(energy_fn, shift, dt)
        state = init(key, system.positions, kT=kT, mass=system.masses, neighbor=neighbors)
        neighbors = neighbors.update(state.position)
        state = step(state, neighbor=neighbors)

    Lists are exact for any cell, whether or not the cut-off fits into half of it. A list with which
    `did_buffer_overflow` is set gives wrong energies, as in jax-md; look at it.

    Args:
        potential: the energy model.
        params: its parameters; `energy_fn(R, neighbors, params=...)` takes others.
        system: atoms, cell and periodic directions.
        skin: of lists [Å].
        fractional_coordinates: whether positions are fractions of the box, as in
            `jax_md.space.periodic_general`; gradients are those in real space then, as there.

    Returns:
        `neighbor_fn` and `energy_fn(R, neighbor, params=..., box=...)` [eV]; a `box` is as in jax-md, a
        matrix with lattice vectors as columns, or their lengths.

    Raises:
        InputError: a species the potential does not know, or params or positions that are not finite.
    """
    validate_inputs(potential, params, system)
    check_positive("skin", skin, "Å")
    a, b, c = (bool(flag) for flag in np.asarray(system.pbc))
    periodic = (a, b, c)

    def allocate(R: Array, *, box: Any = None, **unused: Any) -> JaxMDNeighbors:
        del unused
        moved = _moved(system, R, box, fractional_coordinates, periodic)
        found = neighbor_list(
            moved, cutoff=potential.cutoff, skin=skin, reverse_edges=potential.uses_reverse_edges
        )
        if has_overflowed(found):
            raise InputError("the list does not fit what it was measured on: give positions that are finite")
        return JaxMDNeighbors(moved, found, fractional_coordinates)

    def updated(R: Array, neighbors: JaxMDNeighbors, **more: Any) -> JaxMDNeighbors:
        return neighbors.update(R, **more)

    def energy_fn(
        R: Array, neighbor: JaxMDNeighbors, *, params: Params = params, box: Any = None, **unused: Any
    ) -> Array:
        del unused
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

    All pairs of atoms are visited, N² of them: for tests, small systems, and what difmd has no potential for.

    Args:
        make: `make(displacement, params) -> energy_fn(R)` [eV], with `displacement(Ra, Rb)` for the cell at
            hand, in real coordinates. It is not one of `jax_md.space`, whose derivatives in the cell are not
            those of a stress.
        cutoff: beyond which the energy function sees nothing [Å].
        init: `init(key) -> params`; default: `{}`.

    Returns:
        The `Potential`; it has no energies of atoms, knows any species, and cannot take padding.

    Raises:
        InputError: a cutoff that is not positive. When used: padding, a cell whose heights are less than
            twice the cut-off, as jax-md knows the nearest image alone, or energies of atoms asked for.
    """
    check_positive("cutoff", cutoff, "Å")

    def validate(system: System) -> None:
        if (np.asarray(system.atomic_numbers) == 0).any():
            raise InputError("an energy function of jax-md cannot take atoms that are padding")
        a, b, c = (bool(flag) for flag in np.asarray(system.pbc))
        across = heights(complete_cell(np.asarray(system.cell, np.float64), (a, b, c)))[[a, b, c]]
        if len(across) and across.min() < 2 * cutoff:
            raise InputError(
                f"the cell is {across.min():.4g} Å high, less than twice the cut-off of {cutoff} Å: jax-md "
                "sees the nearest image alone; repeat the cell"
            )

    def apply(params: Params, system: System, neighbors: Neighbors) -> Array:
        displacement = _displacement(system.cell, neighbors.periodic)
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(make(displacement, params)(system.positions), system.positions.dtype)

    def atomic(params: Params, system: System, neighbors: Neighbors) -> Array:
        raise InputError("energy functions of jax-md do not tell the energies of atoms")

    return Potential(
        init=(lambda key: {}) if init is None else init,
        apply=apply,
        atomic=atomic,
        cutoff=float(cutoff),
        validate=validate,
    )


def _displacement(cell: Array, periodic: tuple[bool, bool, bool]) -> Callable[..., Array]:
    """Ra − Rb, of the nearest images."""
    whole = complete_cell(cell, periodic)
    inverse = invert(whole)

    def displacement(Ra: Array, Rb: Array, **unused: Any) -> Array:
        del unused
        apart = Ra - Rb
        turns = lax.stop_gradient(jnp.where(jnp.asarray(periodic), jnp.round(product(apart, inverse)), 0))
        return apart - product(turns, whole)

    return displacement


def _moved(
    system: System, R: Array, box: Any, uses_fractions: bool, periodic: tuple[bool, bool, bool]
) -> System:
    """The system with positions, and a box, of jax-md."""
    cell = system.cell
    if box is not None:
        given = jnp.asarray(box, cell.dtype)
        cell = given.T if given.ndim == 2 else jnp.diag(jnp.broadcast_to(given, 3))
    # Of jax-md, whose derivative is that in real space.
    positions = jnp.asarray(space.transform(cell.T, R) if uses_fractions else R, system.positions.dtype)
    # jax-md puts atoms that leave the box in on the other side, where a list does not look for them.
    whole = complete_cell(cell, periodic)
    turns = jnp.round(product(system.positions - positions, invert(whole)))
    turns = lax.stop_gradient(jnp.where(jnp.asarray(periodic), turns, 0))
    return system.replace(positions=positions + product(turns, whole), cell=cell)
