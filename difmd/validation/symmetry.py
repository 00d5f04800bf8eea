"""What must not change an energy: rotation, inversion, translation, order, lattice shifts and padding."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from difmd.errors import InputError
from difmd.forces import Evaluation
from difmd.potentials import Params, Potential
from difmd.system import System
from difmd.validation.checks import Check, judged, tolerances, without
from difmd.validation.rest import Rest, evaluated, list_of

_GROUP = "symmetry"
_N_PADDING = 2


def check_symmetry(potential: Potential, params: Params, rest: Rest, rng: np.random.Generator) -> list[Check]:
    """Energy, forces and stress of what is the same configuration seen in another way.

    The value of a row is the largest of the relative differences of energy, forces and stress. Rotations turn
    the cell, too, in whatever directions it is periodic.

    Args:
        potential: the energy model.
        params: its parameters.
        rest: the configuration.
        rng: of rotation, translation and permutation.

    Returns:
        A row for each symmetry.
    """
    system, bound = rest.system, tolerances(rest.system.positions.dtype).same
    r, cell = np.asarray(system.positions), np.asarray(system.cell)
    pbc, numbers = np.asarray(system.pbc), np.asarray(system.atomic_numbers)
    rows = []

    def look(
        name: str, moved: System, remedy: str, turn: np.ndarray | None = None,
        order: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        try:
            found = evaluated(potential, params, moved, list_of(potential, moved, rest.neighbors))
        except InputError as error:
            rows.append(without(_GROUP, "failed", f"refused: {error}", name))
            return
        rows.append(judged(_GROUP, name, _difference(rest, found, turn, order), bound, remedy))

    def placed(positions: np.ndarray, box: np.ndarray = cell) -> System:
        dtype = system.positions.dtype
        return system.replace(positions=jnp.asarray(positions, dtype), cell=jnp.asarray(box, dtype))

    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn = turn * np.linalg.det(turn)
    look(
        "rotation", placed(r @ turn, cell @ turn),
        "use distances, angles or equivariant features, and no component of a vector by itself", turn,
    )  # fmt: skip
    look(
        "reflection", placed(-r, -cell),
        "a mirror image must have the same energy: use no triple product to an odd power", -np.eye(3),
    )  # fmt: skip
    look(
        "translation", placed(r + rng.uniform(-10, 10, 3)),
        "use differences of positions, and no position by itself",
    )  # fmt: skip
    order = np.arange(len(numbers))
    for number in np.unique(numbers[numbers > 0]):
        alike = np.flatnonzero(numbers == number)
        # A cycle leaves none of them where it was.
        mixed = rng.permutation(alike)
        order[mixed] = np.roll(mixed, 1)
    if np.array_equal(order, np.arange(len(numbers))):
        rows.append(without(_GROUP, "not applicable", "no two atoms are alike", "permutation"))
    else:
        look(
            "permutation", placed(r[order]), "sum over atoms with the same function for all of a species",
            order=order,
        )  # fmt: skip
    if pbc.any():
        shift = np.where(pbc, [2, -1, 3], 0) @ cell
        atom = rng.choice(np.flatnonzero(numbers > 0))
        look(
            "lattice shift", placed(r + (np.arange(len(r)) == atom)[:, None] * shift),
            "take neighbours and their shifts from the list, and no difference of unwrapped positions",
        )  # fmt: skip
    else:
        rows.append(without(_GROUP, "not applicable", "no direction is periodic", "lattice shift"))
    look(
        "padding", _padded(system, r.mean(axis=0)),
        "atoms with atomic number 0 must have no energy: mask them, with safe operands on both branches",
    )  # fmt: skip
    return rows


def _padded(system: System, where: np.ndarray) -> System:
    def longer(x: jnp.ndarray, fill: object) -> jnp.ndarray:
        tail = np.broadcast_to(np.asarray(fill, x.dtype), (_N_PADDING, *x.shape[1:]))
        return jnp.concatenate([x, jnp.asarray(tail)])

    return system.replace(
        positions=longer(system.positions, where),
        atomic_numbers=longer(system.atomic_numbers, 0),
        masses=longer(system.masses, 1),
        fixed=None if system.fixed is None else longer(system.fixed, False),
    )


def _difference(rest: Rest, found: Evaluation, turn: np.ndarray | None, order: np.ndarray | None) -> float:
    """The largest relative difference from what is expected; NaN if anything is."""
    turn = np.eye(3) if turn is None else turn
    was = rest.found
    forces = np.asarray(was.forces, np.float64) @ turn
    forces = forces if order is None else forces[order]
    # Energies and stresses of balanced systems are small beside the terms that they are sums of.
    work = rest.n_atoms * rest.largest_force
    energy = abs(float(found.energy) - float(was.energy)) / (abs(float(was.energy)) + work)
    got = np.asarray(found.forces, np.float64)
    forces = np.concatenate([forces, np.zeros((len(got) - len(forces), 3))])
    differences = [energy, np.max(np.abs(got - forces)) / rest.largest_force]
    if np.asarray(rest.system.pbc).all():
        stress = turn.T @ np.asarray(was.stress, np.float64) @ turn
        scale = np.max(np.abs(stress)) + work / float(rest.system.volume)
        differences.append(np.max(np.abs(np.asarray(found.stress) - stress)) / scale)
    return float(np.max(differences))
