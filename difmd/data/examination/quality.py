"""Checks of single frames: labels, finite values, close atoms, net forces."""

from __future__ import annotations

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.survey import COLLIDING, Survey
from difmd.data.frames import LABELS, Frame, is_isolated_atom

# Closest pair over the sum of covalent radii. H2 has 1.2; hot water with quantum nuclei comes to 0.78.
_CLOSE = 0.6

# Nearest neighbours are usually 0.85 to 1.3 sums of radii apart; in bohr taken for Å it would be 1.6 to 2.4.
_FAR = 1.6
_NOBLE = (2, 10, 18, 36, 54, 86)

# Net force over the rms force component times √atoms: the relative error of forces with errors at random.
_NET = 0.02


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
            Verdict.WRONG if r < COLLIDING else Verdict.DOUBTFUL,
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
    largest = float(np.nanmax(s.force_rms))
    if largest == 0:
        return Finding("net forces", Verdict.UNKNOWN, "all forces are zero")
    net, absolute, torque = (np.zeros(len(s.frames)) for _ in range(3))
    for k, frame in enumerate(s.frames):
        if not s.usable[k] or frame.forces is None or frame.n_atoms == 1:
            continue
        # Near a minimum the forces of a frame are all small, and so is the meaning of their ratio.
        unit = max(s.force_rms[k], 0.3 * typical, 1e-3 * largest)
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


def _symbols(frame: Frame, atoms: tuple[int, int]) -> str:
    from ase.data import chemical_symbols

    return "–".join(chemical_symbols[frame.numbers[i]] for i in atoms)
