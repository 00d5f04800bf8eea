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
from jax.flatten_util import ravel_pytree

from difmd._internal.allocator import keep_memory
from difmd._internal.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd._internal.progress import Advance, progress_bar
from difmd.data.batches import Batch, Batches, make_batches
from difmd.data.frames import Frame, hash_frames
from difmd.errors import InputError
from difmd.forces import Evaluation
from difmd.potentials import Params, Potential
from difmd.training import model_files
from difmd.training.checks import check_data
from difmd.training.losses import Weights
from difmd.training.metrics import Errors, residuals
from difmd.training.recipe import Recipe, check_recipe
from difmd.training.result import CommitteeResult, TrainingError, TrainingInterrupted
from difmd.training.selection import Path as Keys
from difmd.training.selection import is_no_scale, mask_of
from difmd.training.step import State, first_state, machine, optimizer_of, rate_at, weights_at
from difmd.training.stream import Stream, stream
from difmd.training.table import Table, duration, milli

CHECKPOINT = "training.npz"

# So many batches in a row that yield no finite gradient end a training.
_MOST_SKIPPED = 20

# Seconds between lines about progress in a log file, which the table tells more of.
_BETWEEN_LINES = 300.0


class _FailedError(Exception):
    """It cannot go on; `run` makes a `TrainingError` of it, with what there is by then."""


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
    keep_memory()
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
    parts = {"train": frames, "valid": valid, **({"replay": replay} if replay else {})}
    training = _Training(
        potential, recipe, batches, check, parts, references, start(recipe), is_trained or is_no_scale, folder
    )
    # When another validation would come too late.
    deadline = math.inf if time_limit is None else began + time_limit
    try:
        _go_on(training, deadline, progress, on_validation)
    except KeyboardInterrupt as interrupt:
        where = f"; run again with folder={str(folder)!r} to go on" if folder is not None else ""
        raise TrainingInterrupted(
            f"interrupted in epoch {training.epoch}{where}", result(training.outcome())
        ) from interrupt
    except _FailedError as failed:
        raise TrainingError(str(failed), result(training.outcome())) from None
    return result(training.outcome())


def _go_on(
    training: _Training,
    deadline: float,
    progress: bool,
    on_validation: Callable[[list[dict[str, Any]]], None],
) -> None:
    """All epochs that are left, or those until the deadline [s of the clock]."""
    recipe, n_batches = training.recipe, len(training.batches)
    began, first = time.monotonic(), training.seen.epoch
    table = Table(recipe.n_epochs, recipe.validate_every, enabled=progress and not training.seen.is_done)
    for note in training.notes:
        table.say(note)
    if first:
        table.say(f"resumed after {first} epochs and {duration(training.seconds_before)}")
    # What is left is told from epochs after the first, which compiles.
    compiled = validated = began
    with progress_bar(
        "training", recipe.n_epochs * n_batches, enabled=progress, every=_BETWEEN_LINES
    ) as advance:
        advance(first * n_batches)
        for epoch in range(first, 0 if training.seen.is_done else recipe.n_epochs):
            values, applied = training.train(epoch, advance)
            if epoch == first:
                compiled = time.monotonic()
            if (epoch + 1) % recipe.validate_every and epoch + 1 < recipe.n_epochs:
                continue
            entries, is_better = training.validate(epoch, values, applied)
            now = time.monotonic()
            is_done, is_late = training.seen.is_done, now + (now - validated) > deadline
            validated = now
            each = (now - compiled) / (epoch - first) if epoch > first else math.nan
            table.show(
                entries,
                is_best=all(is_better),
                eta=each * (recipe.n_epochs - epoch - 1),
                is_last=is_done or is_late,
            )
            on_validation(entries)
            training.keep(entries, is_better)
            if is_late and not is_done:
                taken = duration(now - began)
                table.say(f"stopped after {taken}: another validation would exceed the limit")
            if is_late or is_done:
                break
    if min(training.seen.best_epochs) < 0 and (training.seen.is_done or not training.seen.histories[0]):
        raise _FailedError(
            "no validation gave finite errors, or no batch a finite gradient: lower the learning rate, or "
            "look for frames with atoms on top of each other"
        )


