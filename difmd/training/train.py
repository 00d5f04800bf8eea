"""`train`: parameters of a potential from energies, forces and stresses."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from difmd.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd.data.batches import Batch, make_batches
from difmd.data.frames import Frame
from difmd.errors import DifmdError, InputError
from difmd.potentials import Params, Potential, validate_inputs
from difmd.progress import progress_bar
from difmd.training.gradient import loss_and_gradient, predict
from difmd.training.loss import Weights, loss
from difmd.training.metrics import Errors, residuals

CHECKPOINT = "training.npz"

# So many batches in a row that yield no finite gradient end a training.
_MOST_SKIPPED = 20


class TrainingError(DifmdError, RuntimeError):
    """A training had to stop; `result` holds the best parameters so far."""

    def __init__(self, message: str, result: TrainingResult) -> None:
        """Keep what the training had."""
        super().__init__(message)
        self.result = result


class TrainingInterrupted(TrainingError, KeyboardInterrupt):
    """Ctrl-C while training; run it again with the same folder to go on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the defaults suit all sets that difmd is tested on.

    Attributes:
        n_epochs: passes through the data.
        batch_size: frames of a batch.
        learning_rate: its largest value.
        warm_up: fraction of all steps in which it rises to that; it then falls to `final_rate` of it along a
            cosine.
        final_rate: see there.
        start: weights of the loss at first.
        end: weights at the end; between, they change geometrically over the last `annealing` of the steps.
        annealing: see there.
        huber: see `loss`.
        clip: largest norm of a gradient, over its mean norm so far.
        ema: decay of the average of the parameters that is kept, per step.
        validate_every: epochs.
        patience: validations without progress after which to stop; None: never.
        max_shapes: shapes that frames are padded to.
        seed: of the order of the data and of initial parameters.
    """

    n_epochs: int = 200
    batch_size: int = 4
    learning_rate: float = 5e-3
    warm_up: float = 0.01
    final_rate: float = 0.01
    start: Weights = Weights(1.0, 1.0, 0.0)
    end: Weights = Weights(30.0, 1.0, 0.0)
    annealing: float = 0.5
    huber: float | None = None
    clip: float = 10.0
    ema: float = 0.99
    validate_every: int = 1
    patience: int | None = None
    max_shapes: int = 4
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The outcome of `train`.

    Attributes:
        params: the averaged parameters with the lowest validation loss.
        last_params: the averaged parameters at the end.
        references: energy of an atom of each element, which `params` know nothing of [eV].
        best_epoch: when `params` were found.
        history: a dict for each validation: `epoch`, `seconds`, `train_loss`, `valid_loss`, and `Errors`.
        n_compiled: functions compiled.
    """

    params: Params
    last_params: Params
    references: Mapping[int, float]
    best_epoch: int
    history: list[dict[str, Any]]
    n_compiled: int


class _State(NamedTuple):
    params: Params
    average: Params
    opt_state: Any
    step: Array
    norm: Array
    best: Params
    best_loss: Array


