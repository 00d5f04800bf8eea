"""One step of a training, and evaluations, of one potential or of a committee, on all devices."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from difmd._internal.dtypes import default_float
from difmd._internal.replicas import map_replicas
from difmd.data.batches import Batch
from difmd.forces import Evaluation
from difmd.potentials import Params, Potential
from difmd.training.gradient import loss_and_gradient, predict
from difmd.training.losses import Counts, Weights, count, loss
from difmd.training.recipe import Recipe


class State(NamedTuple):
    """What a step changes; of a committee every array has a leading axis of members.

    Attributes:
        params: θ as one vector, which compiles in less time than many arrays do.
        average: of θ over past steps.
        opt_state: of the optimizer.
        step: how many have been made, those that were not applied included.
        norm: mean norm of past gradients.
        rate: factor of the learning rate, which falls on a plateau.
    """

    params: Array
    average: Array
    opt_state: Any
    step: Array
    norm: Array
    rate: Array


class Machine(NamedTuple):
    """Compiled functions, and where their arguments live.

    Attributes:
        step: `step(state, batch) -> state, loss, whether the gradient was finite and applied`.
        evaluate: `evaluate(params, batch) -> Evaluation`, of the parameters of one potential.
        put: puts a state on the devices, or a batch.
        waits: whether every step has to be waited for.
    """

    step: Any
    evaluate: Any
    put: Callable[[Any], Any]
    waits: bool


def first_state(params: Array, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step."""
    dtype = params.dtype
    return State(
        params=params,
        average=params,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        norm=jnp.zeros((), dtype),
        rate=jnp.ones((), dtype),
    )


def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
    """Directions of steps, which the learning rate is not yet in."""
    direction = {"amsgrad": optax.scale_by_amsgrad, "adamw": optax.scale_by_adam}[recipe.optimizer]()
    if not recipe.weight_decay:
        return direction
    return optax.chain(direction, optax.add_decayed_weights(recipe.weight_decay))


def rate_at(recipe: Recipe, n_steps: int) -> Callable[[Any], Any]:
    """The learning rate as a function of the step, but for what a plateau takes off."""
    warm_up = max(int(recipe.warm_up * n_steps), 1)
    if recipe.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0,
            recipe.learning_rate,
            warm_up,
            max(n_steps, warm_up + 1),
            recipe.final_rate * recipe.learning_rate,
        )
    return optax.linear_schedule(0.0, recipe.learning_rate, warm_up)


def weights_at(recipe: Recipe, n_steps: int) -> Callable[[Any], Weights]:
    """The weights of the loss as a function of the step."""
    begin = (1 - recipe.annealing) * n_steps

    def weights(step: Any) -> Weights:
        x = jnp.clip((jnp.asarray(step, default_float()) - begin) / max(n_steps - begin, 1), 0, 1)
        return Weights(*(_geometric(a, b, x) for a, b in zip(recipe.start, recipe.end, strict=True)))

    return weights


