"""Energy conservation of velocity Verlet as a function of the time step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd._internal.summaries import brief_repr
from difmd.integrators import MDState
from difmd.observables.statistics import Estimate, over_replicas
from difmd.potentials import Params, Potential
from difmd.simulation.limits import Limits
from difmd.validation.checks import LONGER, Check, judged_with_error
from difmd.validation.sampling import newtonian

_GROUP = "energy_conservation"

# Divisors of the time step.
_PARTS = (1, 2, 4)

# Acceptable ratio of the fluctuations of total and kinetic energy.
_ACCEPTABLE = 0.02

# Largest factor by which a recommended time step exceeds those that were run.
_BEYOND = 2.0

# Drifts in k_BT per atom per ns: acceptable, and the largest 5 σ of a conclusive check.
_ACCEPTABLE_DRIFT, _RESOLUTION = 0.01, 0.2


@brief_repr
class TimeSteps(NamedTuple):
    """Fluctuation of the total energy about its trend, in runs of the same duration.

    Attributes:
        dt: Δt, Δt/2 and Δt/4 [Å√(amu/eV)]; [steps].
        fluctuation: relative to that of the kinetic energy; [steps].
        stderr: its standard error over replicas; [steps].
        drift: of the energy at Δt, per atom [eV/(Å√(amu/eV))].
        drift_stderr: its standard error over replicas.
        largest_dt: the largest acceptable step, at most 2 Δt [Å√(amu/eV)].
    """

    dt: np.ndarray
    fluctuation: np.ndarray
    stderr: np.ndarray
    drift: float
    drift_stderr: float
    largest_dt: float


def check_energy_conservation(
    potential: Potential, params: Params, start: MDState, *, temperature: float, dt: float, n_steps: int,
    limits: Limits, key: Key[Array, ""],
) -> tuple[list[Check], TimeSteps]:  # fmt: skip
    """Run velocity Verlet with Δt, Δt/2 and Δt/4 for the same time, from equilibrated replicas.

    The energy that it conserves differs from the total energy by terms in Δt² (Hairer, Lubich & Wanner, Acta
    Numerica 12, 399 (2003), doi:10.1017/S0962492902000144), so that the total energy fluctuates in proportion
    to Δt² and does not drift. `n_steps` is a multiple of 10; results do not depend on `key`.
    """
    n_atoms = int(np.sum(np.asarray(start.system.is_mobile)[0]))
    fluctuations, slopes, kinetic, size = [], [], [], 0.0
    for parts in _PARTS:
        run = newtonian(
            potential, params, start, dt=dt / parts, n_steps=n_steps * parts, chunk_steps=min(n_steps, 500),
            limits=limits, key=key,
        )  # fmt: skip
        trend, residual = _detrended(run.dt * run.steps, run.total_energy)
        fluctuations.append(residual.std(axis=0))
        slopes.append(trend)
        kinetic.append(run.kinetic_energy.std(axis=0))
        size = max(size, float(np.max(np.abs(run.potential_energy))))
    # A common denominator, so that ratios of these are ratios of the total energy.
    fluctuation = over_replicas(np.stack(fluctuations, axis=1) / np.mean(kinetic))
    exponent = over_replicas(np.log(fluctuations[0] / fluctuations[-1]) / np.log(_PARTS[-1]))
    drift = over_replicas(slopes[0] / n_atoms)
    kT_per_ns = units.KB * temperature / (1000 * units.PS)
    largest = float(dt * min(_BEYOND, np.sqrt(_ACCEPTABLE / fluctuation.value[0])))
    estimates = (fluctuation.value, fluctuation.stderr, float(drift.value), float(drift.stderr))
    steps = TimeSteps(dt / np.array(_PARTS), *estimates, largest)
    eps = float(np.finfo(start.momenta.dtype).eps)
    hidden = np.mean(fluctuations[-1]) < 20 * eps * size
    checks = [_exponent(exponent, hidden), check_fluctuation(steps)]
    checks.append(judged_with_error(
        _GROUP, "drift per atom", drift / kT_per_ns,
        "the energy drifts: look at the checks of forces and cut-off, and use a smaller dt",
        unit="kT/ns", allowance=_ACCEPTABLE_DRIFT, resolution=_RESOLUTION,
    ))  # fmt: skip
    return checks, steps


def _detrended(times: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes [replicas] and residuals [frames, replicas] of linear fits to series."""
    t = times - times.mean()
    deviation = energy - energy.mean(axis=0)
    trend = t @ deviation / (t @ t)
    return trend, deviation - t[:, None] * trend


def _exponent(exponent: Estimate, hidden: bool) -> Check:
    name = "exponent of fluctuation in dt"
    if hidden:
        note = "rounding errors of the energy are as large as its fluctuations: use float64 or a larger dt"
        value, error = map(float, exponent)
        return Check(_GROUP, name, value, np.nan, "", "inconclusive", note, 2.0, error)
    return judged_with_error(
        _GROUP, name, exponent,
        "forces are not smooth derivatives of the energy, or dt is far too large: look at the checks above",
        expected=2.0, allowance=0.2, resolution=0.5,
    )  # fmt: skip


def check_fluctuation(steps: TimeSteps) -> Check:
    """Check the fluctuation of the energy at Δt, including its error."""
    value, error = float(steps.fluctuation[0]), float(steps.stderr[0])
    least = "at least " if steps.largest_dt >= _BEYOND * steps.dt[0] else ""
    note = f"largest dt: {least}{steps.largest_dt / units.FS:.2g} fs"
    # As this is an upper bound, all values within the error must be acceptable.
    return judged_with_error(
        _GROUP, "fluctuation, total / kinetic energy", (value, error), "use a smaller dt", note=note,
        allowance=_ACCEPTABLE, resolution=_ACCEPTABLE - value, longer=f"{LONGER}, or use a smaller dt",
    )  # fmt: skip
