"""How well Newtonian motion conserves the energy, against the time step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd.integrators import MDState
from difmd.observables.statistics import over_replicas
from difmd.potentials import Params, Potential
from difmd.simulation.limits import Limits
from difmd.validation.checks import LONGER, Check, judged_with_error
from difmd.validation.sampling import newtonian

_GROUP = "energy_conservation"

# Parts that the time step is divided into.
_PARTS = (1, 2, 4)

# Fluctuation of the total energy over that of the kinetic energy that is acceptable.
_ACCEPTABLE = 0.02

# How far beyond the steps that were run a longer one is recommended.
_BEYOND = 2.0

# Drifts in k_BT per atom per ns: what is no defect, and the largest 5 σ that tells anything.
_NO_DRIFT, _TELLING = 0.01, 0.2


class TimeSteps(NamedTuple):
    """Fluctuation of the total energy about its trend, in runs of the same length.

    Attributes:
        dt: Δt, Δt/2 and Δt/4 [Å√(amu/eV)]; [steps].
        fluctuation: over that of the kinetic energy; [steps].
        stderr: its standard error over replicas; [steps].
        drift: of the energy at Δt [eV per atom per time].
        drift_stderr: its standard error over replicas.
        largest_dt: the largest acceptable step, at most twice the one given [Å√(amu/eV)].
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
    """Velocity Verlet with Δt, Δt/2 and Δt/4 over the same time, from equilibrated replicas.

    The energy that it conserves differs from the total energy by terms in Δt², so that the latter fluctuates
    in proportion to Δt² and does not drift.

    Args:
        potential: the energy model.
        params: its parameters.
        start: equilibrated replicas.
        temperature: of the start [K].
        dt: the largest time step [Å√(amu/eV)].
        n_steps: of that size, a multiple of 10.
        limits: as `simulate`.
        key: needed by `simulate`; nothing depends on it.

    Returns:
        Rows for exponent, fluctuation and drift, and what they are taken from.

    Raises:
        SimulationError: as `simulate`.

    References:
        Hairer, Lubich & Wanner, Acta Numerica 12, 399 (2003), doi:10.1017/S0962492902000144 (the energy that
        is conserved).
    """
    n_atoms = int(np.sum(np.asarray(start.system.is_mobile)[0]))
    amounts, slopes, kinetic, size = [], [], [], 0.0
    for parts in _PARTS:
        run = newtonian(
            potential,
            params,
            start,
            dt=dt / parts,
            n_steps=n_steps * parts,
            chunk_steps=min(n_steps, 500),
            limits=limits,
            key=key,
        )
        trend, rest = _detrended(run.dt * run.steps, run.total_energy)
        amounts.append(rest.std(axis=0))
        slopes.append(trend)
        kinetic.append(run.kinetic_energy.std(axis=0))
        size = max(size, float(np.max(np.abs(run.potential_energy))))
    # The same for all steps, so that ratios of fluctuations are those of the total energy.
    fluctuation = over_replicas(np.stack(amounts, axis=1) / np.mean(kinetic))
    exponent = over_replicas(np.log(amounts[0] / amounts[-1]) / np.log(_PARTS[-1]))
    drift = over_replicas(slopes[0] / n_atoms)
    largest = float(dt * min(_BEYOND, np.sqrt(_ACCEPTABLE / fluctuation.value[0])))
    found = TimeSteps(
        dt / np.array(_PARTS), fluctuation.value, fluctuation.stderr, float(drift.value),
        float(drift.stderr), largest,
    )  # fmt: skip
    eps = float(np.finfo(start.momenta.dtype).eps)
    hidden = np.mean(amounts[-1]) < 20 * eps * size
    to_kt = units.PS * 1000 / (units.KB * temperature)
    return [_exponent(exponent, hidden), check_fluctuation(found), _drift(found, to_kt)], found


def _detrended(times: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes [replicas], and what is left of series [frames, replicas]."""
    t = times - times.mean()
    rest = energy - energy.mean(axis=0)
    trend = t @ rest / (t @ t)
    return trend, rest - t[:, None] * trend


def _exponent(found: tuple[np.ndarray, np.ndarray], hidden: bool) -> Check:
    name = "exponent of fluctuation in dt"
    if hidden:
        reason = "the energy is rounded as much as it fluctuates: use float64 or a larger dt"
        return Check(_GROUP, name, float(found[0]), np.nan, "", "inconclusive", reason, 2.0, float(found[1]))
    return judged_with_error(
        _GROUP, name, float(found[0]), float(found[1]),
        "forces are not smooth derivatives of the energy, or dt is far too large: look at the rows above",
        expected=2.0, allowance=0.2, resolution=0.5, longer=LONGER,
    )  # fmt: skip


def check_fluctuation(found: TimeSteps) -> Check:
    """Whether the energy fluctuates acceptably at Δt, within its error.

    Args:
        found: of `check_energy_conservation`.

    Returns:
        A row.
    """
    value, error = float(found.fluctuation[0]), float(found.stderr[0])
    least = "at least " if found.largest_dt >= _BEYOND * found.dt[0] else ""
    advice = f"largest dt: {least}{found.largest_dt / units.FS:.2g} fs"
    # It passes only where all within the error is acceptable, as this is a bound and no value to be met.
    return judged_with_error(
        _GROUP, "fluctuation, total / kinetic energy", value, error, "use a smaller dt",
        allowance=_ACCEPTABLE, resolution=_ACCEPTABLE - value, longer=f"{LONGER}, or use a smaller dt",
        note=advice,
    )  # fmt: skip


def _drift(found: TimeSteps, to_kt: float) -> Check:
    return judged_with_error(
        _GROUP, "drift per atom", found.drift * to_kt, found.drift_stderr * to_kt,
        "energy is gained or lost: look at forces and cut-off above, and use a smaller dt",
        unit="kT/ns", allowance=_NO_DRIFT, resolution=_TELLING, longer=LONGER,
    )  # fmt: skip
