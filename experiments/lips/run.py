"""A network for the lithium conductor Li6.75P3S11 at 520 K: errors from 100 and 500 frames, and diffusion.

`python experiments/lips/run.py`; the README beside this file says what came out. 50 ps of dynamics with the
network of 500 frames give the diffusivity of lithium beside that of the first-principles dynamics.
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

TEMPERATURE = 520.0
D_AIMD = 1.37e-5
"""Of lithium in the dynamics that the frames are from [cm²/s]; Batzner et al. 2022."""


def main() -> int:
    """Two trainings, and dynamics."""
    parser = common.parser_of(__doc__, "lips", epochs=60, channels=64, max_l=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500], help="training frames")
    parser.add_argument("--picoseconds", type=float, default=50.0)
    return common.run(experiment, parser, picoseconds=2.0)


def experiment(arguments: argparse.Namespace) -> dict[str, Any]:
    """The validation frames are those that the data come with."""
    frames = common.read("lips_nequip/train.extxyz.gz")
    valid = common.read("lips_nequip/valid.extxyz.gz")
    order = np.random.default_rng(arguments.seed).permutation(len(frames))
    report: dict[str, Any] = {}
    for size in arguments.sizes:
        own = argparse.Namespace(**vars(arguments))
        # A small set is seen more often.
        own.epochs = round(arguments.epochs * min(max(arguments.sizes) / size, 2))
        parts = data.Parts([frames[k] for k in order[:size]], valid, [])
        fitted = common.fit(parts, arguments.out / f"{size}_frames", own)
        report[f"{size}_frames"] = fitted.row
    run = common.dynamics(
        fitted, valid[0].system, arguments, temperature=TEMPERATURE, picoseconds=arguments.picoseconds,
        femtoseconds=2.0, save_every=10, friction=0.1,
    )  # fmt: skip
    return {**report, "dynamics": conduction(run)}


def conduction(run: Any) -> dict[str, Any]:
    """Diffusivity of lithium, and whether phosphorus and sulphur stay bonded."""
    length = float(run.time[-1])
    late = common.later(run, 0.1)
    window = (0.04 * length * units.PS, 0.1 * length * units.PS)
    found = observables.diffusivity(late, window=window, n_blocks=4, species=3)
    unit = units.M2_PER_S * 1e-4
    systems = [run.system.replace(positions=x) for x in run.positions[:: max(len(run.positions) // 100, 1)]]
    bonds = observables.radial_distribution(systems, first=15, second=16, r_max=6.0)
    at = int(np.searchsorted(bonds.r, 2.6))
    first = observables.radial_distribution(systems[:1], first=15, second=16, r_max=6.0)
    return {
        "picoseconds": length,
        "temperature_K": float(np.mean(late.temperature)),
        "D_Li_cm2_s": float(found.einstein.value / unit),
        "D_Li_stderr_cm2_s": float(found.einstein.stderr / unit),
        "D_Li_AIMD_cm2_s": D_AIMD,
        "window_ps": [w / units.PS for w in window],
        "PS_neighbors_start": float(first.coordination[at]),
        "PS_neighbors_mean": float(bonds.coordination[at]),
        "PS_bond_A": bonds.peak(1.6, 2.6),
        "is_intact": bool(
            np.isfinite(run.positions).all() and abs(bonds.coordination[at] - first.coordination[at]) < 0.3
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
