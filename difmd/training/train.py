"""`train`: parameters of a potential from energies, forces, stresses and dipoles."""

from __future__ import annotations

import dataclasses
import functools
import json
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
from difmd.data.frames import Frame, hash_frames
from difmd.errors import DifmdError, InputError
from difmd.forces import Evaluation
from difmd.potentials import Params, Potential, validate_inputs
from difmd.progress import progress_bar
from difmd.training.gradient import loss_and_gradient, predict
from difmd.training.loss import NO_CHARGES, Weights, count, loss
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
        max_shapes: shapes that frames are padded to, for each combination of periodic directions.
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
        history: a dict for each validation: `epoch`, `seconds`, `train_loss`, `valid_loss`, `skipped`
            (batches without a finite gradient in that epoch, which were not applied), and `Errors`.
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


class _Progress(NamedTuple):
    """What a checkpoint tells besides arrays."""

    history: list[dict[str, Any]]
    epoch: int
    best_epoch: int
    best_loss: float
    skipped: int
    is_done: bool


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
    _check(recipe, potential, frames, valid, references)
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
    step, evaluate_batch = _compiled(potential, recipe, optimizer, mask, n_steps)

    first = _State(
        params=params,
        average=params,
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        norm=jnp.zeros((), jnp.result_type(*jax.tree.leaves(params))),
    )
    state, best = first, params
    seen = _Progress(history=[], epoch=0, best_epoch=-1, best_loss=math.inf, skipped=0, is_done=False)
    mark = fingerprint(
        params, mask, hash_frames(frames), hash_frames(valid), repr(recipe), potential.cutoff,
        json.dumps(potential.description), json.dumps(sorted(references.items())),
    )  # fmt: skip
    path = None if folder is None else Path(folder) / CHECKPOINT
    if path is not None:
        ensure_writable(path.parent)
        if path.exists():
            (state, best), meta = load_checkpoint(path, (first, params))
            if meta.pop("fingerprint", None) != mark:
                raise InputError(
                    f"checkpoint {path} belongs to another training, of other data, potential or recipe: "
                    "delete it to start again, or choose another folder"
                )
            seen = _Progress(**meta)

    def result() -> TrainingResult:
        return TrainingResult(
            params=best if seen.best_epoch >= 0 else state.average,
            last_params=state.average,
            references=dict(references),
            best_epoch=seen.best_epoch,
            history=seen.history,
            n_compiled=step._cache_size() + evaluate_batch._cache_size(),
        )

    epoch = seen.epoch
    clock = time.monotonic() - (seen.history[-1]["seconds"] if seen.history else 0.0)
    try:
        with progress_bar("training", recipe.n_epochs * len(data), enabled=progress) as advance:
            advance(seen.epoch * len(data))
            for epoch in range(seen.epoch, 0 if seen.is_done else recipe.n_epochs):
                losses = []
                for selection in data.epoch(recipe.seed, epoch):
                    state, value, was_applied = step(state, data.take(selection))
                    losses.append((value, was_applied))
                    if len(losses) % 10 == 0:
                        # Work that is queued cannot be interrupted.
                        jax.block_until_ready(value)
                    advance(1, note=_note(seen.history))
                skipped = seen.skipped
                for _, was_applied in losses:
                    skipped = 0 if bool(was_applied) else skipped + 1
                    if skipped >= _MOST_SKIPPED:
                        raise TrainingError(
                            f"{skipped} batches in a row gave no finite gradient (epoch {epoch}): lower the "
                            "learning rate, or look for frames with atoms on top of each other",
                            result(),
                        )
                seen = seen._replace(epoch=epoch + 1, skipped=skipped)
                if (epoch + 1) % recipe.validate_every and epoch + 1 < recipe.n_epochs:
                    continue
                errors = residuals(functools.partial(evaluate_batch, state.average), check).errors()
                score = _validation_loss(errors, recipe.end)
                if score < seen.best_loss:
                    best = state.average
                    seen = seen._replace(best_epoch=epoch, best_loss=score)
                entry = {
                    "epoch": epoch,
                    "seconds": time.monotonic() - clock,
                    "train_loss": float(np.mean([float(v) for v, ok in losses if bool(ok)] or [np.nan])),
                    "valid_loss": score,
                    "skipped": sum(not bool(ok) for _, ok in losses),
                    **errors._asdict(),
                }
                is_stuck = (
                    recipe.patience is not None
                    and epoch - seen.best_epoch >= recipe.patience * recipe.validate_every
                )
                is_done = is_stuck or epoch + 1 == recipe.n_epochs
                seen = seen._replace(history=[*seen.history, entry], is_done=is_done)
                if on_validation is not None:
                    on_validation(entry)
                if path is not None:
                    save_checkpoint(path, (state, best), {"fingerprint": mark, **seen._asdict()})
                if is_stuck:
                    break
    except KeyboardInterrupt as interrupt:
        where = f"; run again with folder={str(folder)!r} to go on" if folder is not None else ""
        raise TrainingInterrupted(f"interrupted in epoch {epoch}{where}", result()) from interrupt
    if seen.best_epoch < 0:
        raise TrainingError(
            "no validation gave finite errors, or no batch a finite gradient: lower the learning rate, or "
            "look for frames with atoms on top of each other",
            result(),
        )
    return result()


