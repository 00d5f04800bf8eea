"""Streams of batches, selection of parameters by name, and the table of validations."""

import jax
import numpy as np
import pytest

from difmd.data import Frame, make_batches
from difmd.errors import InputError
from difmd.potentials import mace, morse
from difmd.system import host_system
from difmd.training import all_but, only
from difmd.training.selection import is_not_scale, mask_of
from difmd.training.stream import stream
from difmd.training.table import Table, duration, milli

CUTOFF = 3.0
NEW, OLD = 10, 7


@pytest.fixture(scope="module")
def data():
    """17 frames of two shapes."""
    rng = np.random.default_rng(0)
    sizes = [(4, 8, 8)[k % 3] for k in range(NEW + OLD)]
    systems = [host_system(rng.uniform(0, 6, (n, 3)), [18] * n, cell=[6.0] * 3) for n in sizes]
    labelled = [Frame(system=system, energy=0.0) for system in systems]
    batches = make_batches(labelled, cutoff=CUTOFF, batch_size=4, max_shapes=2)
    assert len(batches.shapes) == 2
    return batches


def seen(stream, number, member=0):
    """Places of the frames of an epoch."""
    indices = []
    for selections in stream.epoch(number):
        b, rows = selections[member]
        indices += stream.data.places[b][rows].tolist()
    return indices


def test_epoch_without_replay_is_that_of_the_data(data):
    plain = stream(data, NEW + OLD, seed=3)
    for number in range(2):
        for selections, (b, rows) in zip(plain.epoch(number), data.epoch(3, number), strict=True):
            assert selections[0][0] == b
            np.testing.assert_array_equal(selections[0][1], rows)
    assert len(plain) == len(data) == len(plain.epoch(0))


def test_epoch_has_all_new_frames_and_the_fraction_of_old_ones(data):
    mixed = stream(data, NEW, seed=3, replay_fraction=2 / 7)
    replayed = []
    for number in range(7):
        indices = seen(mixed, number)
        assert sorted(place for place in indices if place < NEW) == list(range(NEW))
        old = [place for place in indices if place >= NEW]
        assert len(old) == 4 and len(mixed.epoch(number)) == len(mixed)
        replayed += old
        assert seen(stream(data, NEW, seed=3, replay_fraction=2 / 7), number) == indices
    # 28 frames of 7: within a shape the counts differ by at most one.
    for places in data.places:
        counts = [replayed.count(place) for place in places if place >= NEW]
        assert max(counts) - min(counts) <= 1
    assert seen(mixed, 0) != seen(mixed, 1)
    # If an epoch has more replayed frames than there are, they repeat.
    many = seen(stream(data, NEW, seed=3, replay_fraction=0.9), 0)
    assert len(many) == 100 and {place for place in many if place >= NEW} == set(range(NEW, NEW + OLD))


def test_members_differ_in_order_and_samples(data):
    three = stream(data, NEW, seed=3, replay_fraction=0.3, n_members=3, bootstrap=True)
    for number in range(2):
        for selections in three.epoch(number):
            assert len({b for b, _ in selections}) == 1
    samples = [sorted(p for p in seen(three, 0, k) if p < NEW) for k in range(3)]
    assert len({tuple(s) for s in samples}) == 3
    # The sample of a member stays the same and repeats some frames.
    assert samples == [sorted(p for p in seen(three, 1, k) if p < NEW) for k in range(3)]
    assert all(len(s) == NEW and len(set(s)) < NEW for s in samples)
    batch = three.batch(three.epoch(0)[0])
    assert batch.system.positions.ndim == 4 and batch.system.positions.shape[:2] == (3, 4)


def test_parameters_are_selected_by_name():
    potential = mace(["Ar"], cutoff=CUTOFF, n_features=2, l_max=1, radial_hidden=(4,), correlation=2)
    pair = morse(["Ar"], depth=0.1, width=1.0, distance=3.0, cutoff=CUTOFF)
    params = jax.eval_shape((potential + pair).init, jax.random.key(0))

    def trained(choice):
        mask = mask_of(params, choice)
        return {jax.tree_util.keystr(p) for p, m in jax.tree_util.tree_leaves_with_path(mask) if m}

    everything = trained(is_not_scale)
    assert not any("'scale'" in name or "'shift'" in name for name in everything)
    radial = trained(only("Radial"))
    assert radial and all("RadialNetwork" in name for name in radial)
    assert trained(all_but("radial")) == everything - radial
    assert trained(only("scale")) == {"[0]['scale']"}
    # A number is a term of the sum, and not part of a name.
    assert trained(only("1")) == {name for name in everything if name.startswith("[1]")}
    with pytest.raises(InputError, match="no parameter has the name 'radail'; there are 0/network/"):
        mask_of(params, all_but("radail"))
    with pytest.raises(InputError, match="nothing to train"):
        mask_of(params, all_but("0", "1"))
    with pytest.raises(InputError, match="at least one name"):
        only()


def test_table_is_thinned_out_and_repeats_its_header(capsys):
    def entry(epoch):
        return {
            "epoch": epoch, "seconds": 3600.0 + epoch, "train_loss": 0.1, "energy_rmse": 0.0123,
            "forces_rmse": 0.4, "learning_rate": 1e-3,
        }  # fmt: skip

    for n_epochs, every in ((20, 1), (1000, 1), (1234, 5)):
        table = Table(n_epochs, every)
        for epoch in range(every - 1, n_epochs, every):
            is_last = epoch + every >= n_epochs
            table.show([entry(epoch), entry(epoch)], is_best=epoch == 4, eta=60.0, is_last=is_last)
        lines = capsys.readouterr().out.splitlines()
        shown = [line for line in lines if line[:6].strip().isdigit()]
        assert len(shown) == 20 if n_epochs == 20 else 95 <= len(shown) <= 101
        headers = sum("train loss" in line for line in lines)
        assert headers == -(-len(shown) // 25)
        assert int(shown[-1][:6]) == n_epochs // every * every
        assert all(len(line) < 80 for line in lines)
        if n_epochs == 20:
            assert [line.endswith("*") for line in shown].index(True) == 4
            assert shown[0].split() == ["1", "1:00:00", "0:01:00", "1.000e-01", "12.30", "400.0", "1.0e-03"]
    assert duration(float("nan")) == milli(float("nan")) == "–"
    unlabelled = {**entry(0), "energy_rmse": float("nan")}
    Table(10, 1).show([unlabelled], is_best=False, eta=float("nan"), is_last=False)
    assert capsys.readouterr().out.splitlines()[-1].split()[2:5] == ["–", "1.000e-01", "–"]
    silent = Table(10, 1, enabled=False)
    silent.show([entry(0)], is_best=True, eta=0.0, is_last=False)
    assert capsys.readouterr().out == ""
