"""Checks of single frames: labels, finite values, close atoms, net forces, duplicates, outliers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from difmd.data.findings import Finding, Verdict, name_frames
from difmd.data.frames import LABELS, Frame, is_isolated_atom
from difmd.data.geometry import displacement, find_pairs_once
from difmd.data.references import least_absolute
from difmd.data.survey import Survey

# Closest pair over the sum of covalent radii. H2 has 1.2; hot water with quantum nuclei comes to 0.78.
_CLOSE = 0.6
_COLLIDING = 0.4

# Nearest neighbours are usually 0.85 to 1.3 sums of radii apart; in bohr taken for Å it would be 1.6 to 2.4.
_FAR = 1.6
_NOBLE = (2, 10, 18, 36, 54, 86)

# Net force over the rms force component times √atoms: the relative error of forces with errors at random.
_NET = 0.02

# Distances of frames that are the same agree to this [Å]; files round positions to 1e-5 or so.
_SAME = 2e-4

# Energies that differ by more are not those of the same frame [eV/atom].
_SAME_ENERGY = 2e-3

# An outlier lies so many widths of the 5 % to 95 % interval outside of it.
_WIDTHS = 3.0


def check_labels(s: Survey) -> Finding:
    """Which labels are there, and in how many frames."""
    counts = {name: sum(getattr(frame, name) is not None for frame in s.frames) for name in LABELS}
    there = {name: count for name, count in counts.items() if count}
    summary = ", ".join(f"{name} {count}" for name, count in there.items()) + f" of {len(s.frames)} frames"
    if not there:
        return Finding(
            "labels", Verdict.WRONG, "no frame has a label", "name them with Keys(...) when you read"
        )
    n_atoms = [i for i in range(len(s.frames)) if not is_isolated_atom(s.frames[i])]
    partly = {
        name: [i for i in n_atoms if getattr(s.frames[i], name) is None] for name in there if name != "stress"
    }
    lacking = {name: some for name, some in partly.items() if 0 < len(some) < len(n_atoms)}
    if lacking:
        name, some = max(lacking.items(), key=lambda entry: len(entry[1]))
        return Finding(
            "labels",
            Verdict.DOUBTFUL,
            f"{summary}; no {name} in {name_frames(s.frames, some)}",
            "train on what is there, or see whether the labels have another name in these frames",
            tuple(some),
        )
    return Finding("labels", Verdict.OK, summary)


def check_finite(s: Survey) -> Finding:
    """NaN or infinite values, and labels of a wrong shape."""
    if not s.faults:
        return Finding("finite values", Verdict.OK, "all positions and labels are finite")
    first, why = next(iter(s.faults.items()))
    return Finding(
        "finite values",
        Verdict.WRONG,
        f"{len(s.faults)} frames are unusable: {name_frames(s.frames, [first])}: {why}"
        + (f"; also {name_frames(s.frames, list(s.faults)[1:])}" if len(s.faults) > 1 else ""),
        "remove these frames; the calculation failed or was written badly",
        tuple(s.faults),
    )


def check_close_atoms(s: Survey) -> Finding:
    """The closest pair against the sum of covalent radii, and whether positions may be in another unit."""
    ratio = s.closest[:, 3]
    if not np.isfinite(ratio).any():
        return Finding("close atoms", Verdict.OK, "no two atoms are near each other")
    worst = int(np.nanargmin(ratio))
    i, j, distance, r = s.closest[worst]
    symbols = _symbols(s.frames[worst], (int(i), int(j)))
    pair = f"atoms {int(i)} and {int(j)} ({symbols}) of {name_frames(s.frames, [worst])}, {distance:.3f} Å"
    summary = f"closest: {pair}, {r:.2f} of the sum of covalent radii"
    below = np.flatnonzero(ratio < _CLOSE)
    if r < _CLOSE:
        return Finding(
            "close atoms",
            Verdict.WRONG if r < _COLLIDING else Verdict.DOUBTFUL,
            f"{summary}; {len(below)} frames are below {_CLOSE}",
            "remove these frames, or check the unit of the positions, the cell and pbc",
            tuple(below[np.argsort(ratio[below])]),
        )
    bonded = [k for k, f in enumerate(s.frames) if s.usable[k] and not np.isin(f.numbers, _NOBLE).any()]
    typical = np.median(s.nearest[bonded][np.isfinite(s.nearest[bonded])]) if bonded else np.nan
    if typical > _FAR:
        return Finding(
            "close atoms",
            Verdict.DOUBTFUL,
            f"nearest neighbours are usually {typical:.2f} sums of covalent radii apart",
            "check whether the positions are in bohr: read with Units(length='Bohr')",
        )
    return Finding("close atoms", Verdict.OK, summary)


def check_net_forces(s: Survey) -> Finding:
    """Forces of an isolated or periodic system add up to nothing, and so do the torques of a molecule."""
    typical = np.nanmedian(s.force_rms) if np.isfinite(s.force_rms).any() else np.nan
    if not np.isfinite(typical):
        return Finding("net forces", Verdict.UNKNOWN, "there are no forces")
    net, absolute, torque = (np.zeros(len(s.frames)) for _ in range(3))
    for k, frame in enumerate(s.frames):
        if not s.usable[k] or frame.forces is None or frame.n_atoms == 1:
            continue
        # Near a minimum the forces of a frame are all small, and so is the meaning of their ratio.
        unit = max(s.force_rms[k], 0.3 * typical)
        absolute[k] = np.linalg.norm(frame.forces.sum(axis=0))
        net[k] = absolute[k] / (unit * np.sqrt(frame.n_atoms))
        if not frame.pbc.any():
            arm = frame.positions - frame.positions.mean(axis=0)
            turn = np.linalg.norm(np.cross(arm, frame.forces).sum(axis=0))
            torque[k] = turn / (unit * np.sqrt(np.sum(arm**2)))
    bad = np.flatnonzero(np.maximum(net, torque) > _NET)
    worst = int(np.argmax(net))
    summary = (
        f"largest: {absolute[worst]:.2g} eV/Å ({100 * net[worst]:.2g} % of rms force × √atoms), "
        f"{name_frames(s.frames, [worst])}"
    )
    if not len(bad):
        return Finding("net forces", Verdict.OK, summary)
    turned = f"; torque up to {100 * torque.max():.2g} %" if torque.max() > _NET else ""
    return Finding(
        "net forces",
        Verdict.DOUBTFUL,
        f"{summary}{turned}; {len(bad)} frames above {100 * _NET:.0f} %",
        "the errors of the forces are about as large: converge the calculations, take the mean force off, or "
        "ignore this where atoms were held or a field was on",
        tuple(bad[np.argsort(-np.maximum(net, torque)[bad])]),
    )


def check_duplicates(s: Survey) -> Finding:
    """Frames that repeat others, moved, turned or renumbered; and whether their energies agree."""
    found = list(_duplicates(s))
    # Frames with the same distances but other energies are not the same, unless every atom is at its place.
    gaps = [abs(s.energies[a] - s.energies[b]) / s.sizes[a] for a, b, _ in found]
    pairs = [(*pair, gap) for pair, gap in zip(found, gaps, strict=True) if pair[2] or not gap > _SAME_ENERGY]
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
    exact = sum(copy for _, _, copy, _ in pairs)
    return Finding(
        "duplicates",
        Verdict.DOUBTFUL,
        f"{len(later)} of {len(s.frames)} frames repeat others, {exact} atom by atom and the rest turned or "
        f"renumbered, such as "
        f"{name_frames(s.frames, pairs[0][:2])}",
        "remove the repeats before splitting: otherwise validation sees what training saw",
        tuple(later),
    )


def check_outliers(s: Survey) -> Iterator[Finding]:
    """Energies and forces far outside of what the other frames have."""
    residual, unit = energy_residuals(s)
    known = np.flatnonzero(np.isfinite(residual))
    if len(known) < 10:
        yield Finding("energy outliers", Verdict.UNKNOWN, f"{len(known)} energies are too few to tell")
    else:
        # A model may explain so much that the rest has long tails, which is nothing to worry about.
        wide = 0.5 * _width(_by_composition(s)[known])
        beyond = np.where(np.abs(residual[known]) > wide, _beyond(residual[known]), 0.0)
        bad = known[beyond > 1]
        bad = bad[np.argsort(-np.abs(residual[bad]))]
        spread = f"90 % of {len(known)} frames lie within {1e3 * _width(residual[known]):.3g} meV/atom"
        if len(bad):
            yield Finding(
                "energy outliers",
                Verdict.WRONG if np.any(beyond > 3) else Verdict.DOUBTFUL,
                f"{spread} of {unit}, but {name_frames(s.frames, bad)} by up to "
                f"{1e3 * np.abs(residual[bad[0]]):.3g} meV/atom",
                "look whether these calculations converged, or whether their energies have another unit",
                tuple(bad),
            )
        else:
            yield Finding("energy outliers", Verdict.OK, f"{spread} of {unit}, none is far outside")
    largest = np.array(
        [
            np.abs(f.forces).max() if ok and f.forces is not None and f.n_atoms > 1 else np.nan
            for f, ok in zip(s.frames, s.usable, strict=True)
        ]
    )
    known = np.flatnonzero(np.isfinite(largest))
    if len(known) < 10:
        yield Finding(
            "force outliers", Verdict.UNKNOWN, f"{len(known)} frames with forces are too few to tell"
        )
        return
    usual = np.quantile(largest[known], 0.95)
    bad = known[largest[known] > 5 * usual]
    worst = int(known[np.argmax(largest[known])])
    summary = (
        f"largest component {largest[worst]:.3g} eV/Å in {name_frames(s.frames, [worst])}; in 95 % of frames "
        f"below {usual:.3g}"
    )
    if len(bad):
        yield Finding(
            "force outliers",
            Verdict.DOUBTFUL,
            f"{summary}; {len(bad)} frames above 5 times that",
            "look whether these calculations converged, or leave such frames out",
            tuple(bad[np.argsort(-largest[bad])]),
        )
    else:
        yield Finding("force outliers", Verdict.OK, summary)


def energy_residuals(s: Survey) -> tuple[np.ndarray, str]:
    """Energy per atom less what composition and the pair model explain [eV]; isolated atoms are left out.

    Returns:
        Residuals, NaN without; [frames]. And what they are taken from, in words.
    """
    residual = _by_composition(s)
    known = np.flatnonzero(np.isfinite(residual))
    model = s.model_energies[known] / s.sizes[known]
    if len(known) <= 20 or not np.isfinite(model).all():
        return residual, "what their composition explains"
    rows, values = composition(s, known)
    more = np.column_stack([rows, model])
    volumes = [s.frames[int(k)].volume for k in known]
    per_atom = np.array([np.nan if v is None else v for v in volumes]) / s.sizes[known]
    if np.isfinite(per_atom).all() and np.ptp(per_atom) > 1e-3 * per_atom.mean():
        # What depends on the density alone shows in no force.
        x = per_atom / np.median(per_atom)
        more = np.column_stack([more, x, 1 / x])
    finer = values - more @ least_absolute(more, values)[0]
    if _width(finer) > 0.8 * _width(residual[known]):
        return residual, "what their composition explains"
    residual[known] = finer
    return residual, "what composition, density and a pair potential explain"


def composition(s: Survey, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the elements in some frames, and their energies per atom [eV]."""
    elements = np.unique(np.concatenate([s.frames[int(k)].numbers for k in known]))
    rows = np.array([[np.mean(s.frames[int(k)].numbers == z) for z in elements] for k in known])
    return rows, s.energies[known] / s.sizes[known]


