"""A term of a fit: first-principles energies, forces, stresses and dipoles."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from difmd.data.batches import Batch, make_batches
from difmd.data.frames import Frame, hash_frames
from difmd.fitting.terms import Evaluation, Term, Weight, stateless
from difmd.potentials import Params, Potential, validate_inputs
from difmd.training.checks import check_data
from difmd.training.gradient import loss_and_gradient, predict
from difmd.training.losses import Weights, count, loss


def first_principles(
    potential: Potential,
    params: Params,
    frames: Sequence[Frame],
    *,
    references: Mapping[int, float],
    weights: Weights | None = None,
    batch_size: int = 8,
    weight: Weight = 1.0,
    name: str = "first_principles",
) -> Term:
    """The loss of a training on labelled frames, as one term beside measured quantities.

    It keeps the errors of a network low while other quantities are fitted. Each iteration uses one batch,
    drawn at random with the key of the fit; a resumed fit uses the same batches.

    Args:
        potential: the energy model.
        params: initial parameters of the fit.
        frames: with energies, forces, stresses or dipoles, as far as available.
        references: energy of an atom of each element [eV], subtracted from all energies.
        weights: λ of the terms of the loss; default `Weights()`.
        batch_size: frames in each iteration.
        weight: of the loss.
        name: of its record in the history.

    Returns:
        `Term`; its record holds `value`, and `F_rmse_meV_A` of the forces of the batch. It has no
        residuals, so that `gauss_newton` cannot be used with it.

    Raises:
        InputError: frames that `train` rejects, or params that do not fit the potential or are not finite.
    """
    weights = Weights() if weights is None else weights
    check_data(weights, potential, frames, frames, references)
    validate_inputs(potential, params, frames[0].system)
    size = min(batch_size, len(frames))
    batches = make_batches(frames, cutoff=potential.cutoff, batch_size=size, references=references)

    @jax.jit
    def both(params: Params, batch: Batch) -> tuple[tuple[Array, Params], Array]:
        measure = functools.partial(loss, weights=weights, counts=count(batch))

        of_forces = loss(predict(potential, params, batch), batch, Weights(0.0, 1.0, 0.0, 0.0))
        return loss_and_gradient(potential, params, batch, measure), of_forces

    def evaluate(params: Params, key: Any) -> Evaluation:
        # The first batch of an epoch in the order of the key.
        batch = batches.batch(batches.epoch(int(jax.random.bits(key)), 0)[0])
        (value, gradient), of_forces = both(params, batch)
        record = {"value": float(value), "F_rmse_meV_A": 1e3 * float(jnp.sqrt(of_forces))}
        return Evaluation(value, gradient, None, record)

    def settings(params: Params) -> Any:
        del params
        return str(potential), tuple(weights), size, sorted(references.items()), hash_frames(frames)

    return stateless(evaluate, name=name, settings=settings, weight=weight)
