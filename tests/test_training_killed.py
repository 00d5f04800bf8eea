"""A training killed at random moments and resumed gives the same result."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
import jax
import numpy as np
from difmd import data, datasets, potentials, training

folder, out = sys.argv[1:]
frames = data.read(datasets.methanol())[::20]
parts = data.apply_split(frames, data.split(frames, valid=0.2, seed=0))
stats = data.statistics(parts.train, cutoff=3.0)
network = potentials.invariant(
    stats.species, cutoff=3.0, scale=stats.scale, avg_num_neighbors=stats.avg_num_neighbors
)
result = training.train(
    network, parts.train, valid=parts.valid, references=stats.references, folder=folder, progress=False,
    recipe=training.Recipe(n_epochs=150, batch_size=4),
)
leaves = [*jax.tree.leaves(result.params), *jax.tree.leaves(result.last_params)]
np.savez(out, *leaves, valid=[entry["valid_loss"] for entry in result.history])
"""


def start(folder, out):
    environment = {**os.environ, "DIFMD_CACHE": "off"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), str(out)], env=environment)


@pytest.mark.slow
def test_training_killed_three_times_gives_the_same_result(tmp_path):
    assert start(tmp_path / "uninterrupted", tmp_path / "uninterrupted.npz").wait() == 0
    rng = np.random.default_rng(0)
    folder, n_killed = tmp_path / "killed", 0
    while n_killed < 3:
        process = start(folder, tmp_path / "killed.npz")
        before = newest(folder)
        while newest(folder) == before and process.poll() is None:
            time.sleep(0.01)
        # Also while a file is being written.
        time.sleep(rng.uniform(0, 1.0))
        assert process.poll() is None, "the training ended before it was killed: make it longer"
        process.send_signal(signal.SIGKILL)
        process.wait()
        n_killed += 1
    assert start(folder, tmp_path / "killed.npz").wait() == 0
    with np.load(tmp_path / "uninterrupted.npz") as expected, np.load(tmp_path / "killed.npz") as resumed:
        assert set(expected) == set(resumed)
        for name in expected:
            np.testing.assert_array_equal(resumed[name], expected[name])


def newest(folder: Path) -> float:
    """Time of the last change in the folder."""
    try:
        return max((path.stat().st_mtime_ns for path in folder.iterdir()), default=0.0)
    except FileNotFoundError:
        return 0.0
