"""Continuity of energy and force at the cut-off, for each pair of species."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError
from difmd.neighbors import Neighbors, find_pairs, neighbor_list
from difmd.potentials import Params, Potential
from difmd.potentials.species import symbols
from difmd.system import System, make_system
from difmd.validation.checks import Check, judged, tolerances, without_value
from difmd.validation.configuration import Configuration, list_of

_GROUP = "cutoff"

# Extrapolation to the cut-off from four equidistant points on one side, exact for cubic functions.
_EXTRAPOLATION = np.array([4.0, -6.0, 4.0, -1.0])

# Noise of the extrapolation, in rounding errors of the total energy.
_NOISE = 60

# Points of a scan of two atoms, and number of its intervals that are scanned again.
_POINTS, _RESCANNED = 401, 3

_SAFE = "use safe operands of roots, logarithms and quotients on both branches of a mask"

# Number of pairs tried, until one can be moved to the cut-off without approaching other atoms.
_TRIED = 50


@brief_repr
class CutoffScan(NamedTuple):
    """Energy and force of an isolated pair of atoms, from short distances to beyond the cut-off.

    Attributes:
        pair: symbols of the two.
        kind: "truncated" (the energy jumps), "shifted" (the force alone does) or "smooth".
        distances: [Å]; [points].
        energies: relative to separated atoms [eV]; [points].
        forces: −dU/dr [eV/Å]; [points].
    """

    pair: tuple[str, str]
    kind: str
    distances: np.ndarray
    energies: np.ndarray
    forces: np.ndarray


def check_cutoff(
    potential: Potential, params: Params, at: Configuration
) -> tuple[list[Check], tuple[CutoffScan, ...]]:
    """Check jumps of energy and force as one atom of the system crosses the cut-off of another.

    Where the potential accepts an isolated pair, it is scanned to detect jumps of the energy at shorter
    distances, such as the cut-off of one term of a sum. If energy or force is not finite, both checks fail.
    Returns two checks for each pair of species, and the scans with finite values.
    """
    limits = tolerances(at.system.positions.dtype)
    numbers = np.asarray(at.system.atomic_numbers)
    eps = float(np.finfo(at.system.positions.dtype).eps)
    rows, scans = [], []
    pairs = _close_pairs(potential, at)
    start = 0.9 * float(pairs[3].min(initial=0.8 * potential.cutoff))
    for first, second in combinations_with_replacement(np.unique(numbers[numbers > 0]).tolist(), 2):
        pair = "–".join(symbols((first, second)))
        names = [f"energy jump {pair}", f"force jump {pair}"]
        moved = _moved_to_cutoff(at, potential.cutoff, pairs, first, second)
        if moved is None:
            reason = "no such pair can be moved to the cut-off distance: give a larger system"
            rows += [without_value(_GROUP, "not applicable", reason, name) for name in names]
            continue
        energy, force = _jumps(potential, params, *moved, limits.gap)
        location = potential.cutoff
        broken = None if np.isfinite([energy, force]).all() else location
        scan = _scanner(potential, params, at, first, second)
        if scan is not None:
            curve = scan(start, 1.05 * potential.cutoff)
            # In float32 a second refinement would reach the spacing of floating-point distances.
            inside, where = _largest_jump(scan, curve, 2 if eps < 1e-12 else 1)
            if np.isinf(inside):
                broken = where
            elif inside > energy:
                energy, location = inside, where
        if broken is not None:
            reason = f"energy or force is not finite at {broken:.4g} Å: {_SAFE}"
            rows += [without_value(_GROUP, "failed", reason, name) for name in names]
            continue
        bound = limits.jump * at.largest_force
        bound_of_energy = bound + _NOISE * eps * abs(float(at.evaluation.energy))
        kind = "truncated" if energy > bound_of_energy else "shifted" if force > bound else "smooth"
        rows += [
            judged(
                _GROUP, names[0], energy, bound_of_energy,
                "energy is not conserved as pairs cross it: use a smooth cut-off, as switched(onset)",
                unit="eV", note=f"{kind}, at {location:.4g} Å" if kind == "truncated" else kind,
            ),
            judged(
                _GROUP, names[1], force, bound,
                "the integrator loses its second order: use a smooth cut-off, as switched(onset)",
                unit="eV/Å", note=kind,
            ),
        ]  # fmt: skip
        if scan is not None:
            scans.append(curve._replace(kind=kind, energies=curve.energies - curve.energies[-1]))
    return rows, tuple(scans)


def _close_pairs(potential: Potential, at: Configuration) -> tuple[np.ndarray, ...]:
    """Senders, receivers, vectors between them and distances [Å], without padding."""
    system = at.system
    real = np.flatnonzero(np.asarray(system.atomic_numbers) > 0)
    r, cell = np.asarray(system.positions, np.float64)[real], np.asarray(system.cell, np.float64)
    i, j, shifts, distances = find_pairs(r, cell, np.asarray(system.pbc), 1.3 * potential.cutoff)
    return real[i], real[j], r[j] - r[i] + shifts @ cell, distances


def _moved_to_cutoff(
    at: Configuration, cutoff: float, pairs: tuple[np.ndarray, ...], first: int, second: int
) -> tuple[System, int, np.ndarray] | None:
    """The system with a pair of two species at the cut-off, the atom that moved, and its direction."""
    i, j, vectors, distances = pairs
    numbers = np.asarray(at.system.atomic_numbers)
    chosen = np.flatnonzero((numbers[i] == first) & (numbers[j] == second) & (i != j))
    chosen = chosen[np.argsort(np.abs(distances[chosen] - cutoff), kind="stable")]
    r, real = np.asarray(at.system.positions, np.float64), numbers > 0
    cell, pbc = np.asarray(at.system.cell, np.float64), np.asarray(at.system.pbc)
    nearest = float(distances.min(initial=cutoff))
    for k in chosen[:_TRIED]:
        along = vectors[k] / distances[k]
        step = cutoff - distances[k]
        moved = r + (np.arange(len(r)) == j[k])[:, None] * step * along
        # A small displacement does not bring it close to other atoms.
        if abs(step) > 0.1 * nearest and len(find_pairs(moved[real], cell, pbc, 0.8 * nearest)[0]):
            continue
        placed = at.system.replace(positions=jnp.asarray(moved, at.system.positions.dtype))
        return placed, int(j[k]), along
    return None


def _jumps(
    potential: Potential, params: Params, system: System, atom: int, along: np.ndarray, gap: float
) -> tuple[float, float]:
    """Jumps of energy [eV] and of the force along the direction [eV/Å] at the cut-off."""
    dtype = system.positions.dtype
    neighbors = list_of(potential, system)
    amounts = gap * np.concatenate([-np.arange(1, 5), np.arange(1, 5)])
    direction = np.zeros(system.positions.shape)
    direction[atom] = along
    path = (jnp.asarray(direction, dtype), jnp.asarray(amounts, dtype))
    values = _along(potential, params, system, neighbors, *path)
    energies, slopes = (np.asarray(x, np.float64).reshape(2, 4) for x in values)
    energies = energies - energies[0, 0]
    return tuple(float(abs(np.subtract(*(x @ _EXTRAPOLATION)))) for x in (energies, slopes))  # type: ignore


@functools.partial(jax.jit, static_argnums=0)
def _along(
    potential: Potential, params: Params, system: System, neighbors: Neighbors, direction: Array,
    amounts: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Energies and their derivatives after displacements along a direction."""

    def energy(amount: Array) -> Array:
        moved = system.replace(positions=system.positions + amount * direction)
        return potential.apply(params, moved, neighbors)

    return jax.lax.map(jax.value_and_grad(energy), amounts)


