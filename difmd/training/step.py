"""One training step and the evaluation of a batch, of one potential or of a committee, on all devices."""

from __future__ import annotations

import functools
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
from difmd.training.recipe import Recipe, learning_rate_of, optimizer_of

EVERYWHERE, SHARED = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("replicas")


class TrainState(NamedTuple):
    """What a step changes; in a committee every array has a leading axis of members."""

    params: Array  # θ as one vector, which compiles faster than many arrays
    average: Array  # exponential moving average of θ
    opt_state: Any  # of the optimizer
    step: Array  # number of steps made, skipped ones included
    norm: Array  # running mean of the norms of the gradients
    rate: Array  # factor of the learning rate, reduced on a plateau


class Problem(NamedTuple):
    """What a step depends on besides its state and its batch."""

    potential: Potential  # the energy model
    recipe: Recipe  # how to train
    optimizer: optax.GradientTransformation  # of `optimizer_of`
    unravel: Callable[[Array], Params]  # from the vector to parameters
    mask: Any  # which entries of the vector are trained; bools
    learning_rate: Callable[[Any], Any]  # as a function of the step
    weights: Callable[[Any], Weights]  # of the loss, as a function of the step


class CompiledSteps(NamedTuple):
    """Compiled functions, and the placement of their arguments."""

    step: Any  # `step(state, batch) -> state, loss, whether the gradient was finite and applied`
    evaluate: Any  # `evaluate(params, batch) -> Evaluation`, with the parameters of one potential
    put: Callable[[Any], Any]  # places a state or a batch on the devices
    must_wait: bool  # whether a step must end before the next is queued


def make_problem(
    potential: Potential, recipe: Recipe, unravel: Callable[[Array], Params], mask: Any, n_steps: int
) -> Problem:
    """The `Problem` of a training of `n_steps` steps."""
    rate, weights = learning_rate_of(recipe, n_steps), weights_of(recipe, n_steps)
    return Problem(potential, recipe, optimizer_of(recipe), unravel, mask, rate, weights)


def initial_state(params: Array, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    norm, rate = jnp.zeros((), params.dtype), jnp.ones((), params.dtype)
    return TrainState(params, params, optimizer.init(params), jnp.zeros((), jnp.int32), norm, rate)


def weights_of(recipe: Recipe, n_steps: int) -> Callable[[Any], Weights]:
    """The weights of the loss as a function of the step."""
    begin = (1 - recipe.annealing) * n_steps

    def weights(step: Any) -> Weights:
        x = jnp.clip((jnp.asarray(step, default_float()) - begin) / max(n_steps - begin, 1), 0, 1)
        pairs = zip(recipe.initial_weights, recipe.final_weights, strict=True)
        return Weights(*(a * (b / a) ** x if a > 0 and b > 0 else a + (b - a) * x for a, b in pairs))

    return weights


def compile_steps(problem: Problem, n_members: int | None = None) -> CompiledSteps:
    """Compile a step and an evaluation for one potential (`n_members` None) or a committee.

    On several devices each evaluates some frames of every batch, on as many devices as divide the batch; in a
    committee each trains some members, on as many as divide their number. On a CPU the members are trained
    one after the other, which suits its cache.
    """
    devices = _devices(problem.recipe.batch_size if n_members is None else n_members)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("replicas",))
    is_spread = len(devices) > 1 and n_members is None
    gradient: Callable[..., Any] = functools.partial(_loss_and_gradient, problem)
    evaluate: Callable[..., Any] = functools.partial(predict, problem.potential)
    if is_spread:
        gradient = jax.shard_map(
            functools.partial(_summed, gradient),
            mesh=mesh,
            in_specs=(EVERYWHERE, SHARED, EVERYWHERE, EVERYWHERE),
            out_specs=EVERYWHERE,
            check_vma=False,
        )
        evaluate = jax.shard_map(
            evaluate, mesh=mesh, in_specs=(EVERYWHERE, SHARED), out_specs=SHARED, check_vma=False
        )

    def put(tree: Any) -> Any:
        if len(devices) == 1:
            return tree
        spec = EVERYWHERE if isinstance(tree, TrainState) and is_spread else SHARED
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, spec))

    options = compiler_options()
    step = _of_members(functools.partial(_step, problem, gradient), n_members)
    return CompiledSteps(
        jax.jit(step, compiler_options=options),
        jax.jit(evaluate, compiler_options=options),
        put,
        # Devices of a CPU with different steps queued can deadlock.
        must_wait=len(devices) > 1 and devices[0].platform == "cpu",
    )


def _step(
    problem: Problem, gradient_of: Callable[..., Any], state: TrainState, batch: Batch
) -> tuple[TrainState, Float[Array, ""], Array]:
    recipe = problem.recipe
    # Sums over frames are divided by the counts of the entire batch, so that those of its shares add up.
    value, gradient = gradient_of(state.params, batch, problem.weights(state.step), count(batch))
    gradient = jnp.where(problem.mask, gradient, 0)
    norm = jnp.linalg.norm(gradient)
    is_good = jnp.isfinite(value) & jnp.isfinite(norm)
    # A gradient far larger than usual, for example from atoms that nearly touch, is clipped.
    usual = jnp.where(state.norm > 0, state.norm, norm)
    factor = jnp.minimum(1, recipe.clip * usual / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
    scaled = jnp.where(is_good, factor * gradient, 0)
    # optax multiplies integer counters with floats.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = problem.optimizer.update(scaled, state.opt_state, state.params)
        rate = jnp.asarray(problem.learning_rate(state.step), norm.dtype) * state.rate
    params = state.params + jnp.where(problem.mask, rate * updates, 0)
    n = state.step.astype(norm.dtype)
    decay = jnp.minimum(recipe.ema, (1 + n) / (10 + n))
    new = state._replace(
        params=params,
        # In this form an entry that is not trained keeps its value to the last bit.
        average=state.average + (1 - decay) * (params - state.average),
        opt_state=opt_state,
        norm=0.99 * usual + 0.01 * jnp.minimum(norm, recipe.clip * usual),
    )
    applied = jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, state)
    return applied._replace(step=state.step + 1), value, is_good


def _loss_and_gradient(
    problem: Problem, params: Array, batch: Batch, weights: Weights, counts: Counts
) -> tuple[Array, Array]:
    def measure(evaluation: Evaluation, part: Batch) -> Array:
        return loss(evaluation, part, weights, huber=problem.recipe.huber, counts=counts)

    value, gradient = loss_and_gradient(problem.potential, problem.unravel(params), batch, measure)
    return value, ravel_pytree(gradient)[0]


def _summed(function: Callable[..., Any], *arguments: Any) -> Any:
    return lax.psum(function(*arguments), "replicas")


def compiler_options() -> dict[str, Any] | None:
    """On a CPU the second level of optimisation, unless XLA_FLAGS sets one.

    A step of MACE compiles faster than at the third level and runs as fast.
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
    """The largest number of devices of this host that divides n."""
    devices = jax.local_devices()
    return devices[: max(k for k in range(1, len(devices) + 1) if n % k == 0)]
