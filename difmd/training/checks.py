"""Checks of the data and of batches, before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from difmd._internal.argument_checks import is_traced
from difmd.data.batches import Batch
from difmd.data.frames import Frame
from difmd.errors import InputError
from difmd.potentials import Params, Potential
from difmd.potentials.base import check_finite, check_model, validate_structure
from difmd.training.losses import NO_CHARGES, Weights


def check_data(
    weights: Weights,
    potential: Potential,
    frames: Sequence[Frame],
    valid: Sequence[Frame],
    references: Mapping[int, float],
    replay: Sequence[Frame] = (),
) -> None:
    """Refuse data on which training is impossible, naming the frame."""
    if not frames or not valid:
        raise InputError(
            f"there are {len(frames)} frames to train on and {len(valid)} to validate with: give at least "
            "one of each"
        )
    if weights.dipole > 0:
        _check_dipoles(potential, frames, valid)
    weighted = [name for name in Weights._fields if getattr(weights, name) > 0]
    for part, name in ((frames, "train on"), (valid, "validate with")):
        if not any(set(weighted) & set(frame.labels) for frame in part):
            raise InputError(
                f"no frame to {name} has one of the labels {weighted}, whose weights are positive: read them "
                "with the Keys of the file"
            )
    everything = (*frames, *valid, *replay)
    elements = {int(z) for frame in everything if frame.energy is not None for z in set(frame.numbers)}
    missing = sorted(elements - set(references))
    if missing:
        raise InputError(
            f"references has no energy for the elements {missing}: give those of difmd.data.statistics, or 0 "
            "if the energies are relative to free atoms already"
        )
    check_frames(potential, everything)
    for frame in everything:
        source = frame.source or "a frame without a source"
        for name in frame.labels:
            if name == "stress" and not frame.pbc.all():
                raise InputError(f"{source}: it has a stress but no volume: remove the stress")
            if not np.isfinite(getattr(frame, name)).all():
                raise InputError(f"{source}: its {name} is not finite: remove it")


def check_frames(potential: Potential, frames: Sequence[Frame]) -> None:
    """Refuse frames for which the potential cannot be evaluated, naming the frame."""
    for frame in frames:
        try:
            validate_structure(potential, frame.system)
        except InputError as error:
            raise InputError(f"{frame.source or 'a frame without a source'}: {error}") from error


def check_batch(potential: Potential, params: Params, batch: Batch) -> None:
    """Refuse a batch for which the potential cannot be evaluated; species and values outside jit only."""
    check_model(potential, params)
    if is_traced((params, batch)):
        return
    check_finite(params)
    for k, place in enumerate(batch.frames):
        try:
            validate_structure(potential, jax.tree.map(lambda x, k=k: x[k], batch.system))
        except InputError as error:
            raise InputError(f"frame {place} of the data: {error}") from error


def _check_dipoles(potential: Potential, frames: Sequence[Frame], valid: Sequence[Frame]) -> None:
    """Refuse data that do not support a weight of the dipole."""
    if potential.with_multipoles is None:
        raise InputError(NO_CHARGES)
    for part, name in ((frames, "train on"), (valid, "validate with")):
        labelled = [frame for frame in part if frame.dipole is not None]
        if not labelled:
            raise InputError(
                f"no frame to {name} has a dipole, whose weight is positive: read it with Keys(dipole=...), "
                "or set its weight to 0"
            )
        for frame in labelled:
            if frame.pbc.any():
                source = frame.source or "a frame without a source"
                raise InputError(
                    f"{source}: it has a dipole, which is undefined with periodic directions: remove the "
                    "dipole, or the cell of the molecule"
                )
