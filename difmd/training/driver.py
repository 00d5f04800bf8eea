"""`train`: parameters of a potential from energies, forces, stresses and dipoles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from difmd.data.frames import Frame
from difmd.potentials import Params, Potential
from difmd.training.loop import run
from difmd.training.recipe import Recipe
from difmd.training.result import TrainingResult


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

    The frames of a batch are distributed over the devices of the host, on as many as divide
    `Recipe.batch_size`.

    Args:
        potential: the energy model.
        frames: to train on.
        valid: held-out frames, which select the best parameters.
        references: energy of an atom of each element [eV], subtracted from all energies in double precision.
        params: initial parameters; default: `potential.init`.
        recipe: how to train; default: `Recipe()`.
        is_trained: `is_trained(path)` for the path of each array of params, a tuple of keys, such as
            `only("readout")` or `all_but("radial", "embedding")`; default: all but the `scale` and `shift` of
            networks.
        replay: frames of an earlier training, so that fine-tuning does not forget them. An epoch is still a
            pass through `frames`, with some of these in every batch.
        replay_fraction: fraction of replayed frames in an epoch; each is replayed once before any is again.
        folder: where each validation writes a checkpoint, from which the same call resumes, and `best.npz`
            and `last.npz`, which `difmd.load` reads, with recipe, data and errors as provenance; default:
            nowhere.
        time_limit: stop after the last validation that can be followed by another one within this time,
            counted from this call [s]; with a folder, the same call continues. None: no limit.
        progress: show a progress bar and a table with at most about 100 validations.
        on_validation: called with each entry of the history.

    Returns:
        `TrainingResult`.

    Raises:
        InputError: invalid arguments, species without parameters, params of another potential, no labels to
            train on, a checkpoint of another training, or names in `is_trained` that no parameter has.
        TrainingError: too many gradients in a row that are not finite; `TrainingInterrupted` on Ctrl-C.
    """
    return run(
        potential,
        frames,
        valid=valid,
        references=references,
        params=params,
        recipe=recipe,
        is_trained=is_trained,
        replay=replay,
        replay_fraction=replay_fraction,
        folder=folder,
        time_limit=time_limit,
        progress=progress,
        on_validation=on_validation,
    )
