"""Networks on the sets of Zuo et al. 2020 (Ge, Li, Mo, Ni, Si, Cu), all with one set of settings.

`python experiments/mlearn/run.py` trains all of them; `--elements Ge` some, `--quick` for a few epochs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import networks_common as common

from difmd import data, units

ELEMENTS = ("Ge", "Li", "Mo", "Ni", "Si", "Cu")
WITH_TEST = ("Ge", "Li", "Mo", "Ni")

# With more, the few frames of Mo are learnt by heart: of 417 epochs, forces of validation frames get worse
# from epoch 165 on.
MOST_EPOCHS = 200

# What a step takes beyond the time for its neighbours, in neighbours.
PER_FRAME = 250

# Root mean square errors of M3GNet: energy [meV/atom], force [meV/Å].
M3GNET = {
    "Ni": (0.9, 37.4), "Cu": (1.8, 17.0), "Li": (2.5, 22.1),
    "Mo": (6.3, 193.7), "Si": (9.6, 102.8), "Ge": (9.4, 76.4),
}  # fmt: skip


def main() -> int:
    """Train and evaluate."""
    parser = common.parser_of(__doc__, "mlearn", epochs=None, channels=16, max_l=1)
    parser.add_argument("--elements", nargs="+", default=ELEMENTS, choices=ELEMENTS)
    parser.add_argument(
        "--neighbors",
        type=float,
        default=1e8,
        help="neighbours of atoms that a training sees in all, and PER_FRAME for each frame, what its time "
        "goes by; without --epochs it tells how many epochs there are",
    )
    parser.add_argument("--most-epochs", type=int, default=MOST_EPOCHS, help="without --epochs")
    return common.run(experiment, parser)


def experiment(arguments: argparse.Namespace) -> dict[str, Any]:
    """A training for each element."""
    report: dict[str, Any] = {}
    for element in arguments.elements:
        frames = common.read(f"mlearn_{element}/train.extxyz.gz")
        # Where energies and stresses contradict each other, those of training frames tell by how much.
        offset = data.stress_offset(frames)
        frames = data.correct_stress(frames, offset)
        parts = data.apply_split(frames, data.split(frames, valid=0.1, by_kind=True, seed=arguments.seed))
        if element in WITH_TEST:
            test = data.correct_stress(common.read(f"mlearn_{element}/test.extxyz.gz"), offset)
            parts = parts._replace(test=test)
        own = argparse.Namespace(**vars(arguments))
        if own.epochs is None:
            stats = data.statistics(parts.train, cutoff=own.cutoff)
            seen = sum(PER_FRAME + stats.avg_num_neighbors * frame.n_atoms for frame in parts.train)
            own.epochs = min(round(own.neighbors / seen), own.most_epochs)
        row = common.fit(parts, arguments.out / element, own).row
        mended = offset.value / units.GPA if offset.is_significant else 0.0
        report[element] = {**row, "stress_mended_GPa": round(mended, 2), "m3gnet_E_F": M3GNET[element]}
        print(element, json.dumps(report[element]), flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
