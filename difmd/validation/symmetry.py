"""Invariance under rotation, reflection, translation, permutation, lattice shifts and padding."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from difmd.errors import InputError
from difmd.forces import Evaluation
from difmd.potentials import Params, Potential
from difmd.system import System
from difmd.validation.checks import Check, judged, tolerances, without_value
from difmd.validation.configuration import Configuration, evaluated, list_of

_GROUP = "symmetry"
_N_PADDING = 2


def check_symmetry(
    potential: Potential, params: Params, at: Configuration, rng: np.random.Generator
) -> list[Check]:
    """Check the largest relative difference of energy, forces and stress for each symmetry."""
    system, bound = at.system, tolerances(at.system.positions.dtype).same
    r, cell = np.asarray(system.positions), np.asarray(system.cell)
    pbc, numbers = np.asarray(system.pbc), np.asarray(system.atomic_numbers)
    rows = []

    def compare(
        name: str, moved: System, remedy: str, rotation: np.ndarray | None = None,
        order: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        try:
            evaluation = evaluated(potential, params, moved, list_of(potential, moved, at.neighbors))
        except InputError as error:
            rows.append(without_value(_GROUP, "failed", f"InputError: {error}", name))
            return
        rows.append(judged(_GROUP, name, _difference(at, evaluation, rotation, order), bound, remedy))

    def placed(positions: np.ndarray, box: np.ndarray = cell) -> System:
        dtype = system.positions.dtype
        return system.replace(positions=jnp.asarray(positions, dtype), cell=jnp.asarray(box, dtype))

    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation = rotation * np.linalg.det(rotation)
    compare(
        "rotation", placed(r @ rotation, cell @ rotation),
        "use distances, angles or equivariant features instead of components of vectors", rotation,
    )  # fmt: skip
    compare(
        "reflection", placed(-r, -cell),
        "a mirror image must have the same energy: avoid odd powers of triple products", -np.eye(3),
    )  # fmt: skip
    compare(
        "translation", placed(r + rng.uniform(-10, 10, 3)),
        "use differences of positions instead of positions",
    )  # fmt: skip
    order = np.arange(len(numbers))
    for number in np.unique(numbers[numbers > 0]):
        same = np.flatnonzero(numbers == number)
        # A cycle moves all of them.
        mixed = rng.permutation(same)
        order[mixed] = np.roll(mixed, 1)
    if np.array_equal(order, np.arange(len(numbers))):
        reason = "all atoms are of different species"
        rows.append(without_value(_GROUP, "not applicable", reason, "permutation"))
    else:
        compare(
            "permutation", placed(r[order]), "use the same function for all atoms of a species", order=order
        )
    if pbc.any():
        shift = np.where(pbc, [2, -1, 3], 0) @ cell
        atom = rng.choice(np.flatnonzero(numbers > 0))
        compare(
            "lattice shift", placed(r + (np.arange(len(r)) == atom)[:, None] * shift),
            "use neighbours and shifts of the list instead of differences of unwrapped positions",
        )  # fmt: skip
    else:
        rows.append(without_value(_GROUP, "not applicable", "no direction is periodic", "lattice shift"))
    compare(
        "padding", _padded(system, r.mean(axis=0)),
        "atoms with atomic number 0 must not contribute: mask them, with safe operands on both branches",
    )  # fmt: skip
    return rows


def _padded(system: System, where: np.ndarray) -> System:
    def longer(x: jnp.ndarray, fill: object) -> jnp.ndarray:
        tail = np.broadcast_to(np.asarray(fill, x.dtype), (_N_PADDING, *x.shape[1:]))
        return jnp.concatenate([x, jnp.asarray(tail)])

    positions, masses = longer(system.positions, where), longer(system.masses, 1)
    numbers, fixed = longer(system.atomic_numbers, 0), system.fixed
    fixed = None if fixed is None else longer(fixed, False)
    return system.replace(positions=positions, atomic_numbers=numbers, masses=masses, fixed=fixed)


def _difference(
    at: Configuration, evaluation: Evaluation, rotation: np.ndarray | None, order: np.ndarray | None
) -> float:
    """The largest relative difference from the expected values; NaN if any of them is."""
    rotation = np.eye(3) if rotation is None else rotation
    expected = at.evaluation
    forces = np.asarray(expected.forces, np.float64) @ rotation
    forces = forces if order is None else forces[order]
    # Energies and stresses of balanced systems are small compared with their terms.
    work = at.n_atoms * at.largest_force
    energy = abs(float(evaluation.energy) - float(expected.energy)) / (abs(float(expected.energy)) + work)
    actual = np.asarray(evaluation.forces, np.float64)
    forces = np.concatenate([forces, np.zeros((len(actual) - len(forces), 3))])
    differences = [energy, np.max(np.abs(actual - forces)) / at.largest_force]
    if np.asarray(at.system.pbc).all():
        stress = rotation.T @ np.asarray(expected.stress, np.float64) @ rotation
        scale = np.max(np.abs(stress)) + work / float(at.system.volume)
        differences.append(np.max(np.abs(np.asarray(evaluation.stress) - stress)) / scale)
    return float(np.max(differences))
