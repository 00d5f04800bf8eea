"""Warnings about values that are likely to be in a wrong unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from difmd._internal.argument_checks import is_traced
from difmd.integrators import Integrator
from difmd.integrators.schedule import values_of
from difmd.system import System
from difmd.units import BAR, FS, GPA, PS

# Force constant of a C–H bond [eV/Å²]: with the mass of H a period of 11.7 fs, which is 2850 cm⁻¹.
_BOND = 30.0

# A time step above this part of the period of such a bond is suspicious: 2.3 fs for H, 15 fs for Ar.
_PERIODS = 0.2

# Damping times below so many time steps, and above this time, are suspicious.
_STEPS = 3
_LONGEST = 1000 * PS

# Work of the pressure on the volume of an atom that no chemical bond survives for long [eV].
_WORK = 0.5


def suspicious_units(integrator: Integrator, system: System) -> Iterator[str]:
    """Messages about time steps, damping times and pressures out of scale, unless they are traced (host)."""
    settings = {name: _number(value) for name, value in integrator.settings.items()}
    dt = settings["dt"]
    if dt is None:
        return
    is_mobile = np.asarray(system.is_mobile)
    if is_mobile.any():
        lightest = float(np.min(np.asarray(system.masses)[is_mobile]))
        period = 2 * np.pi * np.sqrt(lightest / _BOND)
        if dt > _PERIODS * period:
            # dt=2 was meant as 2 fs.
            is_plain = abs(dt - round(dt, 2)) < 1e-9 and dt * FS <= _PERIODS * period
            guess = dt if is_plain else 0.05 * period / FS
            yield (
                f"dt = {dt:.3g} Å√(amu/eV) is {dt / FS:.3g} fs, more than {_PERIODS:.0%} of the period "
                f"({period / FS:.3g} fs) of a bond of the lightest atom ({lightest:.3g} amu): "
                f"if that is not meant, write `dt={guess:.2g} * units.FS`"
            )
    friction = settings.get("friction")
    if friction and not _STEPS * dt <= 1 / friction <= _LONGEST:
        # friction=2 * units.PS was meant as 2 / units.PS.
        guess = friction / PS if 0.01 <= friction / PS <= 100 and friction > 1 else 1
        yield (
            f"friction = {friction:.3g} /Å√(amu/eV) is {friction * PS:.3g} /ps, a damping time of "
            f"{1 / friction / PS:.3g} ps with a time step of {dt / PS:.3g} ps: if that is not meant, write "
            f"`friction={guess:.3g} / units.PS`"
        )
    for name in ("time_constant", "piston_time"):
        time = settings.get(name)
        if time and not dt <= time <= _LONGEST:
            # time_constant=1 / units.PS was meant as 1 * units.PS.
            guess = time * PS if time < dt and 0.01 <= time * PS <= 100 else 1
            yield (
                f"{name} = {time:.3g} Å√(amu/eV) is {time / PS:.3g} ps with a time step of {dt / PS:.3g} ps: "
                f"if that is not meant, write `{name}={guess:.3g} * units.PS`"
            )
    pressure = settings.get("pressure")
    n_atoms = np.sum(np.asarray(system.atomic_numbers) > 0, axis=-1)
    volume = float(np.min(np.asarray(system.volume) / n_atoms))
    # `warn_of_pressure` of the barostats is about larger ones.
    if pressure is not None and pressure < 1 and pressure * volume > _WORK:
        yield (
            f"pressure = {pressure:.3g} eV/Å³ is {pressure / GPA:.3g} GPa or {pressure / BAR:.3g} bar, "
            f"{pressure * volume:.2g} eV on the volume of an atom: if that is not meant, write "
            f"`pressure={pressure / GPA:.3g} * units.BAR`"
        )


def _number(value: Any) -> float | None:
    """The largest value of a number or a ramp, of a tensor a third of the trace; None for anything else."""
    if is_traced(value):
        return None
    values = np.asarray(values_of(value))
    if not np.issubdtype(values.dtype, np.number) or not values.size:
        return None
    if values.shape[-2:] == (3, 3):
        values = np.trace(values, axis1=-2, axis2=-1) / 3
    return float(np.max(values))
