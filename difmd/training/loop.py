"""The loop shared by `train` and `train_committee`: epochs, validations, checkpoints, time limits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from difmd._internal.allocator import keep_memory
from difmd._internal.progress import progress_bar
from difmd.data.batches import Batches, make_batches
from difmd.data.frames import Frame
from difmd.errors import InputError
from difmd.potentials import Params, Potential
from difmd.potentials.base import check_finite, check_model
from difmd.training.checks import check_data
from difmd.training.recipe import Recipe, check_recipe
from difmd.training.result import TrainingError, TrainingInterrupted
from difmd.training.selection import Path as Keys
from difmd.training.selection import is_not_scale
from difmd.training.session import Session, TrainingFailure
from difmd.training.stream import stream
from difmd.training.table import Table, duration

# Seconds between lines of progress in a log file, in which the table reports more.
_BETWEEN_LINES = 300.0


def run(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    valid: Sequence[Frame],
    references: Mapping[int, float],
    params: Params | None,
    recipe: Recipe | None,
    is_trained: Callable[[Keys], bool] | None,
    replay: Sequence[Frame],
    replay_fraction: float,
    folder: str | Path | None,
    time_limit: float | None,
    progress: bool,
    on_validation: Callable[[Any], None] | None,
    n_members: int | None = None,
    bootstrap: bool = False,
) -> Any:
    """`train`, or `train_committee` of `n_members`; both document the arguments."""
    deadline = _deadline(time_limit)
    recipe = recipe or Recipe()
    check_recipe(recipe)
    check_data(recipe.final_weights, potential, frames, valid, references, replay)
    params = _initial_params(potential, params, recipe.seed, n_members)
    keep_memory()

    def batches(part: Sequence[Frame]) -> Batches:
        return make_batches(
            part,
            cutoff=potential.cutoff,
            batch_size=recipe.batch_size,
            references=references,
            max_shapes=recipe.max_shapes,
            progress=progress and len(part) > 500,
        )

    everything = batches((*frames, *replay))
    mixed = stream(
        everything, len(frames), replay_fraction, seed=recipe.seed, n_members=n_members, bootstrap=bootstrap
    )
    parts = {"train": frames, "valid": valid, **({"replay": replay} if replay else {})}
    chosen = is_trained or is_not_scale
    session = Session(potential, recipe, mixed, batches(valid), parts, references, params, chosen, folder)
    try:
        _train(session, deadline, progress, on_validation)
    except KeyboardInterrupt as interrupt:
        remedy = "" if folder is None else f"; call it again with folder={str(folder)!r} to continue"
        message = f"interrupted in epoch {session.epoch}{remedy}"
        raise TrainingInterrupted(message, session.result()) from interrupt
    except TrainingFailure as failure:
        raise TrainingError(str(failure), session.result()) from None
    return session.result()


def _deadline(time_limit: float | None) -> float:
    """The time of the clock at which training must have ended [s]."""
    if time_limit is None:
        return math.inf
    if not time_limit > 0:
        raise InputError(f"time_limit = {time_limit} s must be positive, or None")
    return time.monotonic() + time_limit


def _train(
    session: Session, deadline: float, progress: bool, on_validation: Callable[[Any], None] | None
) -> None:
    recipe, n_batches = session.recipe, len(session.batches)
    began, first = time.monotonic(), session.progress.epoch
    was_done = session.progress.is_done
    table = Table(recipe.n_epochs, recipe.validate_every, enabled=progress and not was_done)
    for note in session.notes:
        table.print(note)
    if first:
        table.print(f"resumed after {first} epochs and {duration(session.seconds_before)}")
    # The remaining time is estimated without the first epoch, which compiles.
    compiled = validated = began
    with progress_bar(
        "training", recipe.n_epochs * n_batches, enabled=progress, every=_BETWEEN_LINES
    ) as advance:
        advance(first * n_batches)
        for epoch in range(first, 0 if was_done else recipe.n_epochs):
            values, applied = session.train_epoch(epoch, advance)
            if epoch == first:
                compiled = time.monotonic()
            if (epoch + 1) % recipe.validate_every and epoch + 1 < recipe.n_epochs:
                continue
            entries, is_better = session.validate(epoch, values, applied)
            now = time.monotonic()
            is_done, is_late = session.progress.is_done, now + (now - validated) > deadline
            validated = now
            per_epoch = (now - compiled) / (epoch - first) if epoch > first else math.nan
            eta = per_epoch * (recipe.n_epochs - epoch - 1)
            table.show(entries, is_best=all(is_better), eta=eta, is_last=is_done or is_late)
            if on_validation is not None:
                on_validation(entries[0] if session.n_members is None else entries)
            session.save(entries, is_better)
            if is_late and not is_done:
                table.print(
                    f"stopped after {duration(now - began)}: another validation would exceed the time limit"
                )
            if is_late or is_done:
                break
    seen = session.progress
    if min(seen.best_epochs) < 0 and (seen.is_done or not seen.histories[0]):
        raise TrainingFailure(
            "no validation gave finite errors, or no batch a finite gradient: lower the learning rate, or "
            "look for frames in which atoms overlap"
        )


def _initial_params(potential: Potential, params: Params | None, seed: int, n_members: int | None) -> Params:
    """Initial parameters, with an axis of members in a committee."""
    if params is None:
        if n_members is None:
            return potential.init(jax.random.key(seed))
        keys = [jax.random.key(seed + k) for k in range(n_members)]
        return jax.tree.map(lambda *x: jnp.stack(x), *(potential.init(key) for key in keys))
    check_finite(params)
    shape = jax.eval_shape(potential.init, jax.random.key(seed))
    expected = [x.shape for x in jax.tree.leaves(shape)]
    given = [np.shape(x) for x in jax.tree.leaves(params)]
    if n_members is not None and given == [(n_members, *shape) for shape in expected]:
        check_model(potential, jax.tree.map(lambda x: x[0], params))
        return jax.tree.map(jnp.asarray, params)
    if n_members is None:
        check_model(potential, params)
        return params
    try:
        check_model(potential, params)
    except InputError as error:
        raise InputError(
            f"{error}: the parameters of one potential, or of all members with an axis of n_members = "
            f"{n_members} in front"
        ) from error
    return jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * n_members), params)
