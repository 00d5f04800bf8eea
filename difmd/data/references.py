"""Reference energies of the elements: from isolated atoms in the data, or fitted to total energies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from difmd._internal.summaries import brief_repr
from difmd.data.frames import Frame, is_isolated_atom
from difmd.errors import InputError
from difmd.potentials.species import symbols

_ITERATIONS = 50


@brief_repr
class ReferenceEnergies(NamedTuple):
    """Energies of the atoms of each element without interaction.

    Attributes:
        energies: by atomic number [eV].
        origins: by atomic number: "given", "isolated atom" or "fitted".
        note: a summary with caveats.
    """

    energies: dict[int, float]
    origins: dict[int, str]
    note: str


def reference_energies(
    frames: Sequence[Frame], isolated: Mapping[int, float] | None = None
) -> ReferenceEnergies:
    """Reference energies of all elements in the frames.

    Isolated atoms in the data are used if there are any. The energies of the other elements are fitted to the
    total energies as Σ_Z n_Z E_Z by least absolute deviations per atom, which is robust against a few wrong
    energies. If the compositions do not determine them, for example if all frames have the same one, the
    solution of least norm is used: it removes a constant but is not an energy of atoms.

    Args:
        frames: with total energies.
        isolated: energies of isolated atoms [eV] by atomic number, which override those in the data.

    Returns:
        `ReferenceEnergies`.

    Raises:
        InputError: no frame has an energy, or none with one of the elements.
    """
    labelled = [frame for frame in frames if frame.energy is not None]
    if not labelled:
        raise InputError(f"none of {len(frames)} frames has an energy to determine reference energies")
    elements = sorted({int(z) for frame in frames for z in np.unique(frame.numbers)})
    energies = {z: float(energy) for z, energy in (isolated or {}).items() if z in elements}
    origins = dict.fromkeys(energies, "given")
    for frame in labelled:
        z = int(frame.numbers[0])
        if is_isolated_atom(frame) and frame.energy is not None and origins.get(z) != "given":
            # The lowest of several, such as spin states, is the ground state.
            energies[z], origins[z] = min(frame.energy, energies.get(z, np.inf)), "isolated atom"
    rest = [z for z in elements if z not in energies]
    kinds = [kind for kind in ("given", "isolated atom") if kind in origins.values()]
    notes = [f"{kind}: {_names(z for z in origins if origins[z] == kind)}" for kind in kinds]
    if rest:
        counts = np.array([[np.sum(frame.numbers == z) for z in elements] for frame in labelled], float)
        totals = np.array([frame.energy for frame in labelled])
        known = np.array([energies.get(z, 0.0) for z in elements])
        columns = [elements.index(z) for z in rest]
        has_rest = counts[:, columns].any(axis=1)
        size = counts[has_rest].sum(axis=1)
        rows = counts[has_rest][:, columns] / size[:, None]
        values = (totals - counts @ known)[has_rest] / size
        if not len(rows):
            raise InputError(
                f"no frame with {_names(rest)} has an energy: give their energies with isolated="
            )
        fitted, rank = least_absolute(rows, values)
        energies.update(zip(rest, map(float, fitted), strict=True))
        origins.update(dict.fromkeys(rest, "fitted"))
        notes.append(f"fitted: {_names(rest)} to {len(rows)} frames")
        if rank < len(rest):
            notes.append(
                f"the compositions determine only {rank} of {len(rest)} fitted energies: add frames of "
                "isolated atoms for meaningful ones"
            )
    order = dict(sorted(energies.items()))
    return ReferenceEnergies(order, {z: origins[z] for z in order}, "; ".join(notes))


def excess_energies(frames: Sequence[Frame], references: ReferenceEnergies) -> np.ndarray:
    """Energy per atom relative to the reference energies [eV], NaN without a label; [frames].

    Args:
        frames: labelled configurations.
        references: energies of isolated atoms.

    Returns:
        [frames], in eV per atom.
    """
    excess = np.full(len(frames), np.nan)
    for k, frame in enumerate(frames):
        if frame.energy is not None:
            isolated = sum(references.energies[int(z)] for z in frame.numbers)
            excess[k] = (frame.energy - isolated) / frame.n_atoms
    return excess


def least_absolute(rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Least absolute deviations by reweighted least squares: solution (of least norm) and rank."""
    rank = int(np.linalg.matrix_rank(rows))
    fitted = np.linalg.lstsq(rows, values, rcond=1e-10)[0]
    for _ in range(_ITERATIONS):
        residual = np.abs(values - rows @ fitted)
        # A vanishing residual would have infinite weight.
        weight = 1 / np.sqrt(np.maximum(residual, 1e-6 + 1e-3 * np.median(residual)))
        new = np.linalg.lstsq(rows * weight[:, None], values * weight, rcond=1e-10)[0]
        if np.allclose(new, fitted, rtol=0, atol=1e-9):
            break
        fitted = new
    return fitted, rank


def _names(numbers: Iterable[int]) -> str:
    return " ".join(symbols(sorted(numbers)))
