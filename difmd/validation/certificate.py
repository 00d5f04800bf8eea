"""`Certificate`, what `validate` found."""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import numpy as np

from difmd import units
from difmd.validation.checks import Check
from difmd.validation.cutoff import CutoffScan
from difmd.validation.energy_conservation import TimeSteps
from difmd.validation.ensembles import KineticEnergies, Volumes

_WIDTH = 110


class Certificate(NamedTuple):
    """Rows of checks; `print` shows them as a table, `plots.plot_certificate` what those with dynamics saw.

    Attributes:
        checks: rows, by group.
        potential: what was looked at, in words.
        composition: of the system, such as Ar108.
        precision: of the system, such as "float64".
        temperature: of the dynamics [K]; None without.
        pressure: of volumes [eV/Å³]; None without.
        dt: the time step given [Å√(amu/eV)].
        seed: of the key, which gives the same numbers again.
        seconds: that it took.
        scans: of two atoms through the cut-off, by pair of species.
        time_steps: fluctuations of the energy; None where they were not looked at.
        kinetic: kinetic energies; likewise.
        volumes: at three pressures; likewise.
    """

    checks: tuple[Check, ...]
    potential: str
    composition: str
    precision: str
    temperature: float | None
    pressure: float | None
    dt: float
    seed: tuple[int, ...]
    seconds: float
    scans: tuple[CutoffScan, ...] = ()
    time_steps: TimeSteps | None = None
    kinetic: KineticEnergies | None = None
    volumes: Volumes | None = None

    @property
    def passed(self) -> bool:
        """Whether every row that was asked for and is applicable passed, and there is one at least.

        An inconclusive one did not pass.
        """
        outcomes = {check.outcome for check in self.checks}
        return "passed" in outcomes and not outcomes & {"failed", "inconclusive"}

    @property
    def failures(self) -> tuple[Check, ...]:
        """Rows that failed."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def __str__(self) -> str:
        """A row for each check, with its note below where it has one."""
        at = ""
        if self.temperature is not None:
            at = f"{self.temperature:g} K, dt = {self.dt / units.FS:.3g} fs, "
            at += "" if self.pressure is None else f"{self.pressure / units.BAR:g} bar, "
        title = f"{self.composition}, {self.precision}, {at}seed {self.seed}, {self.seconds:.0f} s"
        lines = [*textwrap.wrap(self.potential, _WIDTH, subsequent_indent="  "), title, ""]
        lines.append(f"{'check':<40} {'value':>10} {'± error':>9} {'allowed':>17} {'unit':<6} outcome")
        group = ""
        for check in self.checks:
            is_new, group = check.group != group, check.group
            if np.isnan(check.value) and check.name == group.replace("_", " "):
                lines.append(f"{check.name}: {check.outcome}")
            else:
                lines += [group.replace("_", " ")] * is_new + [_line(check)]
            if check.note:
                lines += textwrap.wrap(check.note, _WIDTH, initial_indent="    ", subsequent_indent="    ")
        counts = {outcome: 0 for outcome in ("passed", "failed", "inconclusive")}
        for check in self.checks:
            if check.outcome in counts:
                counts[check.outcome] += 1
        verdict = "Fit" if self.passed else "Not fit" if self.failures else "Not shown to be fit"
        said = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)
        return "\n".join(
            [*lines, "", f"{verdict} for dynamics by what was asked for: {said or 'no row applies'}."]
        )

    def as_json(self) -> dict[str, Any]:
        """One flat dictionary for a file; numbers of rows are under "group.name.value" and so on.

        NaN is None. Times are in fs, pressures in bar.
        """
        found: dict[str, Any] = {
            "passed": self.passed,
            "potential": self.potential,
            "composition": self.composition,
            "precision": self.precision,
            "temperature_K": self.temperature,
            "pressure_bar": None if self.pressure is None else self.pressure / units.BAR,
            "dt_fs": self.dt / units.FS,
            "seed": list(self.seed),
            "seconds": self.seconds,
        }
        if self.time_steps is not None:
            found["largest_dt_fs"] = self.time_steps.largest_dt / units.FS
        for check in self.checks:
            for field in ("outcome", "value", "error", "expected", "bound", "unit", "note"):
                entry = getattr(check, field)
                is_missing = isinstance(entry, float) and not np.isfinite(entry)
                found[f"{check.group}.{check.name}.{field}"] = None if is_missing else entry
        return found


def _line(check: Check) -> str:
    def number(x: float, form: str) -> str:
        return format(x, form) if np.isfinite(x) else ""

    allowed = f"± {check.bound:.2g}" if np.isfinite(check.bound) else ""
    if check.expected and allowed:
        allowed = f"{check.expected:g} {allowed}"
    value, error = number(check.value, ".4g"), number(check.error, ".2g")
    return f"  {check.name:<38} {value:>10} {error:>9} {allowed:>17} {check.unit:<6} {check.outcome}"
