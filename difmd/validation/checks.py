"""`Check`, a row of a certificate: what was measured, what it may be, and what to do if it is not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

GROUPS = (
    "symmetry",
    "derivatives",
    "cutoff",
    "energy_conservation",
    "kinetic_energy",
    "equipartition",
    "volume",
)
"""Groups of checks, in the order in which they are made; all from the fourth on need dynamics."""

OUTCOMES = ("passed", "failed", "inconclusive", "not applicable", "not asked for")

# Standard errors that a deviation may have.
SIGMAS = 5.0

# Errors from few replicas are uncertain themselves: by Student's t, chance alone exceeds 5 of them once in
# 6000 with 16 replicas, in 600 with 8, in 65 with 4.
LEAST_REPLICAS = 8

# The remedy of statistics that are too poor.
LONGER = "too short to tell: raise n_steps or n_replicas"


class Check(NamedTuple):
    """One row: it passes where |value − expected| ≤ bound.

    Attributes:
        group: one of `GROUPS`.
        name: what was looked at.
        value: measured; NaN where nothing was.
        bound: by how much it may differ from `expected`.
        unit: of value, error, expected and bound; empty for ratios.
        outcome: one of "passed", "failed", "inconclusive" (too short or too noisy to tell), "not applicable"
            and "not asked for".
        note: the remedy of a failure, why it is not applicable, or what else was found.
        expected: [unit].
        error: standard error of the value [unit]; NaN where there is none.
    """

    group: str
    name: str
    value: float
    bound: float
    unit: str
    outcome: str
    note: str = ""
    expected: float = 0.0
    error: float = np.nan


class Tolerances(NamedTuple):
    """What rounding lets one ask of a precision.

    Attributes:
        same: relative difference of what should be equal.
        derivative: relative error of a derivative by central differences.
        step: displacement of these [Å].
        strain: strain of these.
        jump: jump at the cut-off, relative to the largest force [eV/Å] or to that times 1 Å [eV].
        gap: distance from the cut-off of the points it is extrapolated from [Å].
    """

    same: float
    derivative: float
    step: float
    strain: float
    jump: float
    gap: float


def tolerances(dtype: Any) -> Tolerances:
    """Of float64, or of float32."""
    if np.finfo(dtype).eps < 1e-12:
        return Tolerances(same=1e-9, derivative=1e-6, step=5e-4, strain=1e-4, jump=1e-6, gap=1e-4)
    return Tolerances(same=1e-3, derivative=2e-2, step=2e-2, strain=3e-3, jump=1e-3, gap=1e-2)


def judged(
    group: str, name: str, value: float, bound: float, remedy: str, *, unit: str = "", note: str = ""
) -> Check:
    """A row whose value has no statistical error; NaN fails."""
    passed = abs(value) <= bound
    return Check(
        group, name, float(value), float(bound), unit, "passed" if passed else "failed",
        note if passed else "; ".join(filter(None, (note, remedy))),
    )  # fmt: skip


def judged_with_error(
    group: str, name: str, value: float, error: float, remedy: str, *, allowance: float, resolution: float,
    longer: str, expected: float = 0.0, unit: str = "", note: str = "",
) -> Check:  # fmt: skip
    """A row whose value has a standard error.

    A deviation beyond 5 σ and an allowance fails, however large σ is; within them it passes only where 5 σ is
    below the resolution, and is else inconclusive.

    Args:
        group: one of `GROUPS`.
        name: what was looked at.
        value: measured [unit].
        error: its standard error σ [unit].
        remedy: of a failure.
        allowance: systematic deviation that is no defect [unit].
        resolution: the largest 5 σ that tells anything [unit].
        longer: the remedy of an inconclusive row.
        expected: [unit].
        unit: of all these.
        note: what else was found.

    Returns:
        `Check`.
    """
    bound = SIGMAS * error + allowance
    if not np.isfinite(value) or not np.isfinite(error):
        outcome, said = "inconclusive", longer
    elif abs(value - expected) > bound:
        outcome, said = "failed", remedy
    elif SIGMAS * error > resolution:
        outcome, said = "inconclusive", longer
    else:
        outcome, said = "passed", ""
    text = "; ".join(filter(None, (note, said)))
    return Check(group, name, float(value), float(bound), unit, outcome, text, float(expected), float(error))


def without(group: str, outcome: str, reason: str, name: str = "") -> Check:
    """A row with nothing measured: not applicable, not asked for, or failed before there was a value."""
    return Check(group, name or group.replace("_", " "), np.nan, np.nan, "", outcome, reason)
