"""How energy and force end at the cut-off, for every pair of species."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd.errors import InputError
from difmd.neighbors import Neighbors, find_pairs, neighbor_list
from difmd.potentials import Params, Potential
from difmd.system import System, make_system
from difmd.validation.checks import Check, judged, tolerances, without
from difmd.validation.rest import Rest, list_of

_GROUP = "cutoff"

# A value at the cut-off from four equidistant ones on one side of it, exact for cubic functions.
_EXTRAPOLATION = np.array([4.0, -6.0, 4.0, -1.0])

# Noise of energies that it amplifies, in rounding errors of the total.
_NOISE = 60

# Distances of a scan of two atoms by themselves, and between how many of them it is repeated.
_POINTS, _SUSPECTS = 401, 3

_SAFE = "give roots, logarithms and quotients safe operands on both branches of a mask"

# Pairs near the cut-off that are tried until one can be moved there without meeting others.
_TRIED = 50


class CutoffScan(NamedTuple):
    """Two atoms by themselves, from near to beyond the cut-off.

    Attributes:
        pair: symbols of the two.
        kind: "truncated" (the energy jumps), "shifted" (the force alone does) or "smooth".
        distances: [Å]; [points].
        energies: less that of two atoms far apart [eV]; [points].
        forces: −dU/dr [eV/Å]; [points].
    """

    pair: tuple[str, str]
    kind: str
    distances: np.ndarray
    energies: np.ndarray
    forces: np.ndarray


def check_cutoff(
    potential: Potential, params: Params, rest: Rest
) -> tuple[list[Check], tuple[CutoffScan, ...]]:
    """Jumps of energy and force as one atom of the system crosses the cut-off of another.

    All other atoms stay where they are, so that potentials of many bodies are looked at where they are used.
    Two atoms by themselves are scanned as well, where the potential allows it: jumps of their energy at
    shorter distances, as of a sum whose terms have cut-offs of their own, count. Where energy or force
    are not finite, both rows fail.

    Args:
        potential: the energy model.
        params: its parameters.
        rest: the configuration.

    Returns:
        Two rows for each pair of species, and the scans of those that could be scanned to finite numbers.
    """
    from ase.data import chemical_symbols

    limits = tolerances(rest.system.positions.dtype)
    numbers = np.asarray(rest.system.atomic_numbers)
    eps = float(np.finfo(rest.system.positions.dtype).eps)
    rows, scans = [], []
    close = _close_pairs(potential, rest)
    start = 0.9 * float(close[3].min(initial=0.8 * potential.cutoff))
    for first, second in combinations_with_replacement(np.unique(numbers[numbers > 0]), 2):
        pair = (chemical_symbols[first], chemical_symbols[second])
        names = [f"{what} {'–'.join(pair)}" for what in ("energy jump", "force jump")]
        moved = _moved_to_cutoff(potential, rest, close, int(first), int(second))
        if moved is None:
            reason = "no pair of them can be moved to the cut-off distance: give a larger system"
            rows += [without(_GROUP, "not applicable", reason, name) for name in names]
            continue
        energy, force = _jumps(potential, params, *moved, limits.gap)
        at = potential.cutoff
        broken = None if np.isfinite([energy, force]).all() else potential.cutoff
        scan = _scanner(potential, params, rest, int(first), int(second))
        if scan is not None:
            curve = scan(start, 1.05 * potential.cutoff)
            # In float32 distances differ by little more than the first interval of a second zoom.
            inside, where = _largest_jump(scan, curve, 2 if eps < 1e-12 else 1)
            if np.isinf(inside):
                broken = where
            elif inside > energy:
                energy, at = inside, where
        if broken is not None:
            reason = f"energy or force is not finite at {broken:.4g} Å: {_SAFE}"
            rows += [without(_GROUP, "failed", reason, name) for name in names]
            continue
        bounds = (
            limits.jump * rest.largest_force + _NOISE * eps * abs(float(rest.found.energy)),
            limits.jump * rest.largest_force,
        )
        kind = "truncated" if energy > bounds[0] else "shifted" if force > bounds[1] else "smooth"
        rows += [
            judged(
                _GROUP, names[0], energy, bounds[0],
                "energy is not conserved as pairs cross: let it end smoothly, as switched(onset) does",
                unit="eV", note=f"{kind}, at {at:.4g} Å" if kind == "truncated" else kind,
            ),
            judged(
                _GROUP, names[1], force, bounds[1],
                "steps are no longer of second order: let the force end at zero, as switched(onset) does",
                unit="eV/Å", note=kind,
            ),
        ]  # fmt: skip
        if scan is not None:
            energies = curve.energies - curve.energies[-1]
            scans.append(CutoffScan(pair, kind, curve.distances, energies, curve.forces))
    return rows, tuple(scans)


def _close_pairs(potential: Potential, rest: Rest) -> tuple[np.ndarray, ...]:
    """Senders, receivers, vectors between them and distances [Å], padding left out."""
    system = rest.system
    real = np.flatnonzero(np.asarray(system.atomic_numbers) > 0)
    r, cell = np.asarray(system.positions, np.float64)[real], np.asarray(system.cell, np.float64)
    i, j, shifts, distances = find_pairs(r, cell, np.asarray(system.pbc), 1.3 * potential.cutoff)
    return real[i], real[j], r[j] - r[i] + shifts @ cell, distances


def _moved_to_cutoff(
    potential: Potential, rest: Rest, close: tuple[np.ndarray, ...], first: int, second: int
) -> tuple[System, int, np.ndarray] | None:
    """The system with a pair of two species at the cut-off, which atom that is, and along what direction."""
    i, j, vectors, distances = close
    numbers = np.asarray(rest.system.atomic_numbers)
    chosen = np.flatnonzero((numbers[i] == first) & (numbers[j] == second) & (i != j))
    chosen = chosen[np.argsort(np.abs(distances[chosen] - potential.cutoff), kind="stable")]
    r, real = np.asarray(rest.system.positions, np.float64), numbers > 0
    cell, pbc = np.asarray(rest.system.cell, np.float64), np.asarray(rest.system.pbc)
    nearest = float(distances.min(initial=potential.cutoff))
    for k in chosen[:_TRIED]:
        along = vectors[k] / distances[k]
        step = potential.cutoff - distances[k]
        moved = r + (np.arange(len(r)) == j[k])[:, None] * step * along
        # Where it moves by little, nobody needs to look for what it meets.
        if abs(step) > 0.1 * nearest and len(find_pairs(moved[real], cell, pbc, 0.8 * nearest)[0]):
            continue
        placed = rest.system.replace(positions=jnp.asarray(moved, rest.system.positions.dtype))
        return placed, int(j[k]), along
    return None


def _jumps(
    potential: Potential, params: Params, system: System, atom: int, along: np.ndarray, gap: float
) -> tuple[float, float]:
    """Of energy [eV] and of the force along the direction [eV/Å], between both sides of the cut-off."""
    dtype = system.positions.dtype
    neighbors = list_of(potential, system)
    amounts = gap * np.concatenate([-np.arange(1, 5), np.arange(1, 5)])
    direction = np.zeros(system.positions.shape)
    direction[atom] = along
    energies, slopes = (
        np.asarray(x, np.float64).reshape(2, 4)
        for x in _along(potential, params, system, neighbors, jnp.asarray(direction, dtype),
                        jnp.asarray(amounts, dtype))
    )  # fmt: skip
    energies = energies - energies[0, 0]
    return tuple(float(abs(np.subtract(*(x @ _EXTRAPOLATION)))) for x in (energies, slopes))  # type: ignore


@functools.partial(jax.jit, static_argnums=0)
def _along(
    potential: Potential, params: Params, system: System, neighbors: Neighbors, direction: Array,
    amounts: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Energies and their derivatives after displacements along a direction."""

    def energy(amount: Array) -> Array:
        return potential.apply(
            params, system.replace(positions=system.positions + amount * direction), neighbors
        )

    return jax.lax.map(jax.value_and_grad(energy), amounts)


