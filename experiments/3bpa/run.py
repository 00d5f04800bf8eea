"""A network for 3-(benzyloxy)pyridin-2-amine at 300 K, and what it does far from its data.

`python experiments/3bpa/run.py`; the README beside this file says what came out. Labels exist at 300 K only.
Beyond that, geometries are distorted more and more and run at 1200 K, and the network has to stay sane: no
energy below those of the data, no force that is out of all proportion, no bond broken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import networks_common as common

import difmd
from difmd import data, training
from difmd.neighbors import find_pairs

STRETCHES = (0.05, 0.1, 0.15, 0.2)
"""Standard deviations of displacements of atoms [Å]."""


def main() -> int:
    """Train, evaluate, distort, run."""
    parser = common.parser_of(__doc__, "3bpa", epochs=200, channels=32, max_l=1)
    parser.add_argument("--picoseconds", type=float, default=10.0, help="of dynamics at 1200 K")
    parser.set_defaults(zbl=True)
    return common.run(experiment, parser, picoseconds=0.5)


def experiment(arguments: argparse.Namespace) -> dict[str, Any]:
    """50 of the 500 frames are held out, and choose nothing but the epoch."""
    frames = common.read("3bpa/train_300K.extxyz.gz")
    parts = data.apply_split(frames, data.split(frames, valid=50, seed=arguments.seed))
    fitted = common.fit(parts, arguments.out, arguments)
    distorted = [distort(fitted, parts.valid, width, arguments.seed) for width in STRETCHES]
    run = common.dynamics(
        fitted, parts.valid[0].system, arguments, temperature=1200.0, picoseconds=arguments.picoseconds,
        femtoseconds=0.5, save_every=20,
    )  # fmt: skip
    lengths = bond_lengths(run)
    hot = {
        "picoseconds": float(run.time[-1]),
        "temperature_K": float(np.mean(run.temperature)),
        "bonds_longest_over_start": float(lengths.max()),
        "bonds_shortest_over_start": float(lengths.min()),
        "is_intact": bool(np.isfinite(lengths).all() and lengths.max() < 1.5 and lengths.min() > 0.6),
    }
    return {**fitted.row, "distorted": distorted, "dynamics_1200K": hot}


def distort(fitted: common.Fitted, frames: list[data.Frame], width: float, seed: int) -> dict[str, float]:
    """Energies and forces of frames whose atoms were displaced at random."""
    rng = np.random.default_rng([seed, round(1e3 * width)])
    systems = [frame.system for frame in frames]
    moved = [s.replace(positions=s.positions + width * rng.normal(size=s.positions.shape)) for s in systems]
    before, after = (evaluated(fitted, each) for each in (systems, moved))
    rises = np.array([b.energy - a.energy for a, b in zip(before, after, strict=True)])
    forces = [np.linalg.norm(found.forces, axis=1).max() for found in after]
    # Springs would store ½ k w² in each of the 3N displacements, with the same k for all w.
    return {
        "width_A": width,
        "energy_rise_min_eV": float(np.min(rises)),
        "energy_rise_mean_eV": float(np.mean(rises)),
        "energy_rise_mean_over_3N_half_w2_eV_A2": float(
            np.mean(rises) / (1.5 * frames[0].n_atoms * width**2)
        ),
        "force_max_eV_A": float(np.max(forces)),
    }


def evaluated(fitted: common.Fitted, systems: list[difmd.System]) -> list[Any]:
    """Energy and forces of each, with one compiled function."""
    frames = [data.Frame(system=system) for system in systems]
    batches = data.make_batches(frames, cutoff=fitted.network.cutoff, batch_size=len(frames), max_shapes=1)
    (batch,) = batches
    found = jax.device_get(jax.jit(training.predict, static_argnums=0)(fitted.network, fitted.params, batch))
    rows = np.argsort(batch.frames)
    return [jax.tree.map(lambda x, k=k: x[k], found) for k in rows]


def bond_lengths(run: difmd.Trajectory) -> np.ndarray:
    """Of the bonds that there are at the start, over their first lengths; [frames, bonds]."""
    first = run.positions[0].astype(float)
    i, j, _, d = find_pairs(first, np.zeros((3, 3)), [False] * 3, 1.9)
    numbers = np.asarray(run.system.atomic_numbers)
    has_hydrogen = (numbers[i] == 1) | (numbers[j] == 1)
    bonded = (i < j) & (d < np.where(has_hydrogen, 1.3, 1.75))
    apart = run.positions[:, i[bonded]] - run.positions[:, j[bonded]]
    return np.linalg.norm(apart, axis=-1) / d[bonded]


if __name__ == "__main__":
    sys.exit(main())
