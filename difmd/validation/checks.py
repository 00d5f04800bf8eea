"""`Check`, a row of a certificate: a measured value, its bound, and a remedy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from difmd._internal.summaries import brief_repr

STATIC = ("symmetry", "derivatives", "cutoff")
DYNAMIC = ("energy_conservation", "kinetic_energy", "equipartition", "volume")

GROUPS = STATIC + DYNAMIC
"""Groups of checks, in their order; those from the fourth on need dynamics."""

# Allowed deviation in standard errors.
SIGMAS = 5.0

# Error estimates from few replicas are uncertain: by Student's t, a deviation exceeds 5 of them by chance
# once in 6000 with 16 replicas, in 600 with 8, in 65 with 4.
LEAST_REPLICAS = 8

# The remedy of large statistical errors.
LONGER = "statistical errors are too large: raise n_steps or n_replicas"


@brief_repr
class Check(NamedTuple):
    """A check, which passes if |value − expected| ≤ bound.

    Attributes:
        group: one of `GROUPS`.
        name: the property that was checked.
        value: measured [unit]; NaN without a measurement.
        bound: largest deviation from `expected` [unit].
        unit: of value, error, expected and bound; empty for ratios.
        outcome: "passed", "failed", "inconclusive" (statistical errors are too large), "not applicable" or
            "not requested".
        note: the remedy of a failure, why the check is not applicable, or further results.
        expected: [unit].
        error: standard error of the value [unit]; NaN if it has none.
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
    """Tolerances that the rounding of a precision allows."""

    same: float  # relative difference of values that should be equal
    derivative: float  # relative error of central differences
    step: float  # displacements of these [Å]
    strain: float  # strains of these
    jump: float  # jump at the cut-off, relative to the largest force [eV/Å], or to that times 1 Å [eV]
    gap: float  # spacing of the points from which values at the cut-off are extrapolated [Å]


def tolerances(dtype: Any) -> Tolerances:
    """Tolerances of float64 or float32."""
    if np.finfo(dtype).eps < 1e-12:
        return Tolerances(same=1e-9, derivative=1e-6, step=5e-4, strain=1e-4, jump=1e-6, gap=1e-4)
    return Tolerances(same=1e-3, derivative=2e-2, step=2e-2, strain=3e-3, jump=1e-3, gap=1e-2)


def judged(
    group: str, name: str, value: float, bound: float, remedy: str, *, unit: str = "", note: str = ""
) -> Check:
    """A check of a value without a statistical error; NaN fails."""
    outcome, advice = ("passed", "") if abs(value) <= bound else ("failed", remedy)
    text = "; ".join(filter(None, (note, advice)))
    return Check(group, name, float(value), float(bound), unit, outcome, text)


def judged_with_error(
    group: str, name: str, estimate: tuple[Any, Any], remedy: str, *, allowance: float, resolution: float,
    longer: str = LONGER, expected: float = 0.0, unit: str = "", note: str = "",
) -> Check:  # fmt: skip
    """A check of a value and its standard error.

    A deviation beyond 5 σ plus an allowance fails, however large σ is; a smaller one passes if 5 σ is below
    the resolution, and is inconclusive otherwise, with the remedy `longer`.
    """
    value, error = map(float, estimate)
    bound = SIGMAS * error + allowance
    if not np.isfinite(value) or not np.isfinite(error):
        outcome, advice = "inconclusive", longer
    elif abs(value - expected) > bound:
        outcome, advice = "failed", remedy
    elif SIGMAS * error > resolution:
        outcome, advice = "inconclusive", longer
    else:
        outcome, advice = "passed", ""
    text = "; ".join(filter(None, (note, advice)))
    return Check(group, name, value, float(bound), unit, outcome, text, float(expected), error)


def without_value(group: str, outcome: str, reason: str, name: str = "") -> Check:
    """A check without a value: not applicable, not requested, or failed before the measurement."""
    return Check(group, name or group.replace("_", " "), np.nan, np.nan, "", outcome, reason)