def _scanner(
    potential: Potential, params: Params, at: Configuration, first: int, second: int
) -> Callable[[float, float], CutoffScan] | None:
    """`scan(low, high)` of an isolated pair, not judged yet; None where the potential does not accept it."""
    dtype = at.system.positions.dtype
    near = 0.1 * potential.cutoff
    try:
        system = make_system([[0, 0, 0], [near, 0, 0]], [first, second], dtype=dtype)
        potential.validate(system)
        neighbors = neighbor_list(system, cutoff=potential.cutoff, reverse_edges=potential.uses_reverse_edges)
        jax.eval_shape(potential.apply, params, system, neighbors)
    except InputError:
        return None
    direction = jnp.asarray([[0, 0, 0], [1, 0, 0]], dtype)
    a, b = symbols((first, second))

    def scan(low: float, high: float) -> CutoffScan:
        distances = np.linspace(low, high, _POINTS)
        amounts = jnp.asarray(distances - near, dtype)
        energies, slopes = _along(potential, params, system, neighbors, direction, amounts)
        values = (np.asarray(energies, np.float64), -np.asarray(slopes, np.float64))
        return CutoffScan((a, b), "", distances, *values)

    return scan


def _largest_jump(
    scan: Callable[[float, float], CutoffScan], curve: CutoffScan, n_zooms: int
) -> tuple[float, float]:
    """The largest jump of the energy [eV] and its distance [Å]; infinite for values that are not finite.

    The error of the trapezoidal rule for the force is of third order where the energy is smooth, and the jump
    where it is not; intervals with larger errors than their neighbours are refined.
    """

    def broken(curve: CutoffScan) -> np.ndarray:
        return curve.distances[~(np.isfinite(curve.energies) & np.isfinite(curve.forces))]

    def errors(curve: CutoffScan) -> np.ndarray:
        width = np.diff(curve.distances)
        return np.abs(np.diff(curve.energies) + width * (curve.forces[1:] + curve.forces[:-1]) / 2)

    # Comparisons with values that are not finite would be meaningless.
    if len(broken(curve)):
        return np.inf, float(broken(curve)[0])
    first = errors(curve)
    adjacent = np.maximum(np.r_[first[1], first[:-1]], np.r_[first[1:], first[-2]])
    sizes = []
    for k in np.argsort(-first / (adjacent + 1e-12 * np.max(np.abs(curve.energies))))[:_RESCANNED]:
        part, k = curve, int(k)
        for _ in range(n_zooms):
            part = scan(*part.distances[k : k + 2])
            if len(broken(part)):
                return np.inf, float(broken(part)[0])
            k = int(np.argmax(errors(part)))
        sizes.append((float(errors(part)[k]), float(part.distances[k])))
    return max(sizes)
