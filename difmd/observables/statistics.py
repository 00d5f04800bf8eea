"""Means with honest error bars: over replicas and over blocks of correlated data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd.errors import InputError


class Estimate(NamedTuple):
    """A mean and its standard error, of any shape."""

    value: np.ndarray
    stderr: np.ndarray


def over_replicas(samples: Float[np.ndarray, "replicas ..."]) -> Estimate:
    """Mean over independent replicas; the standard error is s/√n.

    Raises:
        InputError: fewer than two replicas, which give no error bar.
    """
    samples = np.asarray(samples, np.float64)
    if len(samples) < 2:
        raise InputError(f"{len(samples)} replica gives no error bar: use two or more, or blocks")
    return Estimate(samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


def over_blocks(series: Float[np.ndarray, "frames"]) -> Estimate:
    """Mean of a correlated series; the standard error is the plateau of Flyvbjerg and Petersen.

    Blocks are doubled until the error no longer grows by more than its own uncertainty; with fewer
    than 8 blocks left the largest error so far is given.

    References:
        Flyvbjerg & Petersen, J. Chem. Phys. 91, 461 (1989), doi:10.1063/1.457480.
    """
    data = np.asarray(series, np.float64)
    if data.ndim != 1 or len(data) < 8:
        raise InputError(f"a series of at least 8 values is needed, got shape {data.shape}")
    mean = data.mean()
    best = 0.0
    while len(data) >= 8:
        error = np.sqrt(data.var(ddof=1) / len(data))
        uncertainty = error / np.sqrt(2 * (len(data) - 1))
        if error <= best + uncertainty and best > 0:
            return Estimate(mean, np.asarray(max(best, error)))
        best = max(best, error)
        data = 0.5 * (data[: len(data) // 2 * 2 : 2] + data[1::2][: len(data) // 2])
    return Estimate(mean, np.asarray(best))
