"""Functions of training outside jit refuse species, params and lists of something else."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import CUTOFF, START, TRAIN, VALID

from difmd.data import make_batches, nearest_distances, reference_energies, statistics
from difmd.errors import InputError
from difmd.forces import Evaluation
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, morse
from difmd.system import make_system, to_ase
from difmd.training import (
    TrainingResult,
    Weights,
    consensus,
    loss,
    loss_and_gradient,
    predict,
    report,
    residuals,
    train,
    train_committee,
)

PARAMS = START.init(jax.random.key(0))
COMMITTEE = jax.tree.map(lambda x: jnp.stack([x, 1.01 * x, 1.02 * x]), PARAMS)
OTHER = morse(["Ar"], depth=0.1, width=1.0, distance=3.0, cutoff=CUTOFF).init(jax.random.key(0))
KRYPTON = [
    f.replace(system=f.system.replace(atomic_numbers=np.full(f.n_atoms, 36, np.int32))) for f in TRAIN[:2]
]
REFERENCES = {18: -10.0, 36: -20.0}
SPECIES, FOREIGN = "no parameters for Kr", "not those of this potential"


def batches_of(frames, cutoff=CUTOFF):
    return make_batches(frames, cutoff=cutoff, batch_size=2, references=REFERENCES, max_shapes=1)


def batch_of(frames, **arguments):
    return next(iter(batches_of(frames, **arguments)))


def system_of(frame):
    return make_system(frame.positions, frame.numbers, cell=frame.cell)


def list_of(frame, cutoff=CUTOFF):
    return neighbor_list(system_of(frame), cutoff=cutoff)


def trained(params=PARAMS):
    return TrainingResult(
        best_params=params, last_params=params, references=REFERENCES, best_epoch=0, history=[], n_compiled=0,
        seconds=0.0, is_complete=True,
    )  # fmt: skip


def squared_error(evaluation, part):
    return loss(evaluation, part, Weights())


def committee_of(params=COMMITTEE, frame=TRAIN[0], neighbors=None):
    return consensus(START, params, system_of(frame), neighbors)


def train_on(frames=TRAIN, **arguments):
    return train(START, frames, valid=VALID, references=REFERENCES, progress=False, **arguments)


BAD = {
    "consensus: species": (lambda: committee_of(frame=KRYPTON[0]), SPECIES),
    "consensus: species with a list": (
        lambda: committee_of(frame=KRYPTON[0], neighbors=list_of(KRYPTON[0])), SPECIES,
    ),
    "consensus: params": (
        lambda: committee_of(jax.tree.map(lambda x: jnp.stack([x, x]), OTHER)), FOREIGN,
    ),
    "consensus: one member": (lambda: committee_of(PARAMS), "at least 2 members"),
    "consensus: NaN": (lambda: committee_of(jax.tree.map(lambda x: x * np.nan, COMMITTEE)), "not finite"),
    "consensus: list of other atoms": (
        lambda: committee_of(neighbors=neighbor_list(make_system([[0.0, 0, 0]], [18]), cutoff=CUTOFF)),
        "for 1 atoms",
    ),
    "consensus: list with a shorter reach": (
        lambda: committee_of(neighbors=list_of(TRAIN[0], cutoff=4.0)), r"reaches 4\.0 Å",
    ),
    "consensus: stale list": (lambda: committee_of(neighbors=list_of(TRAIN[1])), "stale"),
    "consensus: no list under jit": (
        lambda: jax.jit(lambda s: consensus(START, COMMITTEE, s))(system_of(TRAIN[0])), "under jit",
    ),
    "predict: species": (
        lambda: predict(START, PARAMS, batch_of(KRYPTON)), f"frame 0 of the data: .*{SPECIES}",
    ),
    "predict: params": (lambda: predict(START, OTHER, batch_of(TRAIN)), FOREIGN),
    "predict: shorter reach": (
        lambda: predict(START, PARAMS, batch_of(TRAIN, cutoff=4.0)), r"reaches 4\.0 Å",
    ),
    "loss_and_gradient: species": (
        lambda: loss_and_gradient(START, PARAMS, batch_of(KRYPTON), squared_error), SPECIES,
    ),
    "loss_and_gradient: params": (
        lambda: loss_and_gradient(START, OTHER, batch_of(TRAIN), squared_error), FOREIGN,
    ),
    "loss_and_gradient: at_once": (
        lambda: loss_and_gradient(START, PARAMS, batch_of(TRAIN), squared_error, at_once=3),
        "does not divide",
    ),
    "residuals: another shape": (
        lambda: residuals(
            lambda b: Evaluation(jnp.zeros(2), jnp.zeros((2, 3, 3)), jnp.zeros((2, 3, 3))), batches_of(TRAIN)
        ),
        r"forces of shape \[2, 3, 3\]",
    ),
    "report: species": (lambda: report(START, trained(), valid=KRYPTON), f"frame 0: .*{SPECIES}"),
    "report: params": (lambda: report(START, trained(OTHER), valid=VALID), FOREIGN),
    "train: species": (lambda: train_on(KRYPTON), f"frame 0: .*{SPECIES}"),
    "train: replayed species": (lambda: train_on(replay=KRYPTON), f"frame 0: .*{SPECIES}"),
    "train: params": (lambda: train_on(params=OTHER), FOREIGN),
    "train: NaN": (lambda: train_on(params=jax.tree.map(lambda x: x * np.nan, PARAMS)), "not finite"),
    "train_committee: params": (
        lambda: train_committee(
            START, TRAIN, valid=VALID, references=REFERENCES, progress=False, params=OTHER, n_members=2
        ),
        "the shapes|not those of this potential",
    ),
    "make_batches: element without reference": (
        lambda: make_batches(KRYPTON, cutoff=CUTOFF, batch_size=2, references={18: 0.0}),
        r"no reference energy for the elements \[36\]",
    ),
    "nearest_distances: species": (
        lambda: nearest_distances(KRYPTON, species=[18], cutoff=CUTOFF), "contains Kr, which is not among",
    ),
    "nearest_distances: cutoff": (lambda: nearest_distances(TRAIN, species="Ar", cutoff=0.0), "cutoff"),
    "statistics: cutoff": (lambda: statistics(TRAIN, cutoff=np.nan), "cutoff"),
    "reference_energies: no energy": (
        lambda: reference_energies([TRAIN[0].replace(energy=None)]), "none of 1 frames has an energy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_foreign_input_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()


def test_loss_of_predictions_of_another_batch_is_refused():
    predictions = predict(START, PARAMS, batch_of(TRAIN))
    single = make_batches(TRAIN[:1], cutoff=CUTOFF, batch_size=1, references=REFERENCES)
    with pytest.raises(InputError, match="predict returns for this batch"):
        loss(predictions, next(iter(single)), Weights())


def test_consensus_accepts_atoms_and_builds_its_list():
    frame = TRAIN[0]
    with_list = committee_of(neighbors=list_of(frame))
    for structure in (system_of(frame), to_ase(system_of(frame))):
        without_list = consensus(START, COMMITTEE, structure)
        for a, b in zip(jax.tree.leaves(without_list), jax.tree.leaves(with_list), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert with_list.spread.energy > 0
    with pytest.raises(InputError, match=SPECIES):
        consensus(START, COMMITTEE, ase.Atoms("Kr2", positions=[[0, 0, 0], [0, 0, 4.0]]))


def test_predict_without_jit_equals_predict_with_jit():
    batch = batch_of(TRAIN)
    compiled = jax.jit(lambda p, b: predict(START, p, b))(PARAMS, batch)
    np.testing.assert_allclose(predict(START, PARAMS, batch).forces, compiled.forces, rtol=1e-10, atol=1e-14)


def test_lennard_jones_of_two_species_serves_a_batch_of_one():
    potential = lennard_jones(["Ar", "Kr"], sigma=[3.3, 3.6], epsilon=[0.05, 0.06], cutoff=CUTOFF)
    params = potential.init(jax.random.key(0))
    assert np.isfinite(predict(potential, params, batch_of([TRAIN[0], KRYPTON[1]])).energy).all()