class _Training:
    """What a training works on and what it has come to; resumed where its folder has a checkpoint."""

    def __init__(
        self,
        potential: Potential,
        recipe: Recipe,
        batches: Stream,
        check: Batches,
        parts: Mapping[str, Sequence[Frame]],
        references: Mapping[int, float],
        params: Params,
        chooses: Callable[[Keys], bool],
        folder: str | Path | None,
    ) -> None:
        """`check` is for validations; `parts` are all frames by what they are for."""
        self.potential, self.recipe, self.references = potential, recipe, references
        self.batches, self.check, self.n_members = batches, check, batches.n_members
        n_steps = max(recipe.n_epochs * len(batches), 1)
        one = params if self.n_members is None else jax.tree.map(lambda x: x[0], params)
        _, unravel = ravel_pytree(one)
        self.unravel = jax.jit(unravel if self.n_members is None else jax.vmap(unravel))
        chosen = mask_of(one, chooses)
        mask, _ = ravel_pytree(jax.tree.map(lambda p, m: np.full(np.shape(p), m), one, chosen))
        optimizer = optimizer_of(recipe)
        self.machine = machine(potential, recipe, optimizer, unravel, mask, n_steps, self.n_members)
        self.learning_rate, self.weights = rate_at(recipe, n_steps), weights_at(recipe, n_steps)

        n = self.n_members or 1

        def begin(params: Params) -> State:
            return first_state(ravel_pytree(params)[0], optimizer)

        state, best = begin(params) if self.n_members is None else jax.vmap(begin)(params), params
        seen = _Seen([[] for _ in range(n)], 0, [-1] * n, [math.inf] * n, [0] * n, [0] * n, False)
        hashes = {name: hash_frames(part) for name, part in parts.items()}
        self.mark = fingerprint(
            params, mask, json.dumps(hashes), list(batches.n_old), batches.n_members, batches.bootstrap,
            repr(recipe), potential.cutoff, json.dumps(potential.description),
            json.dumps(sorted(references.items())),
        )  # fmt: skip
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            ensure_writable(self.folder)
            if (path := self.folder / CHECKPOINT).exists():
                (state, best), meta = load_checkpoint(path, (state, best))
                if meta.pop("fingerprint", None) != self.mark:
                    raise InputError(
                        f"checkpoint {path} belongs to another training, of other data, potential or recipe: "
                        "delete it to start again, or choose another folder"
                    )
                seen = _Seen(**meta)
        self.seen, self.epoch = seen, seen.epoch
        self.state, self.best = self.machine.put(state), jax.device_get(best)
        counts = {name: len(part) for name, part in parts.items()}
        self.source = model_files.provenance(recipe, references=references, counts=counts, hashes=hashes)
        self.is_kept = self.folder is not None and potential.description is not None
        self.notes = () if self.is_kept or self.folder is None else (model_files.NO_DESCRIPTION,)
        self.seconds_before = seen.histories[0][-1]["seconds"] if seen.histories[0] else 0.0
        self.clock = time.monotonic() - self.seconds_before

    def train(self, epoch: int, advance: Advance) -> tuple[np.ndarray, np.ndarray]:
        """An epoch: the losses, and whether the gradients were finite and applied; [batches, members]."""
        self.epoch = epoch
        losses = []
        for selections in self.batches.epoch(epoch):
            batch = self.machine.put(self.batches.take(selections))
            self.state, value, was_applied = self.machine.step(self.state, batch)
            losses.append((value, was_applied))
            # While a step is made the next batch is put together; but queued work cannot be interrupted.
            if self.machine.waits or len(losses) % 10 == 0:
                jax.block_until_ready(value)
            advance(1, note=_note(self.seen.histories))
        values, applied = (np.array([np.atleast_1d(x[i]) for x in jax.device_get(losses)]) for i in range(2))
        most, skipped = _skipped(self.seen.skipped, applied)
        if most >= _MOST_SKIPPED:
            raise _FailedError(
                f"{most} batches in a row gave no finite gradient (epoch {epoch}): lower the learning rate, "
                "or look for frames with atoms on top of each other"
            )
        self.seen = self.seen._replace(epoch=epoch + 1, skipped=skipped)
        return values, applied

    def validate(
        self, epoch: int, values: np.ndarray, applied: np.ndarray
    ) -> tuple[list[dict[str, Any]], list[bool]]:
        """Entries of the histories, and which members are better than ever."""
        average = self._average()
        found = [
            residuals(functools.partial(self._predict, self._member(average, k)), self.check).errors()
            for k in range(self.n_members or 1)
        ]
        scores = [_validation_loss(errors, self.recipe.end) for errors in found]
        rates = np.atleast_1d(np.array(self.state.rate))
        last_step = (epoch + 1) * len(self.batches) - 1
        base_rate = float(self.learning_rate(last_step))
        weights = {name: float(w) for name, w in self.weights(last_step)._asdict().items()}
        entries = [
            {
                "epoch": epoch,
                "seconds": time.monotonic() - self.clock,
                "train_loss": float(np.mean(good)) if len(good := values[ok, k]) else math.nan,
                "valid_loss": scores[k],
                "skipped": int(np.sum(~ok)),
                "learning_rate": base_rate * float(rates[k]),
                "weights": weights,
                **found[k]._asdict(),
            }
            for k, ok in enumerate(applied.T)
        ]
        self.seen, is_better, lower = _after_validation(self.seen, self.recipe, scores, entries, rates)
        self.best = self._together(
            [self._member(average if better else self.best, k) for k, better in enumerate(is_better)]
        )
        if lower is not rates:
            rate = jnp.asarray(lower if self.n_members else lower[0])
            self.state = self.machine.put(self.state._replace(rate=rate))
        return entries, is_better

    def keep(self, entries: list[dict[str, Any]], is_better: list[bool]) -> None:
        """Write the last potentials and those that are better, and then the checkpoint."""
        if self.folder is None:
            return
        if self.is_kept:
            # Before the checkpoint: what is written twice after a crash is the same.
            average, members = self._average(), range(len(entries))
            sources = [
                {
                    **self.source,
                    **({"member": k} if self.n_members else {}),
                    "validation": model_files.plain(entry),
                }
                for k, entry in enumerate(entries)
            ]
            last, best = ([self._member(tree, k) for k in members] for tree in (average, self.best))
            model_files.keep(self.folder, "last", self.potential, last, sources)
            sources = [s if new else {} for s, new in zip(sources, is_better, strict=True)]
            model_files.keep(self.folder, "best", self.potential, best, sources)
        meta = {"fingerprint": self.mark, **self.seen._asdict()}
        save_checkpoint(self.folder / CHECKPOINT, (self.state, self.best), meta)

    def outcome(self) -> CommitteeResult:
        """What there is by now."""
        seen, last = self.seen, self._average()
        chosen = [self._member(self.best if e >= 0 else last, k) for k, e in enumerate(seen.best_epochs)]
        return CommitteeResult(
            params=jax.tree.map(jnp.asarray, self._together(chosen)),
            last_params=jax.tree.map(jnp.asarray, last),
            references=dict(self.references),
            best_epochs=tuple(seen.best_epochs),
            histories=seen.histories,
            n_compiled=self.machine.step._cache_size() + self.machine.evaluate._cache_size(),
            seconds=seen.histories[0][-1]["seconds"] if seen.is_done else time.monotonic() - self.clock,
            is_complete=seen.is_done,
            notes=self.notes,
        )

    def _average(self) -> Params:
        return jax.device_get(self.unravel(self.state.average))

    def _member(self, tree: Any, k: int) -> Any:
        return tree if self.n_members is None else jax.tree.map(lambda x: x[k], tree)

    def _together(self, members: list[Any]) -> Any:
        return members[0] if self.n_members is None else jax.tree.map(lambda *x: np.stack(x), *members)

    def _predict(self, params: Params, batch: Batch) -> Evaluation:
        return self.machine.evaluate(params, self.machine.put(batch) if self.n_members is None else batch)


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
