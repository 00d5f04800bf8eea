"""Means with standard errors: over replicas and over blocks of correlated data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd._internal.summaries import fields_summary, with_error
from difmd.errors import InputError


class Estimate(NamedTuple):
    """A mean and its standard error, of any shape; `estimate / units.D` converts both.

    Attributes:
        value: the mean.
        stderr: its standard error, of the same shape.
    """

    value: np.ndarray
    stderr: np.ndarray

    def __truediv__(self, unit: float) -> Estimate:
        """Both numbers in another unit."""
        return Estimate(self.value / unit, self.stderr / unit)

    def __repr__(self) -> str:
        """A number as `1.23(4)`: the digits in brackets are the standard error of the last ones."""
        if np.ndim(self.value):
            return fields_summary(self)
        return with_error(float(self.value), float(self.stderr))


def over_replicas(samples: Float[np.ndarray, "replicas ..."]) -> Estimate:
    """Mean over independent replicas; the standard error is s/√n.

    Args:
        samples: [replicas, ...].

    Returns:
        `Estimate` of the shape of one sample.

    Raises:
        InputError: fewer than two replicas, which give no error bar.
    """
    samples = np.asarray(samples, np.float64)
    if len(samples) < 2:
        raise InputError(f"{len(samples)} replicas give no error bar: use two or more, or blocks")
    return Estimate(samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples)))


def with_control(
    samples: Float[np.ndarray, "replicas"], control: Float[np.ndarray, "replicas"], expected: float
) -> Estimate:
    """Mean of independent samples without the noise that they share with a control of known mean.

    The samples are fitted by a + b (control − expected). The estimate is that of a; with fewer than 8
    samples, the plain mean.

    Args:
        samples: [replicas].
        control: a quantity of the same replicas; [replicas].
        expected: its exact expectation.

    Returns:
        `Estimate` of a number.

    Raises:
        InputError: fewer than two samples.

    References:
        Owen, Monte Carlo theory, methods and examples, 2013, §8.9 (regression estimator).
    """
    plain = over_replicas(samples)
    n = len(samples)
    x = np.asarray(control, np.float64) - expected
    spread = np.sum((x - x.mean()) ** 2)
    if n < 8 or not spread > 0:
        return plain
    y = np.asarray(samples, np.float64)
    slope = np.sum((x - x.mean()) * (y - y.mean())) / spread
    rest = y - y.mean() - slope * (x - x.mean())
    variance = np.sum(rest**2) / (n - 2) * (1 / n + x.mean() ** 2 / spread)
    return Estimate(plain.value - slope * x.mean(), np.sqrt(variance))


def over_blocks(series: Float[np.ndarray, "frames"]) -> Estimate:
    """Mean of a correlated series; the standard error is the plateau of Flyvbjerg and Petersen.

    Blocks are doubled until the error grows by no more than its uncertainty; without a plateau at 8 blocks or
    more, the result is the largest error.

    Args:
        series: at equal intervals; [frames].

    Returns:
        `Estimate` of a number.

    Raises:
        InputError: fewer than 8 values, or several series.

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
