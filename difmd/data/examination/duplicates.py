"""Check for duplicates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.geometry import displacement, find_pairs_once, pair_codes
from difmd.data.examination.survey import Survey

# Distances of duplicates agree to within this [Å]; files round positions to about 1e-5.
_SAME = 2e-4

# Number of nearest fingerprints compared with a frame, itself included.
_CANDIDATES = 8

# Energies of duplicates agree to within this [eV/atom].
_SAME_ENERGY = 2e-3


def check_duplicates(s: Survey) -> Finding:
    """Report duplicates, also translated, rotated or renumbered ones, and whether their energies agree."""
    pairs = []
    for a, b, copy in _duplicates(s):
        gap = abs(s.energies[a] - s.energies[b]) / s.sizes[a]
        # Frames with equal distances but different energies are duplicates only if all positions agree.
        if copy or not gap > _SAME_ENERGY:
            pairs.append((a, b, copy, float(gap)))
    item = "duplicates"
    if not pairs:
        return Finding(item, Verdict.OK, f"no two of {int(s.usable.sum())} frames are equal")
    differing = sorted((pair for pair in pairs if pair[3] > _SAME_ENERGY), key=lambda pair: -pair[3])
    if differing:
        first, second, _, gap = differing[0]
        text = f"{len(differing)} frames repeat others with another energy, by up to {1e3 * gap:.3g} meV/atom"
        text += f": {name_frames(s.frames, (first, second))}"
        remedy = "check which label is correct; levels of theory or units may be mixed"
        indices = tuple(sorted({k for pair in differing for k in pair[:2]}))
        return Finding(item, Verdict.WRONG, text, remedy, indices)
    later = sorted({second for _, second, _, _ in pairs})
    exact = len({second for _, second, copy, _ in pairs if copy})
    text = (
        f"{len(later)} of {len(s.frames)} frames repeat others, {exact} atom by atom and the others rotated "
        f"or renumbered, such as {name_frames(s.frames, pairs[0][:2])}"
    )
    remedy = "remove the duplicates before splitting: otherwise training frames occur in the validation"
    return Finding(item, Verdict.DOUBTFUL, text, remedy, tuple(later))


def _duplicates(s: Survey) -> Iterator[tuple[int, int, bool]]:
    """Pairs of frames with equal distances, the earlier first, and whether all positions agree.

    Candidates have the nearest fingerprints, so that the comparisons scale linearly with the frames.
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
                is_copy = moved is not None and np.abs(moved[0] - moved[0].mean(axis=0)).max() < 10 * _SAME
                yield a, b, bool(is_copy)


def _same_distances(s: Survey, spectra: dict[int, np.ndarray], a: int, b: int) -> bool:
    for k in (a, b):
        if k not in spectra:
            pairs = find_pairs_once(s.frames[k], 6.0)
            # Separate ranges for the distances of each pair of elements.
            spectra[k] = np.sort(1e4 * pair_codes(s.frames[k], pairs) + pairs.distances)
    first, second = spectra[a], spectra[b]
    return len(first) == len(second) > 0 and float(np.abs(first - second).max()) < _SAME
