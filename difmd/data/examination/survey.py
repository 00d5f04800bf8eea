"""`Survey`: quantities of every frame that the checks use, computed in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from difmd._internal.progress import progress_bar
from difmd.data.examination.geometry import Pairs, covalent_radii, find_pairs_once, nearest_ratios, pair_codes
from difmd.data.examination.pair_model import PairModel, fit_pair_model, predict
from difmd.data.frames import LABELS, Frame

# Widths and range of the radial functions of a fingerprint [Å].
_WIDTHS = np.array([0.7, 1.0, 1.5, 2.2, 3.0])
_REACH = 4.5

# Pairs closer than this times the sum of covalent radii overlap.
COLLIDING = 0.4

# Longest bond, in sums of covalent radii.
BONDED = 1.25


class Bonds(NamedTuple):
    """Bonded pairs of one pair of elements, over all frames."""

    number: int  # number of bonds
    distance: float  # mean length [Å]
    stiffness: float  # mean φ'' of the pair model [eV/Å²]
    coordination: float  # bonds per atom of any kind, mean over the pairs


class Survey(NamedTuple):
    """Quantities of every frame; NaN if undefined."""

    frames: Sequence[Frame]  # all frames
    usable: np.ndarray  # whether positions and labels are finite and have correct shapes; bool [frames]
    faults: dict[int, str]  # what is wrong with unusable frames, by index
    sizes: np.ndarray  # numbers of atoms; int [frames]
    energies: np.ndarray  # label [eV]; [frames]
    force_rms: np.ndarray  # root mean square of the force components [eV/Å]; [frames]
    nearest: np.ndarray  # median over atoms of nearest distance / sum of covalent radii; [frames]
    closest: np.ndarray  # i, j, distance [Å] and ratio of the closest pair; [frames, 4]
    fingerprint: np.ndarray  # invariant under rotation and renumbering; [frames, functions]
    model: PairModel | None  # pair potential fitted to the forces; None if there are too few
    scale: np.ndarray  # factor from the model's forces to the labels; [frames]
    match: np.ndarray  # correlation of the model's forces with the labels; [frames]
    model_energies: np.ndarray  # [eV]; [frames]
    model_forces: list[np.ndarray | None]  # [eV/Å]; one array per frame, or None
    model_stress: np.ndarray  # virial stress of the model [eV/Å³]; [frames, 3, 3]
    laplacians: np.ndarray  # Σ_i ∇_i² U of the model [eV/Å²]; [frames]
    bonds: dict[tuple[int, int], Bonds]  # by pair of elements


def survey(frames: Sequence[Frame], *, progress: bool = False) -> Survey:
    """Compute the quantities for the checks."""
    n = len(frames)
    faults = {i: fault for i, frame in enumerate(frames) if (fault := _fault(frame))}
    usable = np.array([i not in faults for i in range(n)], bool)
    energies, rms, nearest, scale, match, model_energies, laplacians = np.full((7, n), np.nan)
    closest = np.full((n, 4), np.nan)
    fingerprint = np.full((n, len(_WIDTHS)), np.nan)
    stress = np.full((n, 3, 3), np.nan)
    forces: list[np.ndarray | None] = [None] * n
    sums: dict[tuple[int, int], np.ndarray] = {}
    with progress_bar("examining frames", 2 * n, enabled=progress) as advance:
        for i, frame in enumerate(frames):
            advance(1)
            if not usable[i]:
                continue
            ratios, pair = nearest_ratios(frame)
            nearest[i] = np.median(ratios)
            if np.isfinite(pair[2]):
                closest[i] = (*pair, ratios.min())
            if frame.energy is not None:
                energies[i] = frame.energy
            if frame.forces is not None:
                rms[i] = np.sqrt(np.mean(frame.forces**2))
        # Overlapping atoms would distort the reference.
        with np.errstate(invalid="ignore"):
            ordinary = usable & ~(closest[:, 3] < COLLIDING)
        model = fit_pair_model([frame for i, frame in enumerate(frames) if ordinary[i]])
        for i, frame in enumerate(frames):
            advance(1)
            if not ordinary[i]:
                continue
            pairs = find_pairs_once(frame, _REACH if model is None else max(_REACH, model.cutoff))
            fingerprint[i] = _fingerprint(frame, pairs.within(_REACH))
            if model is None or frame.n_atoms == 1:
                continue
            guess = predict(model, frame, pairs.within(model.cutoff))
            forces[i] = guess.forces
            model_energies[i] = guess.energy
            laplacians[i] = guess.laplacian
            if frame.volume is not None:
                stress[i] = guess.virial / frame.volume
            _add_bonds(sums, frame, guess.pairs, guess.stiffness)
            square = np.sum(guess.forces**2)
            if frame.forces is not None and square > 0 and rms[i] > 0:
                product = np.sum(guess.forces * frame.forces)
                scale[i] = product / square
                match[i] = product / np.sqrt(square * np.sum(frame.forces**2))
    return Survey(
        frames=frames, usable=usable, faults=faults, sizes=np.array([frame.n_atoms for frame in frames], int),
        energies=energies, force_rms=rms, nearest=nearest, closest=closest, fingerprint=fingerprint,
        model=model, scale=scale, match=match, model_energies=model_energies, model_forces=forces,
        model_stress=stress, laplacians=laplacians,
        bonds={pair: Bonds(int(s[0]), *map(float, s[1:] / s[0])) for pair, s in sorted(sums.items())},
    )  # fmt: skip


def _fault(frame: Frame) -> str:
    """What makes a frame unusable, "" if nothing."""
    n_atoms = len(frame.numbers)
    shapes = {"forces": (n_atoms, 3), "stress": (3, 3), "dipole": (3,), "charges": (n_atoms,), "energy": ()}
    if not np.isfinite(frame.positions).all():
        atom = int(np.argwhere(~np.isfinite(frame.positions))[0][0])
        return f"position of atom {atom} is {frame.positions[atom].tolist()}"
    if not np.isfinite(frame.cell).all():
        return "its cell is not finite"
    for name in LABELS:
        value = getattr(frame, name)
        if value is None:
            continue
        array = np.asarray(value, np.float64)
        if array.shape != shapes[name]:
            return f"{name} has shape {list(array.shape)}, not {list(shapes[name])}"
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            where = f" of atom {bad[0][0]}" if name in ("forces", "charges") else ""
            return f"{name}{where} is {array[tuple(bad[0])]}"
    return ""


def _fingerprint(frame: Frame, pairs: Pairs) -> np.ndarray:
    """Sums over pairs of smooth functions of the distance, weighted by element."""
    z = frame.numbers.astype(float)
    # Every pair of elements has another weight.
    weight = np.sqrt(z[pairs.i] + z[pairs.j]) + np.sqrt(z[pairs.i] * z[pairs.j] + 0.5)
    fade = weight * (1 - (pairs.distances / _REACH) ** 2) ** 3
    sums = (fade[:, None] * np.exp(-((pairs.distances[:, None] / _WIDTHS) ** 2))).sum(axis=0)
    return sums / frame.n_atoms


def _add_bonds(
    sums: dict[tuple[int, int], np.ndarray], frame: Frame, pairs: Pairs, stiffness: np.ndarray
) -> None:
    radii = covalent_radii(frame.numbers)
    is_bonded = pairs.distances < BONDED * (radii[pairs.i] + radii[pairs.j])
    bonded = pairs.select(is_bonded)
    number = np.bincount(np.concatenate([bonded.i, bonded.j]), minlength=frame.n_atoms)
    values = (bonded.distances, stiffness[is_bonded], 0.5 * (number[bonded.i] + number[bonded.j]))
    codes = pair_codes(frame, bonded)
    for code in np.unique(codes):
        here = codes == code
        entry = np.array([here.sum(), *(value[here].sum() for value in values)])
        pair = divmod(int(code), 119)
        sums[pair] = sums.get(pair, 0.0) + entry
