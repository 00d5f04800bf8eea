"""Check of cells and periodic directions."""

from __future__ import annotations

import numpy as np

from difmd.data.examination.findings import Finding, Verdict, name_frames
from difmd.data.examination.geometry import covalent_radii, find_pairs_once
from difmd.data.examination.survey import BONDED, Survey
from difmd.data.frames import Frame

ITEM = "cells"


def check_cells(s: Survey) -> Finding:
    """Report cells that are too small, and frames that look periodic but have no periodic directions."""
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
            if pbc.all() and frame.n_atoms > 1 and _fill(frame.numbers, frame.volume) < 0.02:
                vacuum.append(k)
        elif np.linalg.norm(frame.cell, axis=1).min() > 0 and frame.n_atoms > 1:
            full = frame.replace(system=frame.system.replace(pbc=np.ones(3, bool)))
            if abs(np.linalg.det(frame.cell)) > 1e-3 and _bonds(full) > _bonds(frame):
                missing_pbc.append(k)
    summary = ", ".join(f"{count} frames {name}" for name, count in counts.items() if count)
    if too_small:
        summary += f"; lattice planes less than 1 Å apart in {name_frames(s.frames, too_small)}"
        return Finding(ITEM, Verdict.WRONG, summary, "check the unit of the cell", tuple(too_small))
    if missing_pbc:
        summary += f"; {len(missing_pbc)} are not periodic, but atoms are bonded across faces of the cell: "
        summary += name_frames(s.frames, missing_pbc)
        remedy = "set pbc=True for crystals and liquids"
        return Finding(ITEM, Verdict.DOUBTFUL, summary, remedy, tuple(missing_pbc))
    if vacuum:
        summary += f"; {len(vacuum)} are mostly vacuum, such as boxes around molecules"
    return Finding(ITEM, Verdict.OK, summary)


def _fill(numbers: np.ndarray, volume: float | None) -> float:
    """Fraction of the volume within the covalent radii."""
    assert volume is not None
    return float(np.sum(4 / 3 * np.pi * covalent_radii(numbers) ** 3) / volume)


def _bonds(frame: Frame) -> int:
    radii = covalent_radii(frame.numbers)
    pairs = find_pairs_once(frame, BONDED * 2 * float(radii.max()))
    return int(np.sum(pairs.distances < BONDED * (radii[pairs.i] + radii[pairs.j])))