class _Curve(NamedTuple):
    """Distances [Å], energies [eV] and forces −dU/dr [eV/Å]; each [points]."""

    distances: np.ndarray
    energies: np.ndarray
    forces: np.ndarray


def _scanner(
    potential: Potential, params: Params, rest: Rest, first: int, second: int
) -> Callable[[float, float], _Curve] | None:
    """`scan(low, high)` of two atoms without a cell; None where the potential refuses them."""
    dtype = rest.system.positions.dtype
    near = 0.1 * potential.cutoff
    try:
        system = make_system([[0, 0, 0], [near, 0, 0]], [first, second], dtype=dtype)
        potential.validate(system)
        neighbors = neighbor_list(system, cutoff=potential.cutoff, reverse_edges=potential.uses_reverse_edges)
        jax.eval_shape(potential.apply, params, system, neighbors)
    except InputError:
        return None
    direction = jnp.asarray([[0, 0, 0], [1, 0, 0]], dtype)

    def scan(low: float, high: float) -> _Curve:
        distances = np.linspace(low, high, _POINTS)
        amounts = jnp.asarray(distances - near, dtype)
        energies, slopes = _along(potential, params, system, neighbors, direction, amounts)
        return _Curve(distances, np.asarray(energies, np.float64), -np.asarray(slopes, np.float64))

    return scan


def _largest_jump(scan: Callable[[float, float], _Curve], curve: _Curve, n_zooms: int) -> tuple[float, float]:
    """The largest jump of the energy [eV], and at what distance [Å]; infinite where something is not finite.

    The trapezoidal rule misses a third power of the interval where the energy is smooth, and the jump where
    it is not; intervals that miss more than those beside them are looked at again.
    """

    def broken(curve: _Curve) -> np.ndarray:
        return curve.distances[~(np.isfinite(curve.energies) & np.isfinite(curve.forces))]

    def missed(curve: _Curve) -> np.ndarray:
        width = np.diff(curve.distances)
        return np.abs(np.diff(curve.energies) + width * (curve.forces[1:] + curve.forces[:-1]) / 2)

    # What is not finite spreads to all that it is compared with.
    if len(broken(curve)):
        return np.inf, float(broken(curve)[0])
    first = missed(curve)
    beside = np.maximum(np.r_[first[1], first[:-1]], np.r_[first[1:], first[-2]])
    sizes = []
    for k in np.argsort(-first / (beside + 1e-12 * np.max(np.abs(curve.energies))))[:_SUSPECTS]:
        part, at = curve, int(k)
        for _ in range(n_zooms):
            part = scan(*part.distances[at : at + 2])
            if len(broken(part)):
                return np.inf, float(broken(part)[0])
            at = int(np.argmax(missed(part)))
        sizes.append((float(missed(part)[at]), float(part.distances[at])))
    return max(sizes)
