"""Data that ship with difmd can be read, and are what their descriptions say."""

import json

import numpy as np

from difmd import data, datasets


def test_methanol():
    path = datasets.methanol()
    assert path.stat().st_size <= 1_000_000
    frames = data.read(path)
    kinds = [frame.kind for frame in frames]
    assert kinds == ["300 K"] * 500 + ["600 K"] * 500
    assert all(frame.labels == ("energy", "forces", "dipole") for frame in frames)
    assert all((frame.numbers == [6, 8, 1, 1, 1, 1]).all() for frame in frames)
    forces = np.stack([frame.forces for frame in frames])
    assert np.abs(forces.sum(axis=1)).max() < 1e-3
    # 1.9 D in the vapour by experiment.
    dipoles = np.linalg.norm([frame.dipole for frame in frames], axis=1) / 0.2081943
    assert 1.5 < dipoles.mean() < 2.1
    settings = json.loads(path.with_name("methanol.json").read_text())
    assert settings["method"] == "PBE0" and settings["frames"] == 1000
