"""The loss: errors of energies per atom, forces, virials per atom, and dipoles."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from difmd.data.batches import Batch
from difmd.errors import InputError
from difmd.forces import Evaluation

NO_CHARGES = (
    "the weight of the dipole is positive, but the potential has no charges: make the network with "
    "charges=True, as in mace(..., charges=True), or set the weight of the dipole to 0"
)
"""Message for a weight without effect."""


class Weights(NamedTuple):
    """Weights of the terms of the loss; numbers, or arrays that change during a training.

    Attributes:
        energy: λ_E, of ⟨(ΔE/N)²⟩ [1/eV²].
        forces: λ_F, of ⟨ΔF²⟩ over components [Å²/eV²].
        stress: λ_S, of ⟨(ΔS V/N)²⟩ over components, the virial per atom [1/eV²].
        dipole: λ_μ, of ⟨Δμ²⟩ over components [1/(e·Å)²].
    """

    energy: Float[Array, ""] | float = 1.0
    forces: Float[Array, ""] | float = 1.0
    stress: Float[Array, ""] | float = 1.0
    dipole: Float[Array, ""] | float = 0.0


class Counts(NamedTuple):
    """Numbers of labels of a batch, by which sums of errors are divided."""

    energy: Int[Array, ""]  # frames with an energy
    forces: Int[Array, ""]  # components of forces
    stress: Int[Array, ""]  # components of stresses
    dipole: Int[Array, ""]  # components of dipoles


def count(batch: Batch) -> Counts:
    """The `Counts` of a batch."""
    labels = batch.labels
    n_atoms = jnp.sum(batch.system.atomic_numbers > 0, axis=-1)
    return Counts(
        jnp.sum(labels.has_energy),
        3 * jnp.sum(jnp.where(labels.has_forces, n_atoms, 0)),
        9 * jnp.sum(labels.has_stress),
        3 * jnp.sum(labels.has_dipole),
    )


def loss(
    evaluation: Evaluation,
    batch: Batch,
    weights: Weights,
    *,
    huber: float | None = None,
    counts: Counts | None = None,
) -> Float[Array, ""]:
    """λ_E ⟨(ΔE/N)²⟩ + λ_F ⟨ΔF²⟩ + λ_S ⟨(ΔS V/N)²⟩ + λ_μ ⟨Δμ²⟩, each over the labels that the batch has.

    Args:
        evaluation: predicted energies, forces, stresses and dipoles of the batch.
        batch: the labels.
        weights: λ.
        huber: error above which a term grows linearly instead of quadratically [eV, eV/Å, e·Å]; None: never.
        counts: numbers by which sums are divided if `batch` is a part of a batch; default: those of `batch`.

    Returns:
        The loss, a number; 0 for a batch without labels. Stresses count only with three periodic directions,
        dipoles only with none.

    Raises:
        InputError: predictions of another batch, or a weight of the dipole for a potential without charges.

    References:
        Batzner et al., Nat. Commun. 13, 2453 (2022), equation 8; Huber, Ann. Math. Stat. 35, 73 (1964).
    """
    labels = batch.labels
    if evaluation.forces.shape != labels.forces.shape:
        raise InputError(
            f"the predicted forces have shape {list(evaluation.forces.shape)}, those of the batch "
            f"{list(labels.forces.shape)}: give what predict returns for this batch"
        )
    counts = counts or count(batch)
    is_atom = batch.system.atomic_numbers > 0
    n_atoms = jnp.sum(is_atom, axis=-1, dtype=evaluation.energy.dtype)
    per_atom = (evaluation.energy - labels.energy) / jnp.maximum(n_atoms, 1)
    terms = weights.energy * _mean(per_atom, labels.has_energy, counts.energy, huber)
    counted = (is_atom & labels.has_forces[:, None])[..., None]
    terms = terms + weights.forces * _mean(evaluation.forces - labels.forces, counted, counts.forces, huber)
    terms = terms + _dipole_term(evaluation, batch, weights, huber, counts)
    if not all(batch.neighbors.periodic):
        # Without a volume the stress is NaN, which would reach the gradient even if it were masked.
        return terms
    volume = jnp.abs(jnp.linalg.det(batch.system.cell)) / jnp.maximum(n_atoms, 1)
    has_stress = labels.has_stress[:, None, None]
    virial = jnp.where(has_stress, evaluation.stress - labels.stress, 0) * volume[:, None, None]
    return terms + weights.stress * _mean(virial, has_stress, counts.stress, huber)


def _dipole_term(
    evaluation: Evaluation, batch: Batch, weights: Weights, huber: float | None, counts: Counts
) -> Array:
    # A weight that changes during a training is checked at its start.
    is_number = not isinstance(weights.dipole, jax.core.Tracer)
    if evaluation.dipole is None and is_number and weights.dipole > 0:
        raise InputError(NO_CHARGES)
    if evaluation.dipole is None or any(batch.neighbors.periodic):
        return jnp.zeros_like(evaluation.energy[0])
    error = evaluation.dipole - batch.labels.dipole
    return weights.dipole * _mean(error, batch.labels.has_dipole[:, None], counts.dipole, huber)


def _mean(error: Array, is_counted: Array, n: Array, huber: float | None) -> Array:
    """Sum of the counted squares divided by max(n, 1)."""
    square = error * error
    if huber is not None:
        size = jnp.abs(error)
        square = jnp.where(size < huber, square, huber * (2 * size - huber))
    total = jnp.sum(jnp.where(jnp.broadcast_to(is_counted, error.shape), square, 0))
    return total / jnp.maximum(n, 1).astype(error.dtype)
