"""The ratio of two histograms without bins, and errors by leaving blocks out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from difmd.errors import InputError
from difmd.observables.statistics import Estimate

_ITERATIONS = 30


def log_ratio_slope(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> float:
    """d/dx of ln p₂(x)/p₁(x) where that is linear, by maximum likelihood of which one a sample is from.

    Args:
        first: samples of p₁, of any shape.
        second: samples of p₂, of any shape.

    Returns:
        [1/unit of x]; NaN where the samples do not overlap, as then any slope that is large enough will do.

    References:
        Shirts, J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p.
    """
    x = np.concatenate([first.ravel(), second.ravel()])
    is_second = np.r_[np.zeros(first.size), np.ones(second.size)]
    centre, scale = x.mean(), x.std()
    if not scale > 0 or max(first.min(), second.min()) >= min(first.max(), second.max()):
        return np.nan
    columns = np.stack([np.ones_like(x), (x - centre) / scale])
    theta = np.zeros(2)
    for _ in range(_ITERATIONS):
        p = 1 / (1 + np.exp(-np.clip(theta @ columns, -500, 500)))
        curvature = (columns * (p * (1 - p))) @ columns.T
        if not np.linalg.det(curvature) > 0:
            return np.nan
        theta = theta + np.linalg.solve(curvature, columns @ (is_second - p))
    return float(theta[1] / scale)


def jackknife(
    function: Callable[..., Any], *series: Float[np.ndarray, "frames replicas ..."], n_blocks: int = 4
) -> Estimate:
    """A function of samples and its standard error, by leaving parts of them out in turn.

    Replicas are independent, whatever the correlation in time; blocks of their series are more parts, if they
    are longer than it lasts. The larger of both errors is given.

    Args:
        function: of arrays of samples [samples, ...], one for each series; a number or an array.
        *series: samples of independent replicas; [frames, replicas, ...].
        n_blocks: blocks in time of each replica.

    Returns:
        `Estimate`.

    Raises:
        InputError: one replica only, or fewer frames than blocks.

    References:
        Efron & Stein, Ann. Stat. 9, 586 (1981), doi:10.1214/aos/1176345462.
    """
    n_replicas = series[0].shape[1]
    if n_replicas < 2 or min(len(x) for x in series) < n_blocks:
        raise InputError(
            f"{n_replicas} replicas of {len(series[0])} frames give no error bar: use two or more, of at "
            f"least {n_blocks} frames"
        )
    whole = [np.asarray(x, np.float64) for x in series]
    value = np.asarray(function(*(x.reshape(-1, *x.shape[2:]) for x in whole)))
    errors = []
    for blocks in {1, n_blocks}:
        # [parts, samples, ...], a part being a block of a replica.
        cut = [x[: len(x) // blocks * blocks] for x in whole]
        parts = [
            np.moveaxis(x.reshape(blocks, -1, *x.shape[1:]), 2, 1).reshape(
                blocks * n_replicas, -1, *x.shape[2:]
            )
            for x in cut
        ]
        n = len(parts[0])
        left = np.array([
            function(*(np.delete(x, k, axis=0).reshape(-1, *x.shape[2:]) for x in parts)) for k in range(n)
        ])  # fmt: skip
        errors.append(np.sqrt((n - 1) / n * np.sum((left - left.mean(axis=0)) ** 2, axis=0)))
    return Estimate(value, np.max(errors, axis=0))
