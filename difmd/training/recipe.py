"""`Recipe`: the settings of a training."""

from __future__ import annotations

import dataclasses
import math

import optax

from difmd._internal.argument_checks import check_integer
from difmd._internal.summaries import fields_summary
from difmd.errors import InputError
from difmd.training.losses import Weights
from difmd.training.schedules import Schedule, warmup_cosine

LEARNING_RATE = 2e-2
"""Peak learning rate of the default optimizer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; for fine-tuning, use a smaller learning rate.

    Attributes:
        n_epochs: passes through the data.
        batch_size: frames of a batch.
        learning_rate: peak learning rate of the default optimizer, AMSGrad; None: 0.02. With `optimizer`,
            which has a learning rate already, leave it out.
        optimizer: an optax optimizer with its peak learning rate, such as
            `optax.adamw(1e-3, weight_decay=1e-4)`; all parameters reach it as one vector. Default:
            `optax.amsgrad(learning_rate)`.
        schedule: multiplies the updates of the optimizer: `warmup_cosine(...)`, `reduce_on_plateau(...)`, or
            an optax schedule, a function of the step.
        initial_weights: weights of the loss at first; stresses, if there are any, count as much as forces.
        final_weights: weights at the end; they change geometrically over the last `annealing` of the steps.
        annealing: fraction of the steps over which the weights change.
        huber: transition from squared to absolute errors, see `loss`; None: squared errors only.
        clip: largest norm of a gradient, relative to the running mean of the norms.
        ema: decay per step of the exponential moving average of the parameters.
        validate_every: epochs between validations.
        patience: validations without improvement after which training stops; None: never.
        max_shapes: shapes that frames are padded to, for each combination of periodic directions.
        seed: of the order of the data and of the initial parameters.

    References:
        AMSGrad: Reddi, Kale & Kumar, ICLR 2018, arXiv:1904.09237.
    """

    n_epochs: int = 200
    batch_size: int = 4
    learning_rate: float | None = None
    optimizer: optax.GradientTransformation | None = None
    schedule: Schedule | optax.Schedule = warmup_cosine()  # noqa: RUF009 (immutable)
    initial_weights: Weights = Weights(1.0, 1.0, 1.0)
    final_weights: Weights = Weights(100.0, 1.0, 1.0)
    annealing: float = 0.5
    huber: float | None = None
    clip: float = 10.0
    ema: float = 0.99
    validate_every: int = 1
    patience: int | None = None
    max_shapes: int = 4
    seed: int = 0

    __repr__ = fields_summary


def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
    """The optimizer, whose updates are multiplied by `learning_rate_of`."""
    return optax.amsgrad(1.0) if recipe.optimizer is None else recipe.optimizer


def learning_rate_of(recipe: Recipe, n_steps: int) -> optax.Schedule:
    """The factor of the updates as a function of the step, without reductions on a plateau."""
    peak = 1.0
    if recipe.optimizer is None:
        peak = LEARNING_RATE if recipe.learning_rate is None else recipe.learning_rate
    schedule = recipe.schedule
    if isinstance(schedule, Schedule):
        return schedule.at_peak(peak, n_steps)
    return lambda step: peak * schedule(step)


def check_recipe(recipe: Recipe) -> None:
    """Refuse settings that cannot work."""
    weights = (*recipe.initial_weights, *recipe.final_weights)
    if any(w < 0 for w in weights) or not any(w > 0 for w in recipe.final_weights):
        raise InputError(
            f"initial_weights = {recipe.initial_weights}, final_weights = {recipe.final_weights}: none may "
            "be negative, nor all final weights 0"
        )
    _check_optimizer(recipe)
    for name in ("n_epochs", "batch_size", "validate_every", "max_shapes"):
        check_integer(name, getattr(recipe, name))
    if recipe.patience is not None:
        check_integer("patience", recipe.patience)
    for name in ("learning_rate", "clip", "huber"):
        value = getattr(recipe, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} = {value} must be positive")
    for name in ("annealing", "ema"):
        if not 0 <= getattr(recipe, name) <= 1 or (name == "ema" and recipe.ema == 1):
            raise InputError(f"{name} = {getattr(recipe, name)} must lie between 0 and 1")


def _check_optimizer(recipe: Recipe) -> None:
    if recipe.optimizer is not None:
        if not isinstance(recipe.optimizer, optax.GradientTransformation):
            raise InputError(
                f"optimizer = {recipe.optimizer!r} is not an optax optimizer: give one, such as "
                "optax.adamw(1e-3)"
            )
        if recipe.learning_rate is not None:
            raise InputError(
                f"learning_rate = {recipe.learning_rate} is that of the default optimizer: leave it out, as "
                "the optimizer has a learning rate already"
            )
    if not isinstance(recipe.schedule, Schedule) and not callable(recipe.schedule):
        raise InputError(
            f"schedule = {recipe.schedule!r} must be warmup_cosine(...), reduce_on_plateau(...) or an optax "
            "schedule"
        )
