"""Checks of individual frames: labels, finite values, cells, close atoms, net forces."""

from __future__ import annotations

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.geometry import covalent_radii, find_pairs_once
from difmd.data.examination.survey import BONDED, COLLIDING, Survey
from difmd.data.frames import LABELS, Frame, is_isolated_atom
from difmd.potentials.species import symbols

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
    names = [name for name in present if name != "stress"]
    without = {name: [i for i in others if getattr(s.frames[i], name) is None] for name in names}
    lacking = {name: indices for name, indices in without.items() if 0 < len(indices) < len(others)}
    if lacking:
        name, indices = max(lacking.items(), key=lambda entry: len(entry[1]))
        summary += f"; no {name} in {name_frames(s.frames, indices)}"
        remedy = "train on the existing labels, or check whether they have another name in these frames"
        return Finding("labels", Verdict.DOUBTFUL, summary, remedy, tuple(indices))
    return Finding("labels", Verdict.OK, summary)


def check_finite(s: Survey) -> Finding:
    """Report values that are not finite, and labels of a wrong shape."""
    if not s.faults:
        return Finding("finite values", Verdict.OK, "all positions and labels are finite")
    first, why = next(iter(s.faults.items()))
    text = f"{len(s.faults)} frames are unusable: {name_frames(s.frames, [first])}: {why}"
    text += f"; also {name_frames(s.frames, list(s.faults)[1:])}" if len(s.faults) > 1 else ""
    remedy = "remove these frames; the calculation failed or was not written correctly"
    return Finding("finite values", Verdict.WRONG, text, remedy, tuple(s.faults))


def check_cells(s: Survey) -> Finding:
    """Report cells that are too small, and frames that look periodic but have no periodic directions."""
    item = "cells"
    too_small, missing_pbc, vacuum = [], [], []
    counts = {"periodic": 0, "partly periodic": 0, "not periodic": 0}
    for k, frame in enumerate(s.frames):
        if not s.usable[k]:
            continue
        pbc = frame.pbc
        counts["periodic" if pbc.all() else "partly periodic" if pbc.any() else "not periodic"] += 1
        if pbc.any():
            # The distance of an atom to its images is at least that of the lattice planes.
            planes = 1 / np.linalg.norm(np.linalg.pinv(frame.cell[pbc]), axis=0)
            if planes.min() < 1.0:
                too_small.append(k)
            filled = np.sum(4 / 3 * np.pi * covalent_radii(frame.numbers) ** 3)
            if pbc.all() and frame.n_atoms > 1 and filled < 0.02 * abs(np.linalg.det(frame.cell)):
                vacuum.append(k)
        elif np.linalg.norm(frame.cell, axis=1).min() > 0 and frame.n_atoms > 1:
            full = frame.replace(system=frame.system.replace(pbc=np.ones(3, bool)))
            if abs(np.linalg.det(frame.cell)) > 1e-3 and _bonds(full) > _bonds(frame):
                missing_pbc.append(k)
    summary = ", ".join(f"{count} frames {name}" for name, count in counts.items() if count)
    if too_small:
        summary += f"; lattice planes less than 1 Å apart in {name_frames(s.frames, too_small)}"
        return Finding(item, Verdict.WRONG, summary, "check the unit of the cell", tuple(too_small))
    if missing_pbc:
        summary += f"; {len(missing_pbc)} are not periodic, but atoms are bonded across faces of the cell: "
        summary += name_frames(s.frames, missing_pbc)
        remedy = "set pbc=True for crystals and liquids"
        return Finding(item, Verdict.DOUBTFUL, summary, remedy, tuple(missing_pbc))
    if vacuum:
        summary += f"; {len(vacuum)} are mostly vacuum, such as boxes around molecules"
    return Finding(item, Verdict.OK, summary)


def check_close_atoms(s: Survey) -> Finding:
    """Compare distances with the sums of covalent radii, also to detect positions in bohr."""
    ratio = s.closest[:, 3]
    item = "close atoms"
    if not np.isfinite(ratio).any():
        return Finding(item, Verdict.OK, "no two atoms are close to each other")
    worst = int(np.nanargmin(ratio))
    i, j, distance, r = s.closest[worst]
    names = "–".join(symbols(s.frames[worst].numbers[[int(i), int(j)]].tolist()))
    pair = f"atoms {int(i)} and {int(j)} ({names}) of {name_frames(s.frames, [worst])}, {distance:.3f} Å"
    summary = f"closest: {pair}, {r:.2f} of the sum of covalent radii"
    below = np.flatnonzero(ratio < _CLOSE)
    if r < _CLOSE:
        verdict = Verdict.WRONG if r < COLLIDING else Verdict.DOUBTFUL
        summary += f"; {len(below)} frames are below {_CLOSE}"
        remedy = "remove these frames, or check the unit of the positions, the cell and pbc"
        return Finding(item, verdict, summary, remedy, tuple(below[np.argsort(ratio[below])]))
    bonded = [k for k, f in enumerate(s.frames) if s.usable[k] and not np.isin(f.numbers, _NOBLE).any()]
    typical = np.median(s.nearest[bonded][np.isfinite(s.nearest[bonded])]) if bonded else np.nan
    if typical > _FAR:
        text = f"nearest neighbours are typically {typical:.2f} sums of covalent radii apart"
        remedy = "check whether the positions are in bohr: read with Units(length='Bohr')"
        return Finding(item, Verdict.DOUBTFUL, text, remedy)
    return Finding(item, Verdict.OK, summary)


def check_net_forces(s: Survey) -> Finding:
    """Report net forces, and torques on molecules, which should vanish."""
    item = "net forces"
    if not np.isfinite(s.force_rms).any():
        return Finding(item, Verdict.UNKNOWN, "there are no forces")
    typical, largest = np.nanmedian(s.force_rms), float(np.nanmax(s.force_rms))
    if largest == 0:
        return Finding(item, Verdict.UNKNOWN, "all forces are zero")
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
        return Finding(item, Verdict.OK, summary)
    summary += f"; torque up to {100 * torque.max():.2g} %" if torque.max() > _NET else ""
    summary += f"; {len(bad)} frames above {100 * _NET:.0f} %"
    remedy = (
        "the forces have errors of about this size: converge the calculations, subtract the mean force, or "
        "ignore this for fixed atoms or an external field"
    )
    frames = tuple(bad[np.argsort(-np.maximum(net, torque)[bad])])
    return Finding(item, Verdict.DOUBTFUL, summary, remedy, frames)


def _bonds(frame: Frame) -> int:
    radii = covalent_radii(frame.numbers)
    pairs = find_pairs_once(frame, BONDED * 2 * float(radii.max()))
    return int(np.sum(pairs.distances < BONDED * (radii[pairs.i] + radii[pairs.j])))
