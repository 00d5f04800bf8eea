"""`train`: parameters of a potential from energies, forces, stresses and dipoles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from difmd.data.frames import Frame
from difmd.potentials import Params, Potential, check_finite, check_model
from difmd.training.loop import run
from difmd.training.recipe import Recipe
from difmd.training.result import CommitteeResult, TrainingResult


def train(
    potential: Potential,
    frames: Sequence[Frame],
    *,
    valid: Sequence[Frame],
    references: Mapping[int, float],
    params: Params | None = None,
    recipe: Recipe | None = None,
    is_trained: Callable[[tuple[Any, ...]], bool] | None = None,
    replay: Sequence[Frame] = (),
    replay_fraction: float = 0.5,
    folder: str | Path | None = None,
    time_limit: float | None = None,
    progress: bool = True,
    on_validation: Callable[[dict[str, Any]], None] | None = None,
) -> TrainingResult:
    """Fit a potential to data by gradient descent.

    The frames of a batch are spread over the devices of the host, as many as divide `Recipe.batch_size`.

    Args:
        potential: the energy model.
        frames: to train on.
        valid: to choose the best parameters with, and to report errors of.
        references: energy of an atom of each element [eV], taken off all energies in double precision.
        params: where to start; default: `potential.init`.
        recipe: how; default `Recipe()`.
        is_trained: `is_trained(path)` for the path of each array of params, a tuple of keys, such as
            `only("readout")` or `all_but("radial", "embedding")`; default: all but the `scale` and `shift` of
            networks.
        replay: frames of an earlier training, so that fine-tuning does not forget them. An epoch is still a
            pass through `frames`, with frames of these among them in every batch.
        replay_fraction: share of replayed frames in an epoch; every one is seen before one is seen again.
        folder: after every validation write there a checkpoint, from which the same call resumes, and
            `best.npz` and `last.npz`, which `difmd.load` reads, with recipe, data and errors as provenance;
            default: none.
        time_limit: end after the validation that another one could not follow within so long, counted from
            this call [s]; with a folder, the same call goes on from there. None: no limit.
        progress: show progress: a bar, and a table with a line for each of at most about 100 validations.
        on_validation: called with each entry of the history.

    Returns:
        `TrainingResult`.

    Raises:
        InputError: bad arguments, no labels to train on, a checkpoint of another training, or names in
            `is_trained` that no parameter has.
        TrainingError: gradients that are not finite, again and again; `TrainingInterrupted` on Ctrl-C.
    """

    def start(recipe: Recipe) -> Params:
        if params is None:
            return potential.init(jax.random.key(recipe.seed))
        check_model(potential, params)
        check_finite(params)
        return params

    def tell(entries: list[dict[str, Any]]) -> None:
        if on_validation is not None:
            on_validation(entries[0])

    def result(found: CommitteeResult) -> TrainingResult:
        values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        (best_epoch,), (history,) = values.pop("best_epochs"), values.pop("histories")
        return TrainingResult(best_epoch=best_epoch, history=history, **values)

    return run(
        potential,
        frames,
        valid=valid,
        references=references,
        start=start,
        recipe=recipe,
        is_trained=is_trained,
        replay=replay,
        replay_fraction=replay_fraction,
        n_members=None,
        bootstrap=False,
        folder=folder,
        time_limit=time_limit,
        progress=progress,
        on_validation=tell,
        result=result,
    )
