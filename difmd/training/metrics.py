"""Errors of a potential over data: all, by kind of frame and by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from difmd.data.batches import Batch, Batches
from difmd.errors import InputError
from difmd.forces import Evaluation


class Errors(NamedTuple):
    """Mean absolute and root mean square errors; NaN without such a label, ∞ for predictions not finite.

    Attributes:
        energy_mae: per atom [eV].
        energy_rmse: per atom [eV].
        forces_mae: over components [eV/Å].
        forces_rmse: likewise.
        stress_rmse: over components [eV/Å³].
        virial_rmse: of the stress times the volume of an atom [eV].
        dipole_mae: over components [e·Å].
        dipole_rmse: likewise.
        dipole_error: √⟨|Δμ|²⟩/⟨|μ|⟩, the error of the vector over the mean length of the labels.
    """

    energy_mae: float
    energy_rmse: float
    forces_mae: float
    forces_rmse: float
    stress_rmse: float
    virial_rmse: float
    dipole_mae: float
    dipole_rmse: float
    dipole_error: float


class Residuals(NamedTuple):
    """What a potential makes of data, and what the data say (host, float64).

    Attributes:
        frame: place of each frame in the data; [frames].
        n_atoms: [frames].
        energy: predicted, less the reference energies [eV]; [frames].
        energy_label: NaN where there is none; [frames].
        atom_frame: place of each atom's frame; [atoms].
        element: atomic number of each atom; [atoms].
        forces: predicted [eV/Å]; [atoms, 3].
        forces_label: NaN where there is none; [atoms, 3].
        stress: predicted [eV/Å³]; [frames, 3, 3].
        stress_label: NaN where there is none; [frames, 3, 3].
        volume: 0 where there is none [Å³]; [frames].
        dipole: predicted [e·Å]; NaN where the potential has none; [frames, 3].
        dipole_label: NaN where there is none, where the potential has none, or with a periodic direction;
            [frames, 3].
    """

    frame: Int[np.ndarray, "frames"]
    n_atoms: Int[np.ndarray, "frames"]
    energy: Float[np.ndarray, "frames"]
    energy_label: Float[np.ndarray, "frames"]
    atom_frame: Int[np.ndarray, "atoms"]
    element: Int[np.ndarray, "atoms"]
    forces: Float[np.ndarray, "atoms 3"]
    forces_label: Float[np.ndarray, "atoms 3"]
    stress: Float[np.ndarray, "frames 3 3"]
    stress_label: Float[np.ndarray, "frames 3 3"]
    volume: Float[np.ndarray, "frames"]
    dipole: Float[np.ndarray, "frames 3"]
    dipole_label: Float[np.ndarray, "frames 3"]

    def errors(self, frames: Sequence[int] | None = None, element: int | None = None) -> Errors:
        """Errors of some frames (default: all), and of the forces on one element.

        Args:
            frames: places in the data.
            element: atomic number, for the forces; default: any.
        """
        chosen = np.ones(len(self.frame), bool) if frames is None else np.isin(self.frame, frames)
        atoms = np.ones(len(self.element), bool) if frames is None else np.isin(self.atom_frame, frames)
        if element is not None:
            atoms &= self.element == element
        n_atoms = self.n_atoms[chosen]
        energy = _known(self.energy[chosen] / n_atoms, self.energy_label[chosen] / n_atoms)
        forces = _known(self.forces[atoms], self.forces_label[atoms])
        stress = _known(self.stress[chosen], self.stress_label[chosen])
        each = (self.volume[chosen] / n_atoms)[:, None, None]
        virial = _known(self.stress[chosen] * each, self.stress_label[chosen] * each)
        dipole = _known(self.dipole[chosen], self.dipole_label[chosen])
        lengths = np.linalg.norm(self.dipole_label[chosen], axis=1)
        return Errors(
            energy_mae=_mae(energy),
            energy_rmse=_rmse(energy),
            forces_mae=_mae(forces),
            forces_rmse=_rmse(forces),
            stress_rmse=_rmse(stress),
            virial_rmse=_rmse(virial),
            dipole_mae=_mae(dipole),
            dipole_rmse=_rmse(dipole),
            dipole_error=3**0.5 * _rmse(dipole) / _mean_of_known(lengths),
        )


def residuals(predict: Callable[[Batch], Evaluation], batches: Batches) -> Residuals:
    """Evaluate all frames of some batches, in the order of the data.

    Args:
        predict: energies, forces, stresses and dipoles of a batch.
        batches: the data.

    Returns:
        `Residuals`.

    Raises:
        InputError: predictions whose shape is not that of the batch.
    """
    by_frame, by_atom = [], []
    for batch in batches:
        found = predict(batch)
        labels = batch.labels
        if np.shape(found.forces) != labels.forces.shape:
            raise InputError(
                f"predict returned forces of shape {list(np.shape(found.forces))} for a batch of shape "
                f"{list(labels.forces.shape)}: it must evaluate every frame, padding included"
            )
        energy, forces, stress = (
            np.asarray(x, np.float64) for x in (found.energy, found.forces, found.stress)
        )
        dipole = np.full((len(energy), 3), np.nan) if found.dipole is None else np.asarray(found.dipole)
        has_dipole = labels.has_dipole & (found.dipole is not None and not any(batch.neighbors.periodic))
        for row in np.flatnonzero(batch.frames >= 0):
            is_atom = batch.system.atomic_numbers[row] > 0
            place = batch.frames[row]
            by_frame.append(
                (
                    place,
                    is_atom.sum(),
                    energy[row],
                    labels.energy[row] if labels.has_energy[row] else np.nan,
                    stress[row],
                    labels.stress[row] if labels.has_stress[row] else np.full((3, 3), np.nan),
                    abs(np.linalg.det(batch.system.cell[row])) if all(batch.neighbors.periodic) else 0.0,
                    np.asarray(dipole[row], np.float64),
                    labels.dipole[row] if has_dipole[row] else np.full(3, np.nan),
                )
            )
            known = labels.forces[row][is_atom] if labels.has_forces[row] else np.nan * forces[row][is_atom]
            numbers = batch.system.atomic_numbers[row][is_atom]
            by_atom.append((np.full(len(numbers), place), numbers, forces[row][is_atom], known))
    order = np.argsort([row[0] for row in by_frame])
    frame, n_atoms, energy, label, stress, stress_label, volume, dipole, dipole_label = (
        np.asarray([by_frame[k][c] for k in order]) for c in range(9)
    )
    atom_frame, element, forces, forces_label = (
        np.concatenate([by_atom[k][c] for k in order]) for c in range(4)
    )
    return Residuals(
        frame,
        n_atoms,
        energy,
        label,
        atom_frame,
        element,
        forces,
        forces_label,
        stress,
        stress_label,
        volume,
        dipole,
        dipole_label,
    )


def _known(found: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Errors where there is a label, ∞ for what is not finite there."""
    is_known = ~np.isnan(label)
    error = found[is_known] - label[is_known]
    return np.where(np.isfinite(error), error, np.inf)


def _mae(error: np.ndarray) -> float:
    return float(np.mean(np.abs(error))) if error.size else float("nan")


def _mean_of_known(values: np.ndarray) -> float:
    """NaN where nothing is known, or nothing but zeros."""
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if np.any(known > 0) else float("nan")


def _rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2))) if error.size else float("nan")
