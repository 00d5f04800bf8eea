"""The ratio of two histograms without bins, and jackknife errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from difmd.errors import InputError
from difmd.observables.statistics import Estimate

_ITERATIONS = 30


def log_ratio_slope(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> float:
    """Slope of ln p₂(x)/p₁(x), assumed linear, by logistic regression from samples of p₁ and p₂.

    It is NaN where the samples do not overlap. Shirts, J. Chem. Theory Comput. 9, 909 (2013),
    doi:10.1021/ct300688p.
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
    """A function of samples and its standard error by the delete-one jackknife.

    Parts are replicas, which are independent, or blocks of these, which are more but must be longer than the
    correlation time. The larger of both errors is returned. `function` takes an array [samples, ...] for each
    series. Efron & Stein, Ann. Stat. 9, 586 (1981), doi:10.1214/aos/1176345462.
    """
    n_replicas = series[0].shape[1]
    if n_replicas < 2 or min(len(x) for x in series) < n_blocks:
        raise InputError(
            f"{n_replicas} replicas of {len(series[0])} frames give no error bar: use two or more, of at "
            f"least {n_blocks} frames"
        )
    samples = [np.asarray(x, np.float64) for x in series]
    value = np.asarray(function(*(x.reshape(-1, *x.shape[2:]) for x in samples)))
    errors = []
    for blocks in {1, n_blocks}:
        # [parts, samples, ...]; a part is a block of a replica.
        cut = [x[: len(x) // blocks * blocks].reshape(blocks, -1, *x.shape[1:]) for x in samples]
        n = blocks * n_replicas
        parts = [np.moveaxis(x, 2, 1).reshape(n, -1, *x.shape[3:]) for x in cut]
        rests = ([np.delete(x, k, axis=0).reshape(-1, *x.shape[2:]) for x in parts] for k in range(n))
        values = np.array([function(*rest) for rest in rests])
        errors.append(np.sqrt((n - 1) / n * np.sum((values - values.mean(axis=0)) ** 2, axis=0)))
    return Estimate(value, np.max(errors, axis=0))
