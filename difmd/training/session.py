"""`Session`: the state of a training between its epochs, resumed from a checkpoint if there is one.

Quantities of each member are lists; a training of one potential has one member.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from difmd._internal.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd._internal.progress import Advance
from difmd.data.batches import Batch, Batches
from difmd.data.frames import Frame, hash_frames
from difmd.errors import InputError
from difmd.forces import Evaluation
from difmd.potentials import Params, Potential
from difmd.training import model_files
from difmd.training.metrics import residuals
from difmd.training.progress import Progress, after_validation, count_skipped, no_progress, validation_loss
from difmd.training.recipe import Recipe
from difmd.training.result import CommitteeResult, Entry, TrainingResult
from difmd.training.selection import Path as Keys
from difmd.training.selection import mask_of
from difmd.training.step import TrainState, compile_steps, initial_state, make_problem
from difmd.training.stream import Stream
from difmd.training.table import milli

CHECKPOINT = "training.npz"

# Training stops after this number of batches in a row without a finite gradient.
_MOST_SKIPPED = 20


class TrainingFailure(Exception):
    """The training cannot continue; `run` turns it into a `TrainingError` with the partial result."""


class Session:
    """What a training works on, and its state."""

    def __init__(
        self,
        potential: Potential,
        recipe: Recipe,
        batches: Stream,
        valid: Batches,
        parts: Mapping[str, Sequence[Frame]],
        references: Mapping[int, float],
        params: Params,
        is_trained: Callable[[Keys], bool],
        folder: str | Path | None,
    ) -> None:
        """Start, or resume from the checkpoint of the folder; `parts` are all frames by their purpose."""
        self.potential, self.recipe, self.references = potential, recipe, references
        self.batches, self.valid, self.n_members = batches, valid, batches.n_members
        n_steps = max(recipe.n_epochs * len(batches), 1)
        first = self._member(params, 0)
        _, unravel = ravel_pytree(first)
        self.unravel = jax.jit(unravel if self.n_members is None else jax.vmap(unravel))
        chosen = mask_of(first, is_trained)
        mask, _ = ravel_pytree(jax.tree.map(lambda p, m: np.full(np.shape(p), m), first, chosen))
        self.problem = make_problem(potential, recipe, unravel, mask, n_steps)
        self.steps = compile_steps(self.problem, self.n_members)

        def begin(params: Params) -> TrainState:
            return initial_state(ravel_pytree(params)[0], self.problem.optimizer)

        state, best = begin(params) if self.n_members is None else jax.vmap(begin)(params), params
        hashes = {name: hash_frames(part) for name, part in parts.items()}
        counts = {name: len(part) for name, part in parts.items()}
        self.source = model_files.provenance(recipe, references, counts, hashes)
        texts = [json.dumps(self.source["recipe"]), json.dumps(hashes)]
        mixing = (list(batches.n_old), batches.n_members, batches.bootstrap)
        model = (potential.cutoff, json.dumps(potential.description), json.dumps(sorted(references.items())))
        self.fingerprint = fingerprint(params, mask, *texts, *mixing, *model)
        self.folder = None if folder is None else Path(folder)
        progress = no_progress(self.n_members or 1)
        if self.folder is not None:
            ensure_writable(self.folder)
            state, best, progress = self._resumed(self.folder / CHECKPOINT, state, best, progress)
        self.progress, self.epoch = progress, progress.epoch
        self.state, self.best = self.steps.put(state), jax.device_get(best)
        self.saves_models = self.folder is not None and potential.description is not None
        self.notes = () if self.saves_models or self.folder is None else (model_files.NO_DESCRIPTION,)
        self.seconds_before = progress.histories[0][-1]["seconds"] if progress.histories[0] else 0.0
        self.clock = time.monotonic() - self.seconds_before

    def _resumed(
        self, path: Path, state: TrainState, best: Params, progress: Progress
    ) -> tuple[TrainState, Params, Progress]:
        if not path.exists():
            return state, best, progress
        (state, best), meta = load_checkpoint(path, (state, best))
        if meta.pop("fingerprint", None) != self.fingerprint:
            raise InputError(
                f"checkpoint {path} belongs to another training, with other data, potential or recipe: "
                "delete it to start again, or choose another folder"
            )
        return state, best, Progress(**meta)

    def train_epoch(self, epoch: int, advance: Advance) -> tuple[np.ndarray, np.ndarray]:
        """Make the steps of an epoch; return losses and whether each was applied; [batches, members]."""
        self.epoch = epoch
        losses = []
        for selections in self.batches.epoch(epoch):
            batch = self.steps.put(self.batches.batch(selections))
            self.state, value, was_applied = self.steps.step(self.state, batch)
            losses.append((value, was_applied))
            # The next batch is assembled during a step; but queued steps cannot be interrupted.
            if self.steps.must_wait or len(losses) % 10 == 0:
                jax.block_until_ready(value)
            advance(1, note=_note(self.progress.histories))
        values, applied = (np.array([np.atleast_1d(x[i]) for x in jax.device_get(losses)]) for i in range(2))
        most, skipped = count_skipped(self.progress.skipped, applied)
        if most >= _MOST_SKIPPED:
            raise TrainingFailure(
                f"{most} batches in a row gave no finite gradient (epoch {epoch}): lower the learning rate, "
                "or look for frames in which atoms overlap"
            )
        self.progress = self.progress._replace(epoch=epoch + 1, skipped=skipped)
        return values, applied

    def validate(self, epoch: int, values: np.ndarray, applied: np.ndarray) -> tuple[list[Entry], list[bool]]:
        """Validate the averaged parameters; return entries of the histories and which members improved."""
        average = self._average()
        errors = [
            residuals(functools.partial(self._predict, self._member(average, k)), self.valid).errors()
            for k in range(self.n_members or 1)
        ]
        losses = [validation_loss(e, self.recipe.final_weights) for e in errors]
        rates = np.atleast_1d(np.array(self.state.rate))
        last_step = (epoch + 1) * len(self.batches) - 1
        base_rate = float(self.problem.learning_rate(last_step))
        weights = {name: float(w) for name, w in self.problem.weights(last_step)._asdict().items()}
        entries = [
            {
                "epoch": epoch,
                "seconds": time.monotonic() - self.clock,
                "train_loss": float(np.mean(good)) if len(good := values[ok, k]) else math.nan,
                "valid_loss": losses[k],
                "skipped": int(np.sum(~ok)),
                "learning_rate": base_rate * float(rates[k]),
                "weights": weights,
                **errors[k]._asdict(),
            }
            for k, ok in enumerate(applied.T)
        ]
        self.progress, is_better, reduced = after_validation(
            self.progress, self.recipe, losses, entries, rates
        )
        self.best = self._stacked(
            [self._member(average if better else self.best, k) for k, better in enumerate(is_better)]
        )
        if not np.array_equal(reduced, rates):
            rate = jnp.asarray(reduced if self.n_members else reduced[0])
            self.state = self.steps.put(self.state._replace(rate=rate))
        return entries, is_better

    def save(self, entries: list[Entry], is_better: list[bool]) -> None:
        """Write the last models, those that have improved, and then the checkpoint."""
        if self.folder is None:
            return
        if self.saves_models:
            # Before the checkpoint: after a crash the same files are written again.
            average = self._average()
            for k, entry in enumerate(entries):
                member = {"member": k} if self.n_members else {}
                source = {**self.source, **member, "validation": model_files.finite_or_none(entry)}
                for name, tree in (("last", average), ("best", self.best)):
                    if name == "last" or is_better[k]:
                        path = self.folder / (f"{name}_{k}.npz" if self.n_members else f"{name}.npz")
                        model_files.save_model(path, self.potential, self._member(tree, k), source)
        meta = {"fingerprint": self.fingerprint, **self.progress._asdict()}
        save_checkpoint(self.folder / CHECKPOINT, (self.state, self.best), meta)

    def result(self) -> TrainingResult | CommitteeResult:
        """The result at this point."""
        progress, last = self.progress, self._average()
        best_epochs = progress.best_epochs
        best = [self._member(self.best if e >= 0 else last, k) for k, e in enumerate(best_epochs)]
        seconds = progress.histories[0][-1]["seconds"] if progress.is_done else time.monotonic() - self.clock
        shared: dict[str, Any] = {
            "best_params": jax.tree.map(jnp.asarray, self._stacked(best)),
            "last_params": jax.tree.map(jnp.asarray, last),
            "references": dict(self.references),
            "n_compiled": self.steps.step._cache_size() + self.steps.evaluate._cache_size(),
            "seconds": seconds,
            "is_complete": progress.is_done,
            "notes": self.notes,
        }
        if self.n_members is None:
            return TrainingResult(best_epoch=best_epochs[0], history=progress.histories[0], **shared)
        return CommitteeResult(best_epochs=tuple(best_epochs), histories=progress.histories, **shared)

    def _average(self) -> Params:
        return jax.device_get(self.unravel(self.state.average))

    def _member(self, tree: Any, k: int) -> Any:
        return tree if self.n_members is None else jax.tree.map(lambda x: x[k], tree)

    def _stacked(self, members: list[Any]) -> Any:
        return members[0] if self.n_members is None else jax.tree.map(lambda *x: np.stack(x), *members)

    def _predict(self, params: Params, batch: Batch) -> Evaluation:
        return self.steps.evaluate(params, self.steps.put(batch) if self.n_members is None else batch)


def _note(histories: list[list[Entry]]) -> str:
    if not histories[0]:
        return "compiling"
    last = [history[-1] for history in histories]
    energy, forces = (
        float(np.mean([entry[name] for entry in last])) for name in ("energy_rmse", "forces_rmse")
    )
    return f"E {milli(energy)} meV/atom, F {milli(forces)} meV/Å"
