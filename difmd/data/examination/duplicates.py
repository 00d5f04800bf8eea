"""Frames that repeat others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.geometry import displacement, find_pairs_once
from difmd.data.examination.survey import Survey

# Distances of frames that are the same agree to this [Å]; files round positions to 1e-5 or so.
_SAME = 2e-4

# How many of the nearest in fingerprint are compared with a frame, itself included.
_CANDIDATES = 8

# Energies that differ by more are not those of the same frame [eV/atom].
_SAME_ENERGY = 2e-3


def check_duplicates(s: Survey) -> Finding:
    """Frames that repeat others, moved, turned or renumbered; and whether their energies agree."""
    pairs = []
    for a, b, copy in _duplicates(s):
        gap = abs(s.energies[a] - s.energies[b]) / s.sizes[a]
        # Frames of the same distances but other energies are not the same, unless each atom is at its place.
        if copy or not gap > _SAME_ENERGY:
            pairs.append((a, b, copy, float(gap)))
    if not pairs:
        return Finding("duplicates", Verdict.OK, f"no two of {int(s.usable.sum())} frames are the same")
    odd = sorted((pair for pair in pairs if pair[3] > _SAME_ENERGY), key=lambda pair: -pair[3])
    if odd:
        first, second, _, gap = odd[0]
        return Finding(
            "duplicates",
            Verdict.WRONG,
            f"{len(odd)} frames repeat others with another energy, by up to {1e3 * gap:.3g} meV/atom: "
            f"{name_frames(s.frames, (first, second))}",
            "find out which label is right; frames of different levels of theory or units may be mixed",
            tuple(sorted({k for pair in odd for k in pair[:2]})),
        )
    later = sorted({second for _, second, _, _ in pairs})
    exact = len({second for _, second, copy, _ in pairs if copy})
    return Finding(
        "duplicates",
        Verdict.DOUBTFUL,
        f"{len(later)} of {len(s.frames)} frames repeat others, {exact} atom by atom and the rest turned or "
        f"renumbered, such as "
        f"{name_frames(s.frames, pairs[0][:2])}",
        "remove the repeats before splitting: otherwise validation sees what training saw",
        tuple(later),
    )


def _duplicates(s: Survey) -> Iterator[tuple[int, int, bool]]:
    """Pairs of frames with the same distances, the earlier first, and whether each atom is at its place.

    Candidates are the nearest in fingerprint, so that the number of comparisons grows as that of the frames.
    """
    from scipy.spatial import cKDTree

    groups: dict[bytes, list[int]] = {}
    for k in np.flatnonzero(np.isfinite(s.fingerprint[:, 0]) & (s.sizes > 1)):
        groups.setdefault(np.sort(s.frames[int(k)].numbers).tobytes(), []).append(int(k))
    for members in groups.values():
        if len(members) < 2:
            continue
        prints = s.fingerprint[members]
        prints = prints / (np.abs(prints).mean(axis=0) + 1e-12)
        n_near = min(_CANDIDATES, len(members))
        apart, near = cKDTree(prints).query(prints, k=n_near, p=np.inf, distance_upper_bound=10 * _SAME)
        candidates = {
            tuple(sorted((members[k], members[int(other)])))
            for k in range(len(members))
            for other in near[k][np.isfinite(apart[k])]
            if other != k
        }
        spectra: dict[int, np.ndarray] = {}
        for a, b in sorted(candidates):
            if _same_distances(s, spectra, a, b):
                moved = displacement(s.frames[a], s.frames[b])
                yield a, b, moved is not None and bool(np.abs(_centered(moved[0])).max() < 10 * _SAME)


def _same_distances(s: Survey, spectra: dict[int, np.ndarray], a: int, b: int) -> bool:
    for k in (a, b):
        if k not in spectra:
            frame = s.frames[k]
            pairs = find_pairs_once(frame, 6.0)
            # Distances of each pair of elements by themselves.
            low, high = np.sort([frame.numbers[pairs.i], frame.numbers[pairs.j]], axis=0)
            spectra[k] = np.sort(1e4 * (119 * low + high) + pairs.distances)
    first, second = spectra[a], spectra[b]
    return len(first) == len(second) > 0 and float(np.abs(first - second).max()) < _SAME


def _centered(shift: np.ndarray) -> np.ndarray:
    return shift - shift.mean(axis=0)
