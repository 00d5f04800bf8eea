"""A pair potential fitted to the forces of a data set, as a reference for units and conventions.

It is linear in its parameters: cubic B-splines for each pair of elements. It is inaccurate, but sufficient to
distinguish eV from kcal/mol, tension from compression, and yz from xy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from difmd.data.examination.geometry import Pairs, find_pairs_once, pair_codes
from difmd.data.frames import Frame

# Distance of the knots [Å].
_SPACING = 0.25

# Largest numbers of frames and atoms in the fit; more would not improve it.
_MOST_FRAMES = 200
_MOST_ATOMS = 12_000

_ROUNDS = 3


class PairModel(NamedTuple):
    """U = Σ_{pairs} φ_ab(r), φ_ab a cubic spline that vanishes at the cut-off."""

    cutoff: float  # [Å]
    kinds: dict[tuple[int, int], int]  # index of each pair of elements (a ≤ b)
    starts: np.ndarray  # first knot of each pair of elements [Å]; [kinds]
    coefficients: np.ndarray  # of the splines [eV]; [kinds, functions]
    correlation: float  # between fitted forces and labels, over the fitted frames


class Prediction(NamedTuple):
    """Prediction of the model for one frame."""

    energy: float  # [eV]
    forces: np.ndarray  # [eV/Å]; [atoms, 3]
    virial: np.ndarray  # ∂U/∂strain, stress times volume [eV]; [3, 3]
    laplacian: float  # Σ_i ∇_i² U [eV/Å²]
    pairs: Pairs  # the pairs within the cut-off
    stiffness: np.ndarray  # φ'' of each pair [eV/Å²]; [pairs]


def fit_pair_model(frames: Sequence[Frame]) -> PairModel | None:
    """Fit forces by weighted, regularised least squares, without inconsistent frames; None for too few."""
    chosen = _sample(frames)
    if not chosen or sum(3 * frame.n_atoms for frame in chosen) < 60:
        return None
    cutoff = _cutoff(chosen)
    pairs_of = [find_pairs_once(frame, cutoff) for frame in chosen]
    shortest = _shortest(chosen, pairs_of)
    if not shortest:
        return None
    kinds = {pair: n for n, pair in enumerate(sorted(shortest))}
    starts = np.array([shortest[pair] - 1e-6 for pair in kinds])
    # Without functions that reach beyond the cut-off, φ vanishes smoothly there.
    n_functions = int((cutoff - starts.min()) / _SPACING) + 3
    model = PairModel(cutoff, kinds, starts, np.zeros((len(kinds), n_functions)), 0.0)
    sizes = np.array([frame.n_atoms for frame in chosen])
    squares = np.array([np.sum(frame.forces**2) for frame in chosen if frame.forces is not None])
    # Frames have equal weight at any temperature, but less with small forces.
    typical = np.quantile(squares / sizes, 0.75)
    weight = 1 / (squares / sizes + 0.3 * typical + 1e-12) / sizes
    is_used = np.ones(len(chosen), bool)
    for _ in range(_ROUNDS):
        model = _solve(model, chosen, pairs_of, np.where(is_used, weight, 0.0))
        guesses = [predict(model, frame, pairs).forces for frame, pairs in zip(chosen, pairs_of, strict=True)]
        inner = np.array([np.sum(g * f.forces) for g, f in zip(guesses, chosen, strict=True)])
        model_squares = np.array([np.sum(guess**2) for guess in guesses])
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.abs(inner) / model_squares
        # Relaxed crystals have no forces and no scale.
        has_scale = np.isfinite(scale) & (squares / sizes > 1e-3 * typical)
        middle = np.median(scale[has_scale]) if has_scale.any() else np.inf
        new = (scale < 3 * middle) & (scale > middle / 3)
        if not new.any() or np.array_equal(new, is_used):
            break
        is_used = new
    w = weight[is_used]
    norm = np.sqrt((w @ model_squares[is_used]) * (w @ squares[is_used]))
    return model._replace(correlation=float(w @ inner[is_used] / norm) if norm > 0 else 0.0)


def _shortest(frames: Sequence[Frame], pairs_of: Sequence[Pairs]) -> dict[tuple[int, int], float]:
    """Shortest distance of every pair of elements [Å]."""
    shortest: dict[tuple[int, int], float] = {}
    for frame, pairs in zip(frames, pairs_of, strict=True):
        codes = pair_codes(frame, pairs)
        for code in np.unique(codes):
            pair = divmod(int(code), 119)
            shortest[pair] = min(shortest.get(pair, np.inf), float(pairs.distances[codes == code].min()))
    return shortest


def _solve(model: PairModel, frames: list[Frame], pairs_of: list[Pairs], weight: np.ndarray) -> PairModel:
    """The model with coefficients of regularised weighted least squares."""
    width = model.coefficients.size
    matrix: np.ndarray = np.zeros((width, width))
    vector: np.ndarray = np.zeros(width)
    # The design matrices are recomputed in each round: for many elements they would fill the memory.
    for frame, pairs, w in zip(frames, pairs_of, weight, strict=True):
        if w > 0 and frame.forces is not None:
            design = _design(model, frame, pairs)
            matrix += w * (design.T @ design)
            vector += w * (design.T @ frame.forces.ravel())
    # A penalty on second differences of the coefficients of each spline.
    n_kinds, n_functions = model.coefficients.shape
    difference = np.diff(np.eye(n_functions), 2, axis=0)
    smoothing = np.kron(np.eye(n_kinds), difference.T @ difference)
    size = np.trace(matrix) / width
    solution = np.linalg.solve(matrix + size * (1e-3 * smoothing + 1e-7 * np.eye(width)), vector)
    return model._replace(coefficients=solution.reshape(model.coefficients.shape))


def predict(model: PairModel, frame: Frame, pairs: Pairs) -> Prediction:
    """Energy, forces, virial and stiffness of one frame; pairs of elements not in the model are ignored."""
    kind = _kinds(model, frame, pairs)
    pairs, kind = pairs.select(kind >= 0), kind[kind >= 0]
    first, values, slopes, bends = _splines(model, kind, pairs.distances)
    padded = np.pad(model.coefficients, ((0, 0), (0, 4)))
    coefficients = padded[kind[:, None], first[:, None] + np.arange(4)]
    energy, slope, bend = ((coefficients * part).sum(axis=1) for part in (values, slopes, bends))
    unit = pairs.vectors / pairs.distances[:, None]
    pull = slope[:, None] * unit
    forces: np.ndarray = np.zeros((frame.n_atoms, 3))
    np.add.at(forces, pairs.i, pull)
    np.add.at(forces, pairs.j, -pull)
    virial = pull.T @ pairs.vectors
    laplacian = 2 * float(np.sum(bend + 2 * slope / pairs.distances))
    return Prediction(float(energy.sum()), forces, virial, laplacian, pairs, bend)


def _sample(frames: Sequence[Frame]) -> list[Frame]:
    """Evenly spaced frames with forces, with no more atoms than needed."""
    forces = [(f, f.forces) for f in frames if f.forces is not None and f.n_atoms > 1]
    usable = [frame for frame, values in forces if np.isfinite(values).all()]
    if not usable:
        return []
    typical = max(1.0, float(np.mean([frame.n_atoms for frame in usable])))
    n = int(min(_MOST_FRAMES, max(10, _MOST_ATOMS / typical), len(usable)))
    return [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, n).round().astype(int))]


def _cutoff(frames: Sequence[Frame]) -> float:
    """Twice the typical distance of nearest neighbours, between 4 Å and 8 Å."""
    nearest = []
    for frame in frames[:: max(1, len(frames) // 20)]:
        pairs = find_pairs_once(frame, 8.0)
        if len(pairs.i):
            closest = np.full(frame.n_atoms, np.inf)
            np.minimum.at(closest, pairs.i, pairs.distances)
            np.minimum.at(closest, pairs.j, pairs.distances)
            nearest.append(np.median(closest))
    return float(np.clip(2 * np.median(nearest), 4.0, 8.0)) if nearest else 4.0


def _kinds(model: PairModel, frame: Frame, pairs: Pairs) -> np.ndarray:
    """Index of the pair of elements of each pair; −1 if it is not in the model."""
    table = np.full((119, 119), -1)
    for pair, n in model.kinds.items():
        table[pair] = n
    return table.ravel()[pair_codes(frame, pairs)]


def _splines(
    model: PairModel, kind: np.ndarray, distances: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First of the four functions at each distance, and their values and two derivatives; [pairs, 4]."""
    # Below the first knot the first polynomial is extrapolated.
    steps = (distances - model.starts[kind]) / _SPACING
    first = np.maximum(steps.astype(int), 0)
    t = steps - first
    n_functions = model.coefficients.shape[1]
    # Knots count from the start, but the functions must end at the cut-off.
    last = ((model.cutoff - model.starts[kind]) / _SPACING).astype(int)
    index = first[:, None] + np.arange(4)
    ends = (index <= np.minimum(last, n_functions)[:, None] - 1) & (index < n_functions)
    u = 1 - t
    values = np.stack([u**3, 3 * t**3 - 6 * t**2 + 4, 3 * u**3 - 6 * u**2 + 4, t**3], axis=1) / 6
    slopes = np.stack([-(u**2), 3 * t**2 - 4 * t, 4 * u - 3 * u**2, t**2], axis=1) / (2 * _SPACING)
    bends = np.stack([u, 3 * t - 2, 3 * u - 2, t], axis=1) / _SPACING**2
    return np.minimum(first, n_functions), values * ends, slopes * ends, bends * ends


def _design(model: PairModel, frame: Frame, pairs: Pairs) -> np.ndarray:
    """Forces of each function of each pair of elements; [3·atoms, functions]."""
    kind = _kinds(model, frame, pairs)
    first, _, slopes, _ = _splines(model, kind, pairs.distances)
    n_kinds, n_functions = model.coefficients.shape
    column = np.minimum(first[:, None] + np.arange(4), n_functions - 1) + n_functions * kind[:, None]
    unit = pairs.vectors / pairs.distances[:, None]
    # [pairs, 4 functions, 3 components]
    pull = slopes[:, :, None] * unit[:, None, :]
    width = n_kinds * n_functions
    design: np.ndarray = np.zeros(3 * frame.n_atoms * width)
    for atom, sign in ((pairs.i, 1.0), (pairs.j, -1.0)):
        row = 3 * atom[:, None, None] + np.arange(3)
        flat = row * width + column[:, :, None]
        design += np.bincount(flat.ravel(), (sign * pull).ravel(), minlength=len(design))
    return design.reshape(-1, width)
