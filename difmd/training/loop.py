"""The loop that `train` and `train_committee` share: epochs, validations, checkpoints, stops.

Everything of which there is one for each member is a list; a training of one potential has one member.
"""

from __future__ import annotations

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

from difmd.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd.data.batches import Batch, make_batches
from difmd.data.frames import Frame, hash_frames
from difmd.errors import InputError
from difmd.forces import Evaluation
from difmd.potentials import Params, Potential
from difmd.progress import progress_bar
from difmd.training import kept
from difmd.training.checks import check_data
from difmd.training.layout import Layout
from difmd.training.loss import Weights
from difmd.training.metrics import Errors, residuals
from difmd.training.recipe import Recipe, check_recipe
from difmd.training.result import CommitteeResult, TrainingError, TrainingInterrupted
from difmd.training.selection import Path as Keys
from difmd.training.selection import is_no_scale, mask_of
from difmd.training.step import first_state, machine, optimizer_of, rate_at, weights_at
from difmd.training.stream import stream
from difmd.training.table import Table, duration, milli

CHECKPOINT = "training.npz"

# So many batches in a row that yield no finite gradient end a training.
_MOST_SKIPPED = 20

# Seconds between lines about progress in a log file, which the table tells more of.
_BETWEEN_LINES = 300.0


class _Seen(NamedTuple):
    """What a checkpoint tells besides arrays."""

    histories: list[list[dict[str, Any]]]
    epoch: int
    best_epochs: list[int]
    best_losses: list[float]
    # Validations since the last progress, or since the learning rate was cut.
    waited: list[int]
    skipped: list[int]
    is_done: bool


