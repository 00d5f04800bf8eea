"""Checks of individual frames: labels, finite values, close atoms, net forces."""

from __future__ import annotations

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.survey import COLLIDING, Survey
from difmd.data.frames import LABELS, Frame, is_isolated_atom

# Closest pair over the sum of covalent radii: 1.2 in H2, down to 0.78 in hot water with quantum nuclei.
_CLOSE = 0.6

# Nearest neighbours are typically at 0.85 to 1.3 sums of radii; bohr read as Å give 1.6 to 2.4.
_FAR = 1.6
_NOBLE = (2, 10, 18, 36, 54, 86)

# Net force over the rms force component times √atoms: the relative error of forces with random errors.
_NET = 0.02


def check_labels(s: Survey) -> Finding:
    """Report the labels and the numbers of frames with them."""
    counts = {name: sum(getattr(frame, name) is not None for frame in s.frames) for name in LABELS}
    present = {name: count for name, count in counts.items() if count}
    summary = ", ".join(f"{name} {count}" for name, count in present.items()) + f" of {len(s.frames)} frames"
    if not present:
        return Finding("labels", Verdict.WRONG, "no frame has a label", "name them with Keys(...) in read")
    others = [i for i in range(len(s.frames)) if not is_isolated_atom(s.frames[i])]
    without = {
        name: [i for i in others if getattr(s.frames[i], name) is None]
        for name in present
        if name != "stress"
    }
    lacking = {name: indices for name, indices in without.items() if 0 < len(indices) < len(others)}
    if lacking:
        name, indices = max(lacking.items(), key=lambda entry: len(entry[1]))
        return Finding(
            "labels",
            Verdict.DOUBTFUL,
            f"{summary}; no {name} in {name_frames(s.frames, indices)}",
            "train on the existing labels, or check whether they have another name in these frames",
            tuple(indices),
        )
    return Finding("labels", Verdict.OK, summary)


def check_finite(s: Survey) -> Finding:
    """Report values that are not finite, and labels of a wrong shape."""
    if not s.faults:
        return Finding("finite values", Verdict.OK, "all positions and labels are finite")
    first, why = next(iter(s.faults.items()))
    return Finding(
        "finite values",
        Verdict.WRONG,
        f"{len(s.faults)} frames are unusable: {name_frames(s.frames, [first])}: {why}"
        + (f"; also {name_frames(s.frames, list(s.faults)[1:])}" if len(s.faults) > 1 else ""),
        "remove these frames; the calculation failed or was not written correctly",
        tuple(s.faults),
    )


def check_close_atoms(s: Survey) -> Finding:
    """Compare distances with the sums of covalent radii, also to detect positions in bohr."""
    ratio = s.closest[:, 3]
    if not np.isfinite(ratio).any():
        return Finding("close atoms", Verdict.OK, "no two atoms are close to each other")
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
            f"nearest neighbours are typically {typical:.2f} sums of covalent radii apart",
            "check whether the positions are in bohr: read with Units(length='Bohr')",
        )
    return Finding("close atoms", Verdict.OK, summary)


def check_net_forces(s: Survey) -> Finding:
    """Report net forces, and torques on molecules, which should vanish."""
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
        # Near a minimum all forces of a frame are small and their ratio is meaningless.
        unit = max(s.force_rms[k], 0.3 * typical, 1e-3 * largest)
        absolute[k] = np.linalg.norm(frame.forces.sum(axis=0))
        net[k] = absolute[k] / (unit * np.sqrt(frame.n_atoms))
        if not frame.pbc.any():
            arm = frame.positions - frame.positions.mean(axis=0)
            torque_norm = np.linalg.norm(np.cross(arm, frame.forces).sum(axis=0))
            torque[k] = torque_norm / (unit * np.sqrt(np.sum(arm**2)))
    bad = np.flatnonzero(np.maximum(net, torque) > _NET)
    worst = int(np.argmax(net))
    summary = (
        f"largest: {absolute[worst]:.2g} eV/Å ({100 * net[worst]:.2g} % of rms force × √atoms), "
        f"{name_frames(s.frames, [worst])}"
    )
    if not len(bad):
        return Finding("net forces", Verdict.OK, summary)
    with_torque = f"; torque up to {100 * torque.max():.2g} %" if torque.max() > _NET else ""
    return Finding(
        "net forces",
        Verdict.DOUBTFUL,
        f"{summary}{with_torque}; {len(bad)} frames above {100 * _NET:.0f} %",
        "the forces have errors of about this size: converge the calculations, subtract the mean force, or "
        "ignore this for fixed atoms or an external field",
        tuple(bad[np.argsort(-np.maximum(net, torque)[bad])]),
    )


def _symbols(frame: Frame, atoms: tuple[int, int]) -> str:
    from ase.data import chemical_symbols

    return "–".join(chemical_symbols[frame.numbers[i]] for i in atoms)
