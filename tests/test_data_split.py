"""Splits: deterministic, in blocks, saved with a hash of their frames."""

import json

import numpy as np
import pytest

from difmd.data import Frame, apply_split, hash_frames, is_isolated_atom, load_split, save_split, split
from difmd.errors import InputError
from difmd.system import host_system


def make(n, kinds=("",), isolated=0):
    rng = np.random.default_rng(3)
    frames = []
    for i in range(n):
        system = host_system([[0, 0, 0], [0, 0, 1.1]] + rng.normal(0, 0.05, (2, 3)), [6, 8])
        frames.append(
            Frame(system=system, energy=float(i), kind=kinds[i % len(kinds)], source=f"a.xyz, frame {i}")
        )
    for _ in range(isolated):
        frames.append(Frame(system=host_system(np.zeros((1, 3)), [6]), energy=-1.0, source="b.xyz, frame 0"))
    return frames


def sizes(chosen):
    return [len(part) for part in chosen[:3]]


def test_fractions_counts_and_determinism():
    frames = make(100)
    chosen = split(frames, valid=0.2, test=0.1, seed=5)
    assert sizes(chosen) == [70, 20, 10]
    assert sizes(split(frames, valid=7, test=3, seed=5)) == [90, 7, 3]
    np.testing.assert_array_equal(np.sort(np.concatenate(chosen[:3])), np.arange(100))
    again, other = split(frames, valid=0.2, test=0.1, seed=5), split(frames, valid=0.2, test=0.1, seed=6)
    np.testing.assert_array_equal(chosen.valid, again.valid)
    assert not np.array_equal(chosen.valid, other.valid)
    parts = apply_split(frames, chosen)
    assert [frame.energy for frame in parts.valid] == list(chosen.valid)


def test_blocks_stay_together():
    frames = make(100)
    chosen = split(frames, valid=0.2, test=0.2, block=10, seed=0)
    assert sizes(chosen) == [60, 20, 20]
    for part in chosen[:3]:
        assert all(len(set(part) & set(range(b, b + 10))) in (0, 10) for b in range(0, 100, 10))
    # Counts are met to within half a block.
    assert sizes(split(frames, valid=14, block=10, seed=0))[1] == 10


def test_kinds_are_drawn_in_proportion():
    frames = make(90, kinds=("a", "b", "b"))
    chosen = split(frames, valid=0.2, by_kind=True, seed=1)
    kinds = [frames[i].kind for i in chosen.valid]
    assert (kinds.count("a"), kinds.count("b")) == (6, 12)


def test_isolated_atoms_stay_in_training():
    frames = make(4, isolated=6)
    for seed in range(20):
        chosen = split(frames, valid=3, seed=seed)
        assert set(range(4, 10)) <= set(chosen.train)
    crystal = Frame(
        system=host_system(np.zeros((1, 3)), [26], cell=[[0, 1.4, 1.4], [1.4, 0, 1.4], [1.4, 1.4, 0]])
    )
    assert is_isolated_atom(frames[-1]) and not is_isolated_atom(crystal)
    assert is_isolated_atom(Frame(system=host_system(np.zeros((1, 3)), [26], cell=[12.0] * 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": 10}, r"valid = 10 and test = 0 leave none of 10 frames for training"),
        ({"valid": 0.5, "test": 0.5}, "leave none of 10 frames"),
        ({"valid": -1}, "valid = -1 must be a count"),
        ({"valid": 1.5}, "valid = 1.5 must be a count"),
        ({"valid": 1, "test": float("nan")}, "test = nan must be"),
        ({"valid": 1, "block": 0}, "block = 0 must be at least 1"),
        ({"valid": 1, "block": 5}, "a block has 5 frames, but 1 are requested"),
        ({"valid": 2, "by_kind": True}, "give a fraction below 1 with by_kind"),
        ({"valid": 9, "block": 5}, "leave none of 10 for training"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        split(make(10), seed=0, **options)


def test_empty_list_is_refused():
    with pytest.raises(InputError, match="no frames to split"):
        split([], valid=1, seed=0)


def test_split_is_saved_with_a_hash(tmp_path):
    frames = make(20, isolated=1)
    chosen = split(frames, valid=4, test=2, seed=9)
    path = tmp_path / "new" / "split.json"
    save_split(path, chosen, frames)
    content = json.loads(path.read_text())
    assert content["files"] == ["a.xyz", "b.xyz"] and content["seed"] == 9
    back = load_split(path, frames)
    for part, other in zip(chosen, back, strict=True):
        np.testing.assert_array_equal(part, other)
    with pytest.raises(InputError, match=r"splits 21 frames of a.xyz, b.xyz, but 20 are given"):
        load_split(path, frames[:-1])
    with pytest.raises(InputError, match="splits other frames, of a.xyz, b.xyz: their hash differs"):
        load_split(path, frames[::-1])
    with pytest.raises(InputError, match="the split holds 21 indices up to 20, but there are 5"):
        apply_split(frames[:5], chosen)
    with pytest.raises(InputError, match="no file .*other.json: write one with save_split"):
        load_split(tmp_path / "other.json", frames)
    path.write_text('{"format": 2}')
    with pytest.raises(InputError, match="not a split written by save_split"):
        load_split(path, frames)


def test_hash_depends_on_every_number():
    (frame,) = make(1)
    system = frame.system
    changed = [
        frame.replace(energy=0.5),
        frame.replace(energy=None),
        frame.replace(forces=np.zeros((2, 3))),
        frame.replace(system=system.replace(positions=system.positions + 1e-15)),
        frame.replace(system=system.replace(atomic_numbers=np.array([6, 7], np.int32))),
    ]
    assert len({hash_frames([other]) for other in [frame, *changed]}) == 6
    assert hash_frames([frame.replace(source="elsewhere")]) == hash_frames([frame])