def _compiled(
    potential: Potential, recipe: Recipe, optimizer: optax.GradientTransformation, mask: Any, n_steps: int
) -> tuple[Any, Any]:
    """A step, and an evaluation."""

    def weights_at(step: Array) -> Weights:
        begin = (1 - recipe.annealing) * n_steps
        x = jnp.clip((step.astype(jnp.zeros(()).dtype) - begin) / max(n_steps - begin, 1), 0, 1)
        return Weights(*(_geometric(a, b, x) for a, b in zip(recipe.start, recipe.end, strict=True)))

    @jax.jit
    def step(state: _State, batch: Batch) -> tuple[_State, Float[Array, ""], Bool[Array, ""]]:
        weights = weights_at(state.step)
        counts = count(batch)

        def measure(found: Evaluation, part: Batch) -> Array:
            return loss(found, part, weights, huber=recipe.huber, counts=counts)

        value, gradient = loss_and_gradient(potential, state.params, batch, measure)
        gradient = jax.tree.map(lambda g, m: jnp.where(m, g, 0), gradient, mask)
        norm = optax.global_norm(gradient)
        is_good = jnp.isfinite(value) & jnp.isfinite(norm)
        # A gradient far larger than usual, say from atoms that nearly touch, is cut to size.
        usual = jnp.where(state.norm > 0, state.norm, norm)
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

    return step, evaluate_batch


def _validation_loss(errors: Errors, weights: Weights) -> float:
    """Of the labels there are; ∞ where predictions are not finite."""
    terms = (
        (weights.energy, errors.energy_rmse),
        (weights.forces, errors.forces_rmse),
        (weights.stress, errors.virial_rmse),
        (weights.dipole, errors.dipole_rmse),
    )
    return float(sum(float(w) * e**2 for w, e in terms if float(w) > 0 and not math.isnan(e)))


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
    return path[-1] not in ("scale", "shift") or "network" in path


def _note(history: list[dict[str, Any]]) -> str:
    if not history:
        return "compiling"
    last = history[-1]
    return f"E {1e3 * last['energy_rmse']:.2f} meV/atom, F {1e3 * last['forces_rmse']:.1f} meV/Å"


def _check(
    recipe: Recipe,
    potential: Potential,
    frames: Sequence[Frame],
    valid: Sequence[Frame],
    references: Mapping[int, float],
) -> None:
    if not frames or not valid:
        raise InputError(
            f"there are {len(frames)} frames to train on and {len(valid)} to validate with: give some of both"
        )
    weighed = [name for name in Weights._fields if getattr(recipe.end, name) > 0]
    if not weighed or any(w < 0 for w in (*recipe.start, *recipe.end)):
        raise InputError(
            f"weights start = {recipe.start}, end = {recipe.end}: none may be negative, nor all 0"
        )
    if max(recipe.start.dipole, recipe.end.dipole) > 0:
        _check_dipoles(potential, frames, valid)
    for part, name in ((frames, "train on"), (valid, "validate with")):
        if not any(set(weighed) & set(frame.labels) for frame in part):
            raise InputError(
                f"no frame to {name} has one of the labels {weighed}, which the weights ask for: read them "
                "with the keys that the file uses"
            )
    for name in ("n_epochs", "batch_size", "validate_every", "max_shapes"):
        if getattr(recipe, name) < 1:
            raise InputError(f"{name} = {getattr(recipe, name)} must be at least 1")
    if recipe.patience is not None and recipe.patience < 1:
        raise InputError(f"patience = {recipe.patience} must be at least 1, or None")
    for name in ("learning_rate", "clip") + (() if recipe.huber is None else ("huber",)):
        if not getattr(recipe, name) > 0:
            raise InputError(f"{name} = {getattr(recipe, name)} must be positive")
    for name in ("warm_up", "annealing", "final_rate", "ema"):
        if not 0 <= getattr(recipe, name) <= 1 or (name == "ema" and recipe.ema == 1):
            raise InputError(f"{name} = {getattr(recipe, name)} must lie between 0 and 1")
    elements = {int(z) for frame in (*frames, *valid) if frame.energy is not None for z in set(frame.numbers)}
    missing = sorted(elements - set(references))
    if missing:
        raise InputError(
            f"references has no energy for the elements {missing}: take those of difmd.data.statistics, or "
            "0 where energies are small already"
        )
    for frame in (*frames, *valid):
        source = frame.source or "a frame without a source"
        try:
            validate_inputs(potential, {}, frame.system)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        for name in frame.labels:
            if name == "stress" and not frame.pbc.all():
                raise InputError(f"{source}: it has a stress but no volume: leave the stress out")
            if not np.isfinite(getattr(frame, name)).all():
                raise InputError(f"{source}: its {name} is not finite: leave it out")


def _check_dipoles(potential: Potential, frames: Sequence[Frame], valid: Sequence[Frame]) -> None:
    """What a weight of the dipole needs."""
    if potential.with_multipoles is None:
        raise InputError(NO_CHARGES)
    for part, name in ((frames, "train on"), (valid, "validate with")):
        labelled = [frame for frame in part if frame.dipole is not None]
        if not labelled:
            raise InputError(
                f"no frame to {name} has a dipole, which the weights ask for: read it with "
                "Keys(dipole=...), or let its weight be 0"
            )
        for frame in labelled:
            if frame.pbc.any():
                source = frame.source or "a frame without a source"
                raise InputError(
                    f"{source}: it has a dipole and periodic directions, with which a dipole is not defined: "
                    "leave the dipole out, or put the molecule into no cell"
                )
