"""Forces and stress against central differences of the energy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from difmd.potentials import Params, Potential
from difmd.relaxation import any_strain
from difmd.validation.checks import Check, judged, tolerances, without_value
from difmd.validation.configuration import Configuration, energies_of

_GROUP = "derivatives"

# Largest number of components checked individually; for more, random directions of each kind.
_MOST, _DIRECTIONS = 96, 24

# Central differences of fourth order with steps of 1 and of ½, which differ across a discontinuity.
_STENCIL = np.array([-2, -1, -0.5, 0.5, 1, 2])
_FULL = np.array([1, -8, 0, 0, 8, -1]) / 12
_HALF = np.array([0, 1, -8, 8, -1, 0]) / 6

# Fraction of the directions of a kind that may be excluded.
_EXCLUDED = 0.1

_CROSSED = (
    "the energy is discontinuous, or too noisy in this precision: look at the cut-off checks, smooth it "
    "there, or use float64"
)


def check_derivatives(
    potential: Potential, params: Params, at: Configuration, rng: np.random.Generator
) -> list[Check]:
    """Check forces and stress against differences of fourth order, relative to the largest force.

    Small systems are checked in every component, large ones along random directions of all atoms and of
    single atoms. Derivatives that depend on the step, as across a discontinuity, are excluded; if these are
    more than a tenth of either kind, the check is inconclusive unless the other kind fails.
    """
    return [_forces(potential, params, at, rng), _stress(potential, params, at)]


def _forces(potential: Potential, params: Params, at: Configuration, rng: np.random.Generator) -> Check:
    real = np.flatnonzero(np.asarray(at.system.atomic_numbers) > 0)
    shape = at.system.positions.shape
    if 3 * len(real) <= _MOST:
        directions = np.zeros((3 * len(real), *shape))
        directions[np.arange(3 * len(real)), np.repeat(real, 3), np.tile(np.arange(3), len(real))] = 1
        lengths = np.ones(len(directions))
        kinds = {f"{len(directions)} components": len(directions)}
    else:
        together = np.zeros((_DIRECTIONS, *shape))
        together[:, real] = rng.normal(size=(_DIRECTIONS, len(real), 3))
        alone = np.zeros((_DIRECTIONS, *shape))
        alone[np.arange(_DIRECTIONS), rng.choice(real, _DIRECTIONS)] = rng.normal(size=(_DIRECTIONS, 3))
        directions = np.concatenate([together, alone])
        directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)
        # Each atom moves by about a step.
        lengths = np.repeat([np.sqrt(len(real)), 1.0], _DIRECTIONS)
        names = (f"{_DIRECTIONS} random directions of all atoms", f"{_DIRECTIONS} of single atoms")
        kinds = dict.fromkeys(names, _DIRECTIONS)
    limits = tolerances(at.system.positions.dtype)
    steps = limits.step * lengths
    slopes, uncertainty = _differences(potential, params, at, directions, steps, is_strain=False)
    predicted = -np.tensordot(directions, np.asarray(at.evaluation.forces, np.float64), 2)
    return _row(
        "forces", predicted, slopes, uncertainty, at.largest_force, limits.derivative, kinds,
        "forces are not −∂U/∂r: look for a custom derivative, a stop_gradient, or rounding to float32",
    )  # fmt: skip


def _stress(potential: Potential, params: Params, at: Configuration) -> Check:
    if not np.asarray(at.system.pbc).all():
        return without_value(_GROUP, "not applicable", "not all directions are periodic", "stress")
    limits = tolerances(at.system.positions.dtype)
    strains, steps = any_strain(), np.full(6, limits.strain)
    slopes, uncertainty = _differences(potential, params, at, strains, steps, is_strain=True)
    volume = float(at.system.volume)
    stress = np.asarray(at.evaluation.stress, np.float64)
    predicted = np.tensordot(strains, stress, 2) * volume
    scale = volume * np.max(np.abs(stress)) + at.largest_force * np.sqrt(at.n_atoms)
    return _row(
        "stress", predicted, slopes, uncertainty, scale, limits.derivative, {"6 components": 6},
        "the stress is not ∂U/∂strain/V: let the energy depend on the cell through positions of images only",
    )  # fmt: skip


def _differences(
    potential: Potential, params: Params, at: Configuration, directions: np.ndarray, steps: np.ndarray,
    *, is_strain: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Derivatives of the energy along directions [eV/Å or eV], and their dependence on the step."""
    dtype = at.system.positions.dtype
    n, points = len(directions), len(_STENCIL)
    amounts = (steps[:, None] * _STENCIL).reshape(-1)
    changes = jnp.asarray(amounts[:, None, None] * np.repeat(directions, points, axis=0), dtype)
    zero = jnp.zeros((n * points, *(at.system.positions.shape if is_strain else (3, 3))), dtype)
    displacements, strains = (zero, changes) if is_strain else (changes, zero)
    energies = energies_of(potential, params, at.system, at.neighbors, displacements, strains)
    # Differences first, as energies may be large.
    values = np.asarray(energies, np.float64).reshape(n, points) - float(at.evaluation.energy)
    full, half = values @ _FULL / steps, values @ _HALF / steps
    return half, np.abs(full - half)


def _row(
    name: str, predicted: np.ndarray, slopes: np.ndarray, uncertainty: np.ndarray, scale: float, bound: float,
    kinds: dict[str, int], remedy: str,
) -> Check:  # fmt: skip
    """A check of derivatives of several kinds, `kinds` giving the number of each in their order."""
    is_finite = np.isfinite(predicted) & np.isfinite(slopes) & np.isfinite(uncertainty)
    if not is_finite.all():
        reason = (
            f"{(~is_finite).sum()} of {len(is_finite)} derivatives, or energies to check them with, are not "
            "finite: look for roots, logarithms and quotients that are not masked with safe operands"
        )
        return without_value(_GROUP, "failed", reason, name)
    errors, certain = np.abs(slopes - predicted) / scale, uncertainty <= 0.5 * bound * scale
    ends = np.cumsum(list(kinds.values()))[:-1]
    notes, judgeable = [], []
    for kind, error, is_certain in zip(kinds, np.split(errors, ends), np.split(certain, ends), strict=True):
        if is_certain.mean() >= 1 - _EXCLUDED:
            judgeable.append(float(np.max(error[is_certain])))
        excluded = f"{is_certain.sum()} of {kind}, others cross a discontinuity"
        notes.append(kind if is_certain.all() else excluded)
    value, note = max(judgeable, default=np.nan), "; ".join(notes)
    if len(judgeable) < len(kinds) and not value > bound:
        return Check(_GROUP, name, value, bound, "", "inconclusive", f"{note}; {_CROSSED}")
    return judged(_GROUP, name, value, bound, remedy, note=note)
