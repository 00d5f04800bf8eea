"""Predictions for a batch, and the gradient of any loss of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from difmd.data.batches import Batch
from difmd.forces import Evaluation, evaluate
from difmd.potentials import Potential
from difmd.potentials.base import Params


def predict(potential: Potential, params: Params, batch: Batch) -> Evaluation:
    """Energies, forces and stresses of every frame of a batch; each field with a leading axis."""
    return jax.vmap(lambda s, n: evaluate(potential, params, s, n))(batch.system, batch.neighbors)


def loss_and_gradient(
    potential: Potential, params: Params, batch: Batch, loss: Callable[[Evaluation], Float[Array, ""]]
) -> tuple[Float[Array, ""], Params]:
    """L(E, F, S) and dL/dθ, by reverse mode through the reverse mode that yields the forces.

    Args:
        potential: the energy model.
        params: θ.
        batch: the frames.
        loss: L as a function of the `Evaluation` of the batch.

    Returns:
        L and dL/dθ.
    """
    return jax.value_and_grad(lambda p: loss(predict(potential, p, batch)))(params)
