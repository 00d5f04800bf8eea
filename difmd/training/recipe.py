"""`Recipe`: how to train."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from difmd.errors import InputError
from difmd.training.losses import Weights

OPTIMIZERS = ("amsgrad", "adamw")
SCHEDULES = ("cosine", "constant", "plateau")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train from the start; fine-tuning takes a smaller `learning_rate`.

    Attributes:
        n_epochs: passes through the data.
        batch_size: frames of a batch.
        learning_rate: its largest value.
        optimizer: "amsgrad", or "adamw" without the largest second moment so far.
        weight_decay: each step takes learning rate × `weight_decay` off every trained parameter; not part of
            the gradient, with either optimizer.
        schedule: what follows the warm-up: "cosine", down to `final_rate` of the learning rate; "constant";
            or "plateau", × `plateau_factor` after `plateau_patience` validations without progress, but
            never below `final_rate` of the learning rate.
        warm_up: fraction of all steps in which the learning rate rises.
        final_rate: see `schedule`.
        plateau_factor: see `schedule`.
        plateau_patience: see `schedule`.
        start: weights of the loss at first; stresses, where there are any, are worth as much as forces.
        end: weights at the end; between, they change geometrically over the last `annealing` of the steps.
        annealing: see there.
        huber: see `loss`.
        clip: largest norm of a gradient, over its mean norm so far.
        ema: decay of the average of the parameters that is kept, per step.
        validate_every: epochs.
        patience: validations without progress after which to stop; None: never.
        max_shapes: shapes that frames are padded to, for each combination of periodic directions.
        seed: of the order of the data and of initial parameters.

    References:
        AMSGrad: Reddi, Kale & Kumar, ICLR 2018, arXiv:1904.09237. AdamW: Loshchilov & Hutter, ICLR 2019,
        arXiv:1711.05101. Cosine: Loshchilov & Hutter, ICLR 2017, arXiv:1608.03983.
    """

    n_epochs: int = 200
    batch_size: int = 4
    learning_rate: float = 2e-2
    optimizer: Literal["amsgrad", "adamw"] = "amsgrad"
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warm_up: float = 0.01
    final_rate: float = 0.01
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    start: Weights = Weights(1.0, 1.0, 1.0)
    end: Weights = Weights(100.0, 1.0, 1.0)
    annealing: float = 0.5
    huber: float | None = None
    clip: float = 10.0
    ema: float = 0.99
    validate_every: int = 1
    patience: int | None = None
    max_shapes: int = 4
    seed: int = 0


def check_recipe(recipe: Recipe) -> None:
    """Refuse settings that cannot work.

    Raises:
        InputError: naming the setting.
    """
    weighed = [name for name in Weights._fields if getattr(recipe.end, name) > 0]
    if not weighed or any(w < 0 for w in (*recipe.start, *recipe.end)):
        raise InputError(
            f"weights start = {recipe.start}, end = {recipe.end}: none may be negative, nor all 0"
        )
    for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        if getattr(recipe, name) not in known:
            raise InputError(f"{name} = {getattr(recipe, name)!r} must be one of {', '.join(known)}")
    for name in ("n_epochs", "batch_size", "validate_every", "max_shapes", "plateau_patience"):
        if getattr(recipe, name) < 1:
            raise InputError(f"{name} = {getattr(recipe, name)} must be at least 1")
    if recipe.patience is not None and recipe.patience < 1:
        raise InputError(f"patience = {recipe.patience} must be at least 1, or None")
    for name in ("learning_rate", "clip") + (() if recipe.huber is None else ("huber",)):
        if not getattr(recipe, name) > 0:
            raise InputError(f"{name} = {getattr(recipe, name)} must be positive")
    if not 0 <= recipe.weight_decay < math.inf:
        raise InputError(f"weight_decay = {recipe.weight_decay} must be 0 or a positive number")
    if not 0 < recipe.plateau_factor < 1:
        raise InputError(f"plateau_factor = {recipe.plateau_factor} must lie between 0 and 1, both excluded")
    for name in ("warm_up", "annealing", "final_rate", "ema"):
        if not 0 <= getattr(recipe, name) <= 1 or (name == "ema" and recipe.ema == 1):
            raise InputError(f"{name} = {getattr(recipe, name)} must lie between 0 and 1")
