"""Does equivariance pay? Errors of forces on ethanol against the number of training frames, for l = 0, 1, 2.

`python experiments/ethanol_degrees/run.py`. Ethanol with PBE/def2-SVP from the sets of Batatia et al.; the
README beside this file says what came out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import networks_common as common

from difmd import data

SIZES = (50, 200, 800)
DEGREES = (0, 1, 2)


def main() -> int:
    """Nine trainings, and what becomes of the errors."""
    parser = common.parser_of(__doc__, "ethanol_degrees", epochs=80, channels=16, cutoff=4.0, batch_size=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="training frames")
    parser.add_argument("--degrees", type=int, nargs="+", default=DEGREES, help="of harmonics and messages")
    return common.run(curve, parser)


def curve(arguments: argparse.Namespace) -> dict[str, Any]:
    """A network for each size and degree; small sets are seen as often as large ones."""
    frames = common.read("ethanol_botnet/train.extxyz.gz")
    test = common.read("ethanol_botnet/test_MD.extxyz.gz")
    order = np.random.default_rng(arguments.seed).permutation(len(frames))
    held_out = [frames[k] for k in order[-100:]]
    rows = []
    largest = max(arguments.sizes)
    for size in arguments.sizes:
        for degree in arguments.degrees:
            own = argparse.Namespace(**vars(arguments))
            own.max_l = own.max_ell = degree
            # As many steps for every size, so that a small set is not one that was trained less.
            own.epochs = round(arguments.epochs * largest / size)
            train = [frames[k] for k in order[:size]]
            parts = data.Parts(train, held_out, test)
            fitted = common.fit(parts, arguments.out / f"{size}_{degree}", own)
            rows.append({"n_frames": size, "degree": degree, **fitted.row})
            print(json.dumps(rows[-1]), flush=True)
    found = {(row["n_frames"], row["degree"]): row["F_mae_meV_A"] for row in rows}
    plot(arguments.out / "curve.png", found)
    ratios = {
        f"l = 0 over l = {l}, {size} frames": found[size, 0] / found[size, l]
        for size in arguments.sizes
        for l in arguments.degrees  # noqa: E741
        if l and (size, 0) in found
    }
    return {"rows": rows, "ratios_of_force_MAE": ratios}


def plot(path: Path, found: dict[tuple[int, int], float]) -> None:
    """Both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axis = figure.subplots()
    for degree in sorted({degree for _, degree in found}):
        sizes = sorted(size for size, d in found if d == degree)
        axis.loglog(sizes, [found[size, degree] for size in sizes], "o-", label=f"l = {degree}")
    axis.set(xlabel="training frames", ylabel="MAE of forces [meV/Å]")
    low, high = axis.get_ylim()
    axis.set_yticks(ticks := [t for t in (10, 20, 30, 50, 70, 100, 150) if low < t < high], labels=ticks)
    axis.set_xticks(sizes := sorted({size for size, _ in found}), labels=sizes)
    axis.minorticks_off()
    axis.legend(frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    sys.exit(main())
