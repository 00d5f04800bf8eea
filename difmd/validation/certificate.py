"""`Certificate`, the result of `validate`."""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import numpy as np

from difmd import units
from difmd._internal.summaries import html_table, summary
from difmd.validation.checks import Check
from difmd.validation.cutoff import CutoffScan
from difmd.validation.energy_conservation import TimeSteps
from difmd.validation.ensembles import KineticEnergies, Volumes

_WIDTH = 110


class Certificate(NamedTuple):
    """Checks of a potential; `print` shows them as a table, `plots.plot_certificate` the data of some.

    Attributes:
        checks: in the order of their groups.
        potential: its description.
        composition: of the system, such as Ar108.
        precision: of the system, such as "float64".
        temperature: of the dynamics [K], or None.
        pressure: of volumes [eV/Å³], or None.
        dt: the time step [Å√(amu/eV)].
        seed: of the random numbers.
        seconds: wall time [s].
        scans: of two atoms through the cut-off, for each pair of species.
        time_steps: fluctuations of the energy, or None.
        kinetic: kinetic energies, or None.
        volumes: at three pressures, or None.
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
        """Whether at least one check passed, and none failed or was inconclusive."""
        outcomes = {check.outcome for check in self.checks}
        return "passed" in outcomes and not outcomes & {"failed", "inconclusive"}

    @property
    def failures(self) -> tuple[Check, ...]:
        """Checks that failed."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def __str__(self) -> str:
        """A table with a row for each check and its note below."""
        lines = [*textwrap.wrap(self.potential, _WIDTH, subsequent_indent="  "), self._conditions(), ""]
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
        return "\n".join([*lines, "", self._verdict()])

    def __repr__(self) -> str:
        """The verdict and the names of failed checks."""
        rows = {"conditions": self._conditions(), "verdict": self._verdict()}
        if self.failures:
            rows["failed"] = ", ".join(check.name for check in self.failures)
        return summary("Certificate", rows)

    def _repr_html_(self) -> str:
        """The table of checks for notebooks."""
        rows = {check.name: " ".join(_line(check)[40:].split()) for check in self.checks}
        return html_table(self._conditions(), rows | {"verdict": self._verdict()})

    def _conditions(self) -> str:
        text = f"{self.composition}, {self.precision}, "
        if self.temperature is not None:
            text += f"{self.temperature:g} K, dt = {self.dt / units.FS:.3g} fs, "
            text += "" if self.pressure is None else f"{self.pressure / units.BAR:g} bar, "
        return f"{text}seed {self.seed}, {self.seconds:.0f} s"

    def _verdict(self) -> str:
        outcomes = [check.outcome for check in self.checks]
        counts = {name: outcomes.count(name) for name in ("passed", "failed", "inconclusive")}
        verdict = "Fit" if self.passed else "Not fit" if self.failures else "Not shown to be fit"
        details = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)
        return f"{verdict} for dynamics by the requested checks: {details or 'none applies'}."

    def as_json(self) -> dict[str, Any]:
        """A flat dictionary for a file, with the value of a check under "group.name.value" and so on.

        Values have JSON types; NaN is None. Times are in fs, pressures in bar.
        """
        flat: dict[str, Any] = {"passed": self.passed}
        flat |= {name: getattr(self, name) for name in ("potential", "composition", "precision")}
        flat["temperature_K"] = self.temperature
        flat["pressure_bar"] = None if self.pressure is None else self.pressure / units.BAR
        flat |= {"dt_fs": self.dt / units.FS, "seed": list(self.seed), "seconds": self.seconds}
        if self.time_steps is not None:
            flat["largest_dt_fs"] = self.time_steps.largest_dt / units.FS
        for check in self.checks:
            for field in ("outcome", "value", "error", "expected", "bound", "unit", "note"):
                entry = getattr(check, field)
                is_missing = isinstance(entry, float) and not np.isfinite(entry)
                flat[f"{check.group}.{check.name}.{field}"] = None if is_missing else entry
        return flat


def _line(check: Check) -> str:
    def number(x: float, form: str) -> str:
        return format(x, form) if np.isfinite(x) else ""

    allowed = f"± {check.bound:.2g}" if np.isfinite(check.bound) else ""
    if check.expected and allowed:
        allowed = f"{check.expected:g} {allowed}"
    value, error = number(check.value, ".4g"), number(check.error, ".2g")
    return f"  {check.name:<38} {value:>10} {error:>9} {allowed:>17} {check.unit:<6} {check.outcome}"
