"""Predictions for a batch, and the gradient of a loss of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from difmd.data.batches import Batch
from difmd.errors import InputError
from difmd.forces import Evaluation, evaluate
from difmd.potentials import Potential
from difmd.potentials.base import Params
from difmd.training.checks import check_batch

# Entries of neighbour lists that a CPU evaluates together, so that the intermediate values of reverse mode
# stay in its cache.
_ENTRIES = 2048


def predict(potential: Potential, params: Params, batch: Batch) -> Evaluation:
    """Energies, forces, stresses and dipoles of every frame of a batch.

    Args:
        potential: the energy model.
        params: its parameters.
        batch: frames whose neighbour lists reach at least `potential.cutoff`.

    Returns:
        `Evaluation`, each field with a leading axis of frames.

    Raises:
        InputError: params of another potential or lists with a shorter reach; outside jit also an unknown
            species, or parameters that are not finite.
    """
    check_batch(potential, params, batch)
    size = frames_at_once(batch)
    if size == batch.frames.shape[0]:
        return _evaluate(potential, params, batch)
    parts = lax.map(lambda part: _evaluate(potential, params, part), _parts(batch, size))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)


def loss_and_gradient(
    potential: Potential,
    params: Params,
    batch: Batch,
    loss: Callable[[Evaluation, Batch], Float[Array, ""]],
    *,
    at_once: int | None = None,
) -> tuple[Float[Array, ""], Params]:
    """L(E, F, S, μ) and dL/dθ, by reverse mode through the reverse mode that yields the forces.

    Args:
        potential: the energy model.
        params: θ.
        batch: the frames.
        loss: `loss(evaluation, part)`, the contribution of some frames of the batch, given their
            `Evaluation`; contributions must add up to L.
        at_once: frames that are evaluated together, a divisor of the batch; default: `frames_at_once`.

    Returns:
        L and dL/dθ.

    Raises:
        InputError: as `predict`, or `at_once` does not divide the batch.
    """
    check_batch(potential, params, batch)
    n_frames = batch.frames.shape[0]
    size = at_once or frames_at_once(batch)
    if n_frames % size:
        raise InputError(f"at_once = {at_once} does not divide the batch of {n_frames} frames")

    def of_part(part: Batch) -> tuple[Array, Params]:
        return jax.value_and_grad(lambda p: loss(_evaluate(potential, p, part), part))(params)

    if size == n_frames:
        return of_part(batch)

    def add(total: tuple[Array, Params], part: Batch) -> tuple[tuple[Array, Params], None]:
        return jax.tree.map(jnp.add, total, of_part(part)), None

    parts = _parts(batch, size)
    shapes = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], parts))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.scan(add, zero, parts)[0]


def frames_at_once(batch: Batch) -> int:
    """Number of frames to evaluate together: all, but on a CPU no more than fit into its cache."""
    n_frames = batch.frames.shape[0]
    if jax.default_backend() != "cpu":
        return n_frames
    entries = batch.neighbors.indices.shape[-1] * batch.neighbors.indices.shape[-2]
    most = max(_ENTRIES // max(entries, 1), 1)
    return max(k for k in range(1, n_frames + 1) if n_frames % k == 0 and k <= most)


def _evaluate(potential: Potential, params: Params, batch: Batch) -> Evaluation:
    return jax.vmap(lambda s, n: evaluate(potential, params, s, n))(batch.system, batch.neighbors)


def _parts(batch: Batch, size: int) -> Batch:
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, size, *jnp.shape(x)[1:])), batch)