def train(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    valid: Sequence[Frame],
    references: Mapping[int, float],
    params: Params | None = None,
    recipe: Recipe | None = None,
    is_trained: Callable[[tuple[Any, ...]], bool] | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    on_validation: Callable[[dict[str, Any]], None] | None = None,
) -> TrainingResult:
    """Fit a potential to data by gradient descent.

    Args:
        potential: the energy model.
        frames: to train on.
        valid: to choose the best parameters with, and to report errors of.
        references: energy of an atom of each element [eV], taken off all energies in double precision.
        params: where to start; default: `potential.init`.
        recipe: how; default `Recipe()`.
        is_trained: `is_trained(path)` for the path of each array of params, a tuple of keys; default: all but
            the `scale` and `shift` of networks.
        folder: write a checkpoint there after every validation and resume from it; default: none.
        progress: show progress.
        on_validation: called with each entry of the history.

    Returns:
        `TrainingResult`.

    Raises:
        InputError: bad arguments, no labels to train on, or a checkpoint of another training.
        TrainingError: gradients that are not finite, again and again; `TrainingInterrupted` on Ctrl-C.
    """
    recipe = recipe or Recipe()
    _check(recipe, potential, frames, valid)
    data, check = (
        make_batches(
            part,
            cutoff=potential.cutoff,
            batch_size=recipe.batch_size,
            references=references,
            max_shapes=recipe.max_shapes,
            progress=progress and len(part) > 500,
        )
        for part in (frames, valid)
    )
    if params is None:
        params = potential.init(jax.random.key(recipe.seed))
    is_trained = is_trained or _not_shift_or_scale
    n_steps = max(recipe.n_epochs * len(data), 1)
    optimizer = _optimizer(recipe, n_steps)
    mask = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(is_trained(tuple(getattr(k, "key", getattr(k, "idx", k)) for k in path))),
        params,
    )
    step, evaluate_batch, validation_loss = _compiled(potential, recipe, optimizer, mask, n_steps)

    first = _State(
        params=params,
        average=params,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        norm=jnp.zeros(()),
        best=params,
        best_loss=jnp.asarray(jnp.inf),
    )
    state, history, began_at, best_epoch = first, [], 0, -1
    mark = fingerprint(params, dataclasses.asdict(recipe), data.shapes, check.shapes, dict(references))
    path = None if folder is None else Path(folder) / CHECKPOINT
    if path is not None:
        ensure_writable(path.parent)
        if path.exists():
            state, meta = load_checkpoint(path, first)
            if meta["fingerprint"] != mark:
                raise InputError(f"checkpoint {path} belongs to another training: delete it to start again")
            history, began_at, best_epoch = meta["history"], meta["epoch"], meta["best_epoch"]

    def result() -> TrainingResult:
        compiled = step._cache_size() + evaluate_batch._cache_size()
        return TrainingResult(
            params=state.best if best_epoch >= 0 else state.average,
            last_params=state.average,
            references=dict(references),
            best_epoch=best_epoch,
            history=history,
            n_compiled=compiled,
        )

    spent = history[-1]["seconds"] if history else 0.0
    clock = time.monotonic() - spent
    skipped_in_a_row = 0
    try:
        with progress_bar("training", recipe.n_epochs * len(data), enabled=progress) as advance:
            advance(began_at * len(data))
            for epoch in range(began_at, recipe.n_epochs):
                losses = []
                for selection in data.epoch(recipe.seed, epoch):
                    state, value, was_applied = step(state, data.take(selection))
                    losses.append((value, was_applied))
                    if len(losses) % 10 == 0:
                        # Work that is queued cannot be interrupted.
                        jax.block_until_ready(value)
                    advance(1, note=_note(history))
                for _, was_applied in losses:
                    skipped_in_a_row = 0 if bool(was_applied) else skipped_in_a_row + 1
                if skipped_in_a_row >= _MOST_SKIPPED:
                    raise TrainingError(
                        f"{skipped_in_a_row} batches in a row gave no finite gradient (epoch {epoch}): lower "
                        "the learning rate, or look for frames with atoms on top of each other",
                        result(),
                    )
                if (epoch + 1) % recipe.validate_every and epoch + 1 < recipe.n_epochs:
                    continue
                errors = residuals(functools.partial(evaluate_batch, state.average), check).errors()
                score = validation_loss(errors, recipe.end)
                if score < float(state.best_loss):
                    best_epoch = epoch
                    state = state._replace(best=state.average, best_loss=jnp.asarray(score))
                entry = {
                    "epoch": epoch,
                    "seconds": time.monotonic() - clock,
                    "train_loss": float(np.mean([float(v) for v, ok in losses if bool(ok)] or [np.nan])),
                    "valid_loss": score,
                    "skipped": sum(not bool(ok) for _, ok in losses),
                    **errors._asdict(),
                }
                history.append(entry)
                if on_validation is not None:
                    on_validation(entry)
                if path is not None:
                    meta = {
                        "fingerprint": mark, "history": history, "epoch": epoch + 1, "best_epoch": best_epoch,
                    }  # fmt: skip
                    save_checkpoint(path, state, meta)
                if (
                    recipe.patience is not None
                    and epoch - best_epoch >= recipe.patience * recipe.validate_every
                ):
                    break
    except KeyboardInterrupt as interrupt:
        where = f"; run again with folder={folder!r} to go on" if folder is not None else ""
        raise TrainingInterrupted(f"interrupted in epoch {len(history)}{where}", result()) from interrupt
    return result()


