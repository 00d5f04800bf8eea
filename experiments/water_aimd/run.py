"""A network for liquid water: errors, structure and diffusion beside those of the first-principles frames.

`python experiments/water_aimd/run.py`; the README beside this file says what came out. 64 molecules with
PBE0+TS from the set of DeePMD-kit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import networks_common as common

from difmd import data, observables, units

TEMPERATURE = 330.0
PEAKS = {
    "O-O": (8, 8, ((2.4, 3.2), (3.8, 5.2))),
    "O-H": (8, 1, ((0.8, 1.2), (1.5, 2.2), (2.8, 3.8))),
    "H-H": (1, 1, ((1.3, 1.8), (2.1, 2.8))),
}
"""Atomic numbers, and where to look for peaks [Å]."""


def main() -> int:
    """Train, run, compare."""
    parser = common.parser_of(__doc__, "water_aimd", epochs=30)
    parser.add_argument("--picoseconds", type=float, default=20.0)
    return common.run(experiment, parser, picoseconds=1.0)


def experiment(arguments: argparse.Namespace) -> dict[str, Any]:
    """40 of the 320 frames are held out; the frames are not in the order of time."""
    frames = common.read("water_pbe0ts_deepmd/train.extxyz.gz")
    parts = data.apply_split(frames, data.split(frames, valid=40, seed=arguments.seed))
    fitted = common.fit(parts, arguments.out, arguments)
    run = common.dynamics(
        fitted, parts.valid[0].system, arguments, temperature=TEMPERATURE, picoseconds=arguments.picoseconds,
        femtoseconds=0.5, save_every=20, friction=0.5,
    )  # fmt: skip
    late = common.later(run, 0.2)
    systems = [run.system.replace(positions=x) for x in late.positions[::5]]
    peaks = compare([frame.system for frame in frames], systems, arguments.out / "rdf.png")
    found: dict[str, Any] = {"peaks_A": peaks}
    bonds = observables.radial_distribution(systems, first=8, second=1, r_max=1.3, n_bins=13)
    nearest = observables.radial_distribution(systems, first=8, second=8, r_max=2.0, n_bins=10)
    found["largest_shift_of_a_peak_A"] = max(abs(row["shift"]) for row in peaks)
    length = float(run.time[-1])
    if length >= 5:
        window = (1.0 * units.PS, 2.0 * units.PS)
        d = observables.diffusivity(late, window=window, n_blocks=4, species=8)
        unit = 1e-9 * units.M2_PER_S
        found["D_1e-9_m2_s"] = float(d.einstein.value / unit)
        found["D_stderr_1e-9_m2_s"] = float(d.einstein.stderr / unit)
    found |= {
        "picoseconds": length,
        "temperature_K": float(np.mean(late.temperature)),
        "H_bonded_to_O": float(bonds.coordination[-1]),
        "O_within_2_A_of_O": float(nearest.coordination[-1]),
        "is_stable": bool(
            np.isfinite(run.potential_energy).all()
            and abs(bonds.coordination[-1] - 2) < 0.02
            and nearest.coordination[-1] == 0
        ),
    }
    return {**fitted.row, "dynamics": found}


def compare(expected: list[Any], found: list[Any], path: Path) -> list[dict[str, Any]]:
    """Peaks of all pairs, and a plot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    rows = []
    for axis, (name, (first, second, ranges)) in zip(
        figure.subplots(1, len(PEAKS)), PEAKS.items(), strict=True
    ):
        both = [
            observables.radial_distribution(systems, first=first, second=second, r_max=6.0, n_bins=200)
            for systems in (expected, found)
        ]
        for label, curve in zip(("first principles", "network"), both, strict=True):
            axis.plot(curve.r, curve.g, label=label)
            axis.fill_between(
                curve.r, curve.g - 2 * curve.stderr, curve.g + 2 * curve.stderr, alpha=0.3, lw=0
            )
        axis.set(xlabel="r [Å]", ylabel=f"g(r), {name}", ylim=(0, 3.5))
        for low, high in ranges:
            places = [curve.peak(low, high) for curve in both]
            rows.append({
                "pair": name, "first_principles": places[0], "network": places[1],
                "shift": places[1] - places[0],
            })  # fmt: skip
    axis.legend(frameon=False)
    figure.savefig(path, dpi=130)
    return rows


if __name__ == "__main__":
    sys.exit(main())