def run(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    valid: Sequence[Frame],
    references: Mapping[int, float],
    start: Callable[[Recipe], Params],
    recipe: Recipe | None,
    is_trained: Callable[[Keys], bool] | None,
    replay: Sequence[Frame],
    replay_fraction: float,
    n_members: int | None,
    bootstrap: bool,
    folder: str | Path | None,
    time_limit: float | None,
    progress: bool,
    on_validation: Callable[[list[dict[str, Any]]], None],
    result: Callable[[CommitteeResult], Any],
) -> Any:
    """Train; `train` and `train_committee` tell what the arguments mean.

    `start` makes the parameters at first, of a committee with an axis of members; `result` makes what the
    caller and errors get, out of the result of all members.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    check_recipe(recipe)
    check_data(recipe.end, potential, frames, valid, references, replay)
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time_limit = {time_limit} s must be positive, or None")
    data, check = (
        make_batches(
            part,
            cutoff=potential.cutoff,
            batch_size=recipe.batch_size,
            references=references,
            max_shapes=recipe.max_shapes,
            progress=progress and len(part) > 500,
        )
        for part in ((*frames, *replay), valid)
    )
    batches = stream(
        data,
        len(frames),
        seed=recipe.seed,
        replay_fraction=replay_fraction,
        n_members=n_members,
        bootstrap=bootstrap,
    )
    n = n_members or 1
    n_steps = max(recipe.n_epochs * len(batches), 1)
    params = start(recipe)
    one = params if n_members is None else jax.tree.map(lambda x: x[0], params)
    layout = Layout(one)
    chosen = mask_of(one, is_trained or is_no_scale)
    mask = layout.vector(jax.tree.map(lambda p, m: np.full(np.shape(p), m), one, chosen))
    optimizer = optimizer_of(recipe)
    step, evaluate, put, waits = machine(potential, recipe, optimizer, layout, mask, n_steps, n_members)
    learning_rate, weights = rate_at(recipe, n_steps), weights_at(recipe, n_steps)

    begin = functools.partial(first_state, optimizer=optimizer)
    flat = layout.vector(params)
    first = begin(flat) if n_members is None else jax.vmap(begin)(flat)
    state, best = first, jax.device_get(params)
    seen = _Seen([[] for _ in range(n)], 0, [-1] * n, [math.inf] * n, [0] * n, [0] * n, False)
    hashes = {"train": hash_frames(frames), "valid": hash_frames(valid)}
    if replay:
        hashes["replay"] = hash_frames(replay)
    mark = fingerprint(
        params, mask, json.dumps(hashes), replay_fraction if replay else 0, n_members, bootstrap,
        repr(recipe), potential.cutoff, json.dumps(potential.description),
        json.dumps(sorted(references.items())),
    )  # fmt: skip
    place = None if folder is None else Path(folder)
    if place is not None:
        ensure_writable(place)
        if (path := place / CHECKPOINT).exists():
            (state, best), meta = load_checkpoint(path, (first, params))
            if meta.pop("fingerprint", None) != mark:
                raise InputError(
                    f"checkpoint {path} belongs to another training, of other data, potential or recipe: "
                    "delete it to start again, or choose another folder"
                )
            seen, best = _Seen(**meta), jax.device_get(best)
    state = put(state)
    source = kept.provenance(
        recipe,
        references=references,
        counts={"train": len(frames), "valid": len(valid), **({"replay": len(replay)} if replay else {})},
        hashes=hashes,
    )
    is_kept = place is not None and potential.description is not None
    notes = () if is_kept or place is None else (kept.NO_DESCRIPTION,)
    before = seen.histories[0][-1]["seconds"] if seen.histories[0] else 0.0
    clock = time.monotonic() - before

    def member(tree: Any, k: int) -> Any:
        return tree if n_members is None else jax.tree.map(lambda x: x[k], tree)

    def together(members: list[Any]) -> Any:
        return members[0] if n_members is None else jax.tree.map(lambda *x: np.stack(x), *members)

    def predicted(params: Params, batch: Batch) -> Evaluation:
        return evaluate(params, put(batch) if n_members is None else batch)

    def outcome() -> CommitteeResult:
        last = layout.tree(jax.device_get(state.average))
        chosen = [member(best if e >= 0 else last, k) for k, e in enumerate(seen.best_epochs)]
        return CommitteeResult(
            params=jax.tree.map(jnp.asarray, together(chosen)),
            last_params=jax.tree.map(jnp.asarray, last),
            references=dict(references),
            best_epochs=tuple(seen.best_epochs),
            histories=seen.histories,
            n_compiled=step._cache_size() + evaluate._cache_size(),
            seconds=seen.histories[0][-1]["seconds"] if seen.is_done else time.monotonic() - clock,
            is_complete=seen.is_done,
            notes=notes,
        )

    table = Table(recipe.n_epochs, recipe.validate_every, enabled=progress and not seen.is_done)
    for note in notes:
        table.say(note)
    if seen.epoch:
        table.say(f"resumed after {seen.epoch} epochs and {duration(before)}")
    epoch = first_epoch = seen.epoch
    # What is left is told from epochs after the first, which compiles.
    compiled = validated = time.monotonic()
    try:
        with progress_bar(
            "training", recipe.n_epochs * len(batches), enabled=progress, every=_BETWEEN_LINES
        ) as advance:
            advance(seen.epoch * len(batches))
            for epoch in range(seen.epoch, 0 if seen.is_done else recipe.n_epochs):
                losses = []
                for selections in batches.epoch(epoch):
                    state, value, was_applied = step(state, put(batches.take(selections)))
                    losses.append((value, was_applied))
                    if waits or len(losses) % 10 == 0:
                        # Work that is queued cannot be interrupted.
                        jax.block_until_ready(value)
                    advance(1, note=_note(seen.histories))
                values, applied = (
                    np.array([np.atleast_1d(x[i]) for x in jax.device_get(losses)]) for i in range(2)
                )
                most, skipped = _skipped(seen.skipped, applied)
                if most >= _MOST_SKIPPED:
                    raise TrainingError(
                        f"{most} batches in a row gave no finite gradient (epoch {epoch}): lower the "
                        "learning rate, or look for frames with atoms on top of each other",
                        result(outcome()),
                    )
                seen = seen._replace(epoch=epoch + 1, skipped=skipped)
                if epoch == first_epoch:
                    compiled = time.monotonic()
                if (epoch + 1) % recipe.validate_every and epoch + 1 < recipe.n_epochs:
                    continue
                average = layout.tree(jax.device_get(state.average))
                last_step = (epoch + 1) * len(batches) - 1
                base_rate = float(learning_rate(last_step))
                weights_now = {name: float(w) for name, w in weights(last_step)._asdict().items()}
                found = [
                    residuals(functools.partial(predicted, member(average, k)), check).errors()
                    for k in range(n)
                ]
                scores = [_validation_loss(errors, recipe.end) for errors in found]
                rates = np.atleast_1d(np.array(state.rate))
                entries = [
                    {
                        "epoch": epoch,
                        "seconds": time.monotonic() - clock,
                        "train_loss": float(np.mean(good)) if len(good := values[ok, k]) else math.nan,
                        "valid_loss": scores[k],
                        "skipped": int(np.sum(~ok)),
                        "learning_rate": base_rate * float(rates[k]),
                        "weights": weights_now,
                        **found[k]._asdict(),
                    }
                    for k, ok in enumerate(applied.T)
                ]
                seen, is_better, lower = _after_validation(seen, recipe, scores, entries, rates)
                chosen = [member(average if better else best, k) for k, better in enumerate(is_better)]
                best = together(chosen)
                if lower is not rates:
                    state = put(state._replace(rate=jnp.asarray(lower if n_members else lower[0])))
                is_done = seen.is_done
                now = time.monotonic()
                # Another validation would come too late.
                is_late = time_limit is not None and now - began + (now - validated) > time_limit
                validated = now
                each = (now - compiled) / (epoch - first_epoch) if epoch > first_epoch else math.nan
                table.show(
                    entries,
                    is_best=all(is_better),
                    eta=each * (recipe.n_epochs - epoch - 1),
                    is_last=is_done or is_late,
                )
                on_validation(entries)
                if place is not None:
                    if is_kept:
                        # Before the checkpoint: what is written twice after a crash is the same.
                        sources = [
                            {
                                **source,
                                **({"member": k} if n_members else {}),
                                "validation": kept.plain(entry),
                            }
                            for k, entry in enumerate(entries)
                        ]
                        kept.keep(place, "last", potential, [member(average, k) for k in range(n)], sources)
                        sources = [s if new else {} for s, new in zip(sources, is_better, strict=True)]
                        kept.keep(place, "best", potential, chosen, sources)
                    meta = {"fingerprint": mark, **seen._asdict()}
                    save_checkpoint(place / CHECKPOINT, (state, best), meta)
                if is_late and not is_done:
                    table.say(
                        f"stopped after {duration(now - began)}: another validation would exceed the limit"
                    )
                if is_late or is_done:
                    break
    except KeyboardInterrupt as interrupt:
        where = f"; run again with folder={str(folder)!r} to go on" if folder is not None else ""
        raise TrainingInterrupted(f"interrupted in epoch {epoch}{where}", result(outcome())) from interrupt
    if min(seen.best_epochs) < 0 and (seen.is_done or not seen.histories[0]):
        raise TrainingError(
            "no validation gave finite errors, or no batch a finite gradient: lower the learning rate, or "
            "look for frames with atoms on top of each other",
            result(outcome()),
        )
    return result(outcome())


def _after_validation(
    seen: _Seen,
    recipe: Recipe,
    scores: list[float],
    entries: list[dict[str, Any]],
    rates: np.ndarray,
) -> tuple[_Seen, list[bool], np.ndarray]:
    """What is known now, which members are better than ever, and factors of their learning rates."""
    epoch = entries[0]["epoch"]
    is_better = [score < old for score, old in zip(scores, seen.best_losses, strict=True)]
    best_epochs = [epoch if better else e for better, e in zip(is_better, seen.best_epochs, strict=True)]
    waited = [0 if better else w + 1 for better, w in zip(is_better, seen.waited, strict=True)]
    if recipe.schedule == "plateau" and max(waited) >= recipe.plateau_patience:
        is_flat = [w >= recipe.plateau_patience for w in waited]
        lower = np.maximum(rates * recipe.plateau_factor, recipe.final_rate)
        rates = np.where(is_flat, lower, rates).astype(rates.dtype)
        waited = [0 if flat else w for flat, w in zip(is_flat, waited, strict=True)]
    is_stuck = recipe.patience is not None and all(
        epoch - e >= recipe.patience * recipe.validate_every for e in best_epochs
    )
    seen = seen._replace(
        histories=[[*history, entry] for history, entry in zip(seen.histories, entries, strict=True)],
        best_losses=[min(pair) for pair in zip(scores, seen.best_losses, strict=True)],
        best_epochs=best_epochs,
        waited=waited,
        is_done=is_stuck or epoch + 1 == recipe.n_epochs,
    )
    return seen, is_better, rates


def _skipped(before: list[int], applied: np.ndarray) -> tuple[int, list[int]]:
    """The longest row of batches that were not applied, and how many the last ones are, of each member."""
    most, skipped = 0, before
    for was_applied in applied:
        skipped = [0 if good else n + 1 for good, n in zip(was_applied, skipped, strict=True)]
        most = max(most, *skipped)
    return most, skipped


def _validation_loss(errors: Errors, weights: Weights) -> float:
    """Of the labels there are; ∞ where predictions are not finite."""
    terms = (
        (weights.energy, errors.energy_rmse),
        (weights.forces, errors.forces_rmse),
        (weights.stress, errors.virial_rmse),
        (weights.dipole, errors.dipole_rmse),
    )
    return float(sum(float(w) * e**2 for w, e in terms if float(w) > 0 and not math.isnan(e)))


def _note(histories: list[list[dict[str, Any]]]) -> str:
    if not histories[0]:
        return "compiling"
    last = [history[-1] for history in histories]
    energy, forces = (
        float(np.mean([entry[name] for entry in last])) for name in ("energy_rmse", "forces_rmse")
    )
    return f"E {milli(energy)} meV/atom, F {milli(forces)} meV/Å"