def _compiled(
    potential: Potential, recipe: Recipe, optimizer: optax.GradientTransformation, mask: Any, n_steps: int
) -> tuple[Any, Any, Callable[[Errors, Weights], float]]:
    """A step, an evaluation, and the loss of errors."""

    def weights_at(step: Array) -> Weights:
        begin = (1 - recipe.annealing) * n_steps
        x = jnp.clip((step.astype(jnp.zeros(()).dtype) - begin) / max(n_steps - begin, 1), 0, 1)
        return Weights(*(_geometric(a, b, x) for a, b in zip(recipe.start, recipe.end, strict=True)))

    @jax.jit
    def step(state: _State, batch: Batch) -> tuple[_State, Float[Array, ""], Bool[Array, ""]]:
        weights = weights_at(state.step)
        value, gradient = loss_and_gradient(
            potential, state.params, batch, lambda found: loss(found, batch, weights, huber=recipe.huber)
        )
        gradient = jax.tree.map(lambda g, m: jnp.where(m, g, 0), gradient, mask)
        norm = optax.global_norm(gradient)
        is_good = jnp.isfinite(value) & jnp.isfinite(norm)
        # A gradient far larger than usual, say from atoms that nearly touch, is cut to size.
        usual = jnp.where(state.step > 0, state.norm, norm)
        factor = jnp.minimum(1, recipe.clip * usual / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
        scaled = jax.tree.map(lambda g: jnp.where(is_good, factor * g, 0), gradient)
        # optax counts in integers and multiplies them with numbers.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(scaled, state.opt_state, state.params)
        updates = jax.tree.map(lambda u, m: jnp.where(m, u, 0), updates, mask)
        params = optax.apply_updates(state.params, updates)
        n = state.step.astype(norm.dtype)
        decay = jnp.minimum(recipe.ema, (1 + n) / (10 + n))
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.average, params)
        new = state._replace(
            params=params,
            average=average,
            opt_state=opt_state,
            step=state.step + 1,
            norm=0.99 * usual + 0.01 * jnp.minimum(norm, recipe.clip * usual),
        )
        kept = jax.tree.map(lambda a, b: jnp.where(is_good, a, b), new, state)
        return kept._replace(step=new.step), value, is_good

    @jax.jit
    def evaluate_batch(params: Params, batch: Batch) -> Any:
        return predict(potential, params, batch)

    def validation_loss(errors: Errors, weights: Weights) -> float:
        terms = [(weights.energy, errors.energy_rmse), (weights.forces, errors.forces_rmse)]
        return float(sum(float(w) * e**2 for w, e in terms if math.isfinite(e)))

    return step, evaluate_batch, validation_loss


def _optimizer(recipe: Recipe, n_steps: int) -> optax.GradientTransformation:
    warm_up = max(int(recipe.warm_up * n_steps), 1)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        recipe.learning_rate,
        warm_up,
        max(n_steps, warm_up + 1),
        recipe.final_rate * recipe.learning_rate,
    )
    return optax.chain(optax.scale_by_amsgrad(), optax.scale_by_learning_rate(schedule))


def _geometric(a: Any, b: Any, x: Array) -> Array:
    if a > 0 and b > 0:
        return a * (b / a) ** x
    return a + (b - a) * x


def _not_shift_or_scale(path: tuple[Any, ...]) -> bool:
    return not {"shift", "scale"} & {str(key) for key in path}


def _note(history: list[dict[str, Any]]) -> str:
    if not history:
        return "compiling"
    last = history[-1]
    return f"E {1e3 * last['energy_rmse']:.2f} meV/atom, F {1e3 * last['forces_rmse']:.1f} meV/Å"


def _check(recipe: Recipe, potential: Potential, frames: Sequence[Frame], valid: Sequence[Frame]) -> None:
    if not frames or not valid:
        raise InputError(
            f"there are {len(frames)} frames to train on and {len(valid)} to validate with: give some of both"
        )
    if not any(frame.energy is not None or frame.forces is not None for frame in frames):
        raise InputError("no frame has an energy or forces: read them with the keys that the file uses")
    for name in ("n_epochs", "batch_size", "validate_every"):
        if getattr(recipe, name) < 1:
            raise InputError(f"{name} = {getattr(recipe, name)} must be at least 1")
    if not recipe.learning_rate > 0 or not 0 <= recipe.ema < 1:
        raise InputError(
            f"learning_rate = {recipe.learning_rate} must be positive, ema = {recipe.ema} in 0 ≤ ema < 1"
        )
    for frame in (*frames, *valid):
        try:
            validate_inputs(potential, {}, frame.system)
        except InputError as error:
            raise InputError(f"{frame.source or 'a frame without a source'}: {error}") from error
        for name in frame.labels:
            if not np.isfinite(getattr(frame, name)).all():
                raise InputError(
                    f"{frame.source or 'a frame without a source'}: its {name} is not finite: leave it out"
                )