def _by_composition(s: Survey) -> np.ndarray:
    residual = np.full(len(s.frames), np.nan)
    alone = np.array([is_isolated_atom(frame) for frame in s.frames], bool)
    known = np.flatnonzero(np.isfinite(s.energies) & ~alone)
    if len(known):
        rows, values = composition(s, known)
        residual[known] = values - rows @ least_absolute(rows, values)[0]
    return residual


def _width(values: np.ndarray) -> float:
    low, high = np.quantile(values, [0.05, 0.95])
    return float(high - low)


def _beyond(values: np.ndarray) -> np.ndarray:
    """How far outside of the 5 % to 95 % interval, 1 at the bound of outliers."""
    low, high = np.quantile(values, [0.05, 0.95])
    # Repeats of one frame have no width of their own.
    width = max(high - low, 1e-6)
    return np.maximum(values - high, low - values) / (_WIDTHS * width)


def _duplicates(s: Survey) -> Iterator[tuple[int, int, bool]]:
    """Pairs of frames with the same distances, and whether each atom is at its place.

    Candidates are frames whose fingerprints are neighbours when sorted; a frame is paired with the next
    one only, so that the number of pairs is that of the repeats.
    """
    groups: dict[bytes, list[int]] = {}
    for k in np.flatnonzero(s.usable & (s.sizes > 1)):
        groups.setdefault(np.sort(s.frames[int(k)].numbers).tobytes(), []).append(int(k))
    for members in groups.values():
        prints = s.fingerprint[members]
        prints = prints / (np.abs(prints).mean(axis=0) + 1e-12)
        order = np.argsort(prints[:, -1], kind="stable")
        spectra: dict[int, np.ndarray] = {}
        for at, first in enumerate(order):
            for second in order[at + 1 :]:
                if prints[second, -1] - prints[first, -1] > 10 * _SAME:
                    break
                if np.abs(prints[second] - prints[first]).max() > 10 * _SAME:
                    continue
                a, b = sorted((members[first], members[second]))
                if _same_distances(s, spectra, a, b):
                    moved = displacement(s.frames[a], s.frames[b])
                    yield a, b, moved is not None and bool(np.abs(_centered(moved[0])).max() < 10 * _SAME)
                    break


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


def _symbols(frame: Frame, atoms: tuple[int, int]) -> str:
    from ase.data import chemical_symbols

    return "–".join(chemical_symbols[frame.numbers[i]] for i in atoms)
