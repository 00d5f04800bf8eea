"""`examine`: checks of a data set before a potential is fitted to it."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from difmd._internal.summaries import html_table, summary
from difmd.data.examination import quality
from difmd.data.examination.duplicates import check_duplicates
from difmd.data.examination.energy_force import check_energy_forces
from difmd.data.examination.energy_stress import check_energy_stress
from difmd.data.examination.findings import Finding, Verdict
from difmd.data.examination.outliers import check_outliers
from difmd.data.examination.stress_checks import check_stress
from difmd.data.examination.survey import survey
from difmd.data.examination.unit_checks import check_absolute_units, check_mixed_energies, check_mixed_forces
from difmd.data.frames import Frame
from difmd.data.references import ReferenceEnergies, reference_energies
from difmd.errors import InputError
from difmd.potentials.species import symbols

if TYPE_CHECKING:
    from rich.table import Table

_COLORS = {Verdict.OK: "green", Verdict.UNKNOWN: "dim", Verdict.DOUBTFUL: "yellow", Verdict.WRONG: "bold red"}

# Number of frames from which a progress bar is shown.
_MANY = 5000


class Examination(NamedTuple):
    """The result of `examine`; `print` shows all findings.

    Attributes:
        findings: at least one for each item, in a fixed order.
        n_frames: number of examined frames.
        n_atoms: smallest and largest number of atoms.
        elements: chemical symbols.
        references: reference energies; None without energies.
    """

    findings: tuple[Finding, ...]
    n_frames: int
    n_atoms: tuple[int, int]
    elements: tuple[str, ...]
    references: ReferenceEnergies | None

    def find(self, item: str) -> Finding:
        """The finding of an item, the worst if there are several.

        Raises:
            InputError: the item does not exist.
        """
        findings = [finding for finding in self.findings if finding.item == item]
        if not findings:
            items = ", ".join(dict.fromkeys(finding.item for finding in self.findings))
            raise InputError(f"there is no item {item!r} in this examination; the items are {items}")
        return max(findings, key=lambda finding: _severity(finding.verdict))

    @property
    def verdict(self) -> Verdict:
        """The worst verdict: WRONG, DOUBTFUL or OK."""
        worst = max((finding.verdict for finding in self.findings), key=_severity, default=Verdict.OK)
        return Verdict.OK if worst is Verdict.UNKNOWN else worst

    def table(self) -> Table:
        """The findings as a table of rich."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self._title(), title_justify="left", show_lines=False)
        table.add_column("item", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("finding")
        for finding in self.findings:
            text = Text(finding.summary)
            if finding.remedy:
                text.append(f"\n→ {finding.remedy}", style="italic")
            table.add_row(finding.item, Text(finding.verdict.value, style=_COLORS[finding.verdict]), text)
        return table

    def __repr__(self) -> str:
        """The title and the items that are wrong or doubtful."""
        names = {
            verdict.value: ", ".join(dict.fromkeys(f.item for f in self.findings if f.verdict is verdict))
            for verdict in (Verdict.WRONG, Verdict.DOUBTFUL, Verdict.UNKNOWN)
        }
        return summary(f"Examination of {self._title()}", {k: v for k, v in names.items() if v})

    def _repr_html_(self) -> str:
        rows = {
            f.item: f"{f.verdict.value}: {f.summary}" + (f" → {f.remedy}" if f.remedy else "")
            for f in self.findings
        }
        return html_table(self._title(), rows)

    def __str__(self) -> str:
        """The table as plain text."""
        from rich.console import Console

        buffer = StringIO()
        Console(file=buffer, width=120, color_system=None).print(self.table())
        return buffer.getvalue()

    def raise_if_wrong(self) -> None:
        """Raise an `InputError` with the findings and their remedies if a verdict is WRONG."""
        wrong = [finding for finding in self.findings if finding.verdict is Verdict.WRONG]
        if wrong:
            lines = [f"{finding.item}: {finding.summary}; {finding.remedy}" for finding in wrong]
            raise InputError("the data are wrong: " + " | ".join(lines))

    def report(self) -> dict[str, Any]:
        """All findings as numbers, text and lists, for JSON."""
        energies = None if self.references is None else self.references.energies
        return {
            "n_frames": self.n_frames, "n_atoms": list(self.n_atoms), "elements": list(self.elements),
            "verdict": self.verdict.value,
            "reference_energies_eV": energies and {str(z): energy for z, energy in energies.items()},
            "findings": [
                {**f._asdict(), "verdict": f.verdict.value, "frames": list(f.frames)} for f in self.findings
            ],
        }  # fmt: skip

    def _title(self) -> str:
        low, high = self.n_atoms
        atoms = f"{low}" if low == high else f"{low} to {high}"
        return f"{self.n_frames} frames of {atoms} atoms, {' '.join(self.elements)}: {self.verdict.value}"


def examine(frames: Sequence[Frame], *, progress: bool | None = None) -> Examination:
    """Check a data set: labels, geometry, units, signs, orders, duplicates and outliers.

    Units of forces and sign and order of the stress are compared with a pair potential fitted to the forces;
    if that does not describe them, the verdict is UNKNOWN. The frames are not changed.

    Args:
        frames: as returned by `read`, in the order of the file: consecutive frames of a trajectory show
            whether the forces are the derivative of the energy.
        progress: show a progress bar; default: for 5 000 frames or more.

    Returns:
        The `Examination`.

    Raises:
        InputError: there are no frames.
    """
    if not len(frames):
        raise InputError("there are no frames to examine")
    s = survey(frames, progress=len(frames) >= _MANY if progress is None else progress)
    references, finding = _references(frames, s.usable)
    findings = [quality.check_labels(s), quality.check_finite(s), quality.check_cells(s)]
    findings += [quality.check_close_atoms(s), check_duplicates(s), finding]
    comparisons = [*check_outliers(s), check_mixed_energies(s), check_mixed_forces(s)]
    findings += comparisons
    # Frames with known errors would obscure the comparison of the others.
    exclude = {int(i) for f in comparisons if f.verdict is not Verdict.OK for i in f.frames}
    findings += [quality.check_net_forces(s), check_energy_forces(s, exclude), check_absolute_units(s)]
    findings += [*check_stress(s), check_energy_stress(s, exclude)]
    numbers = np.unique(np.concatenate([frame.numbers for frame in frames]))
    found = tuple(f._replace(frames=tuple(int(i) for i in f.frames)) for f in findings)
    n_atoms, elements = (int(s.sizes.min()), int(s.sizes.max())), tuple(symbols(numbers.tolist()))
    return Examination(found, len(frames), n_atoms, elements, references)


def _references(frames: Sequence[Frame], usable: np.ndarray) -> tuple[ReferenceEnergies | None, Finding]:
    item = "reference energies"
    finite = [frame for frame, ok in zip(frames, usable, strict=True) if ok]
    if not any(frame.energy is not None for frame in finite):
        return None, Finding(item, Verdict.UNKNOWN, "there are no energies")
    try:
        references = reference_energies(finite)
    except InputError as error:
        return None, Finding(item, Verdict.UNKNOWN, str(error))
    names = symbols(references.energies)
    energies = references.energies.values()
    values = ", ".join(f"{name} {energy:.3f}" for name, energy in zip(names, energies, strict=True))
    return references, Finding(item, Verdict.OK, f"{values} eV ({references.note})")


def _severity(verdict: Verdict) -> int:
    return [Verdict.OK, Verdict.UNKNOWN, Verdict.DOUBTFUL, Verdict.WRONG].index(verdict)