def machine(
    potential: Potential,
    recipe: Recipe,
    optimizer: optax.GradientTransformation,
    unravel: Callable[[Array], Params],
    mask: Any,
    n_steps: int,
    n_members: int | None = None,
) -> Machine:
    """A step and an evaluation.

    On several devices each evaluates some frames of every batch, as many devices as divide the batch; of a
    committee each trains some members, as many as divide their number. On a CPU the members follow each
    other, which suits its cache.

    Args:
        potential: the energy model.
        recipe: how to train.
        optimizer: of `optimizer_of`.
        unravel: from the vector to parameters.
        mask: which numbers of the vector are trained; bools.
        n_steps: in all.
        n_members: of a committee; None: of one potential, without an axis of members.
    """
    learning_rate, weights = rate_at(recipe, n_steps), weights_at(recipe, n_steps)
    devices = _devices(recipe.batch_size if n_members is None else n_members)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("replicas",))
    everywhere, shared = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("replicas")
    is_spread = len(devices) > 1 and n_members is None

    def measured(params: Array, batch: Batch, weights: Weights, counts: Counts) -> tuple[Array, Array]:
        def measure(found: Evaluation, part: Batch) -> Array:
            return loss(found, part, weights, huber=recipe.huber, counts=counts)

        value, gradient = loss_and_gradient(potential, unravel(params), batch, measure)
        return value, ravel_pytree(gradient)[0]

    def gradient_of(params: Array, batch: Batch, weights: Weights) -> tuple[Array, Array]:
        # Sums over frames are divided by what the whole batch has, so that those of shares add up.
        counts = count(batch)
        if not is_spread:
            return measured(params, batch, weights, counts)
        return jax.shard_map(
            lambda *x: lax.psum(measured(*x), "replicas"),
            mesh=mesh,
            in_specs=(everywhere, shared, everywhere, everywhere),
            out_specs=everywhere,
            check_vma=False,
        )(params, batch, weights, counts)

    def step(state: State, batch: Batch) -> tuple[State, Float[Array, ""], Array]:
        value, gradient = gradient_of(state.params, batch, weights(state.step))
        gradient = jnp.where(mask, gradient, 0)
        norm = jnp.linalg.norm(gradient)
        is_good = jnp.isfinite(value) & jnp.isfinite(norm)
        # A gradient far larger than usual, say from atoms that nearly touch, is cut to size.
        usual = jnp.where(state.norm > 0, state.norm, norm)
        factor = jnp.minimum(1, recipe.clip * usual / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
        scaled = jnp.where(is_good, factor * gradient, 0)
        # optax counts in integers and multiplies them with numbers.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(scaled, state.opt_state, state.params)
            rate = jnp.asarray(learning_rate(state.step), norm.dtype) * state.rate
        params = state.params + jnp.where(mask, -rate * updates, 0)
        n = state.step.astype(norm.dtype)
        decay = jnp.minimum(recipe.ema, (1 + n) / (10 + n))
        # In this form what is not trained stays what it is, to the last bit.
        average = state.average + (1 - decay) * (params - state.average)
        new = state._replace(
            params=params,
            average=average,
            opt_state=opt_state,
            step=state.step + 1,
            norm=0.99 * usual + 0.01 * jnp.minimum(norm, recipe.clip * usual),
        )
        kept = jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, state)
        return kept._replace(step=new.step), value, is_good

    def evaluate(params: Params, batch: Batch) -> Evaluation:
        if not is_spread:
            return predict(potential, params, batch)
        return jax.shard_map(
            lambda p, b: predict(potential, p, b),
            mesh=mesh,
            in_specs=(everywhere, shared),
            out_specs=shared,
            check_vma=False,
        )(params, batch)

    def put(tree: Any) -> Any:
        if len(devices) == 1:
            return tree
        spec = everywhere if isinstance(tree, State) and is_spread else shared
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, spec))

    # Devices of a CPU that have different steps in hand may wait for each other for ever.
    waits = len(devices) > 1 and devices[0].platform == "cpu"
    options = compiler_options()
    return Machine(
        jax.jit(_of_members(step, n_members), compiler_options=options),
        jax.jit(evaluate, compiler_options=options),
        put,
        waits,
    )


def compiler_options() -> dict[str, Any] | None:
    """On a CPU the second level of optimisation, unless XLA_FLAGS name one.

    A step of MACE compiles sooner than with the third, and takes as long to run.
    """
    flag = "xla_backend_optimization_level"
    if jax.default_backend() != "cpu" or flag in os.environ.get("XLA_FLAGS", ""):
        return None
    return {flag: 2}


def _of_members(step: Any, n_members: int | None) -> Any:
    if n_members is None:
        return step
    if len(jax.local_devices()) == 1 and jax.default_backend() == "cpu":
        return lambda state, batch: lax.map(lambda both: step(*both), (state, batch))
    return map_replicas(step, n_members)


def _devices(n: int) -> list[Any]:
    """As many devices of this host as divide n."""
    devices = jax.local_devices()
    return devices[: max(k for k in range(1, len(devices) + 1) if n % k == 0)]


def _geometric(a: Any, b: Any, x: Array) -> Array:
    if a > 0 and b > 0:
        return a * (b / a) ** x
    return a + (b - a) * x
