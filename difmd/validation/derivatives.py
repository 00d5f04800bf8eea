"""Forces and stress against central differences of the energy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from difmd.potentials import Params, Potential
from difmd.relaxation import any_strain
from difmd.validation.checks import Check, judged, tolerances, without
from difmd.validation.rest import Rest, energies_of

_GROUP = "derivatives"

# Components that are looked at one by one; of more, so many random directions of each kind.
_MOST, _DIRECTIONS = 96, 24

# Fourth order at ±1, ±2 steps and at half of them: what differs between the two has met a discontinuity.
_STENCIL = np.array([-2, -1, -0.5, 0.5, 1, 2])
_WHOLE = np.array([1, -8, 0, 0, 8, -1]) / 12
_HALF = np.array([0, 1, -8, 8, -1, 0]) / 6

# Share of the directions of a kind that may be left out.
_LEFT_OUT = 0.1

_CROSSED = (
    "the energy jumps within a step, or is too noisy in this precision: look at the cut-off rows, smooth it "
    "there, or run with float64"
)


def check_derivatives(
    potential: Potential, params: Params, rest: Rest, rng: np.random.Generator
) -> list[Check]:
    """Forces and stress against differences of fourth order, relative to the largest force.

    Every component of small systems. Of large ones random directions: of all atoms, so that an error of any
    of them is seen, and of single atoms. Derivatives for which a step and half of it do not agree are left
    out, as across a discontinuity; where these are more than a tenth of either kind, the row is inconclusive,
    unless the other kind fails. Anything that is not finite fails.

    Args:
        potential: the energy model.
        params: its parameters.
        rest: the configuration.
        rng: of the directions.

    Returns:
        Rows for forces and stress.
    """
    return [_forces(potential, params, rest, rng), _stress(potential, params, rest)]


def _forces(potential: Potential, params: Params, rest: Rest, rng: np.random.Generator) -> Check:
    real = np.flatnonzero(np.asarray(rest.system.atomic_numbers) > 0)
    shape = rest.system.positions.shape
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
        # Each of the atoms moves by about a step.
        lengths = np.repeat([np.sqrt(len(real)), 1.0], _DIRECTIONS)
        kinds = {
            f"{_DIRECTIONS} random directions of all atoms": _DIRECTIONS,
            f"{_DIRECTIONS} of single atoms": _DIRECTIONS,
        }
    limits = tolerances(rest.system.positions.dtype)
    slopes, doubt = _differences(potential, params, rest, directions, limits.step * lengths, is_strain=False)
    predicted = -np.tensordot(directions, np.asarray(rest.found.forces, np.float64), 2)
    return _row(
        "forces", predicted, slopes, doubt, rest.largest_force, limits.derivative, kinds,
        "forces are not −∂U/∂r: look for a custom derivative, a stop_gradient, or rounding to float32",
    )  # fmt: skip


def _stress(potential: Potential, params: Params, rest: Rest) -> Check:
    if not np.asarray(rest.system.pbc).all():
        return without(_GROUP, "not applicable", "not all directions are periodic", "stress")
    limits = tolerances(rest.system.positions.dtype)
    strains = any_strain()
    slopes, doubt = _differences(potential, params, rest, strains, np.full(6, limits.strain), is_strain=True)
    volume = float(rest.system.volume)
    stress = np.asarray(rest.found.stress, np.float64)
    predicted = np.tensordot(strains, stress, 2) * volume
    scale = volume * np.max(np.abs(stress)) + rest.largest_force * np.sqrt(rest.n_atoms)
    return _row(
        "stress", predicted, slopes, doubt, scale, limits.derivative, {"6 components": 6},
        "the stress is not ∂U/∂strain/V: let the energy depend on the cell through positions of images only",
    )  # fmt: skip


def _differences(
    potential: Potential, params: Params, rest: Rest, directions: np.ndarray, steps: np.ndarray,
    *, is_strain: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Derivatives of the energy along directions [eV/Å or eV], and by how much it depends on the step."""
    dtype = rest.system.positions.dtype
    n, points = len(directions), len(_STENCIL)
    amounts = (steps[:, None] * _STENCIL).reshape(-1)
    changes = jnp.asarray(amounts[:, None, None] * np.repeat(directions, points, axis=0), dtype)
    still = jnp.zeros((n * points, *(rest.system.positions.shape if is_strain else (3, 3))), dtype)
    moves, strains = (still, changes) if is_strain else (changes, still)
    energies = energies_of(potential, params, rest.system, rest.neighbors, moves, strains)
    # Differences first, as energies may be large.
    values = np.asarray(energies, np.float64).reshape(n, points) - float(rest.found.energy)
    whole, half = values @ _WHOLE / steps, values @ _HALF / steps
    return half, np.abs(whole - half)


def _row(
    name: str, predicted: np.ndarray, slopes: np.ndarray, doubt: np.ndarray, scale: float, bound: float,
    kinds: dict[str, int], remedy: str,
) -> Check:  # fmt: skip
    """A row from derivatives of several kinds, of which there are as many as `kinds` says, in this order."""
    is_finite = np.isfinite(predicted) & np.isfinite(slopes) & np.isfinite(doubt)
    if not is_finite.all():
        reason = (
            f"{(~is_finite).sum()} of {len(is_finite)} derivatives, or energies to check them with, are not "
            "finite: look for roots, logarithms and quotients that are not masked with safe operands"
        )
        return without(_GROUP, "failed", reason, name)
    errors, sure = np.abs(slopes - predicted) / scale, doubt <= 0.5 * bound * scale
    ends = np.cumsum(list(kinds.values()))[:-1]
    notes, judgeable = [], []
    for kind, error, is_sure in zip(kinds, np.split(errors, ends), np.split(sure, ends), strict=True):
        if is_sure.mean() >= 1 - _LEFT_OUT:
            judgeable.append(float(np.max(error[is_sure])))
        notes.append(kind if is_sure.all() else f"{is_sure.sum()} of {kind}, others meet a discontinuity")
    value, note = max(judgeable, default=np.nan), "; ".join(notes)
    if len(judgeable) < len(kinds) and not value > bound:
        return Check(_GROUP, name, value, bound, "", "inconclusive", f"{note}; {_CROSSED}")
    return judged(_GROUP, name, value, bound, remedy, note=note)
