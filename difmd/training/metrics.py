"""Errors of a potential on data: of all frames, of some frames, and of an element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from difmd._internal.summaries import brief_repr
from difmd.data.batches import Batch, Batches
from difmd.errors import InputError
from difmd.forces import Evaluation


class Errors(NamedTuple):
    """Mean absolute and root mean square errors; NaN without labels, ∞ for predictions that are not finite.

    Attributes:
        energy_mae: per atom [eV].
        energy_rmse: per atom [eV].
        forces_mae: over components [eV/Å].
        forces_rmse: over components [eV/Å].
        stress_rmse: over components [eV/Å³].
        virial_rmse: of the stress times the volume of an atom [eV].
        dipole_mae: over components [e·Å].
        dipole_rmse: over components [e·Å].
        dipole_error: √⟨|Δμ|²⟩/⟨|μ|⟩, relative to the mean length of the labels.
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


@brief_repr
class Residuals(NamedTuple):
    """Predictions of a potential and the labels (host, float64).

    Attributes:
        frame: index of each frame in the data; [frames].
        n_atoms: [frames].
        energy: predicted, relative to the reference energies [eV]; [frames].
        energy_label: NaN without a label; [frames].
        atom_frame: index of the frame of each atom; [atoms].
        element: atomic number of each atom; [atoms].
        forces: predicted [eV/Å]; [atoms, 3].
        forces_label: NaN without a label; [atoms, 3].
        stress: predicted [eV/Å³]; [frames, 3, 3].
        stress_label: NaN without a label; [frames, 3, 3].
        volume: 0 without three periodic directions [Å³]; [frames].
        dipole: predicted [e·Å]; NaN if the potential has none; [frames, 3].
        dipole_label: NaN without a label, with a periodic direction, or if the potential has no dipoles;
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
            frames: indices in the data.
            element: atomic number, for the forces; default: all.

        Returns:
            The `Errors`.
        """
        chosen = np.ones(len(self.frame), bool) if frames is None else np.isin(self.frame, frames)
        atoms = np.ones(len(self.element), bool) if frames is None else np.isin(self.atom_frame, frames)
        if element is not None:
            atoms &= self.element == element
        n_atoms = self.n_atoms[chosen]
        energy = _errors(self.energy[chosen] / n_atoms, self.energy_label[chosen] / n_atoms)
        forces = _errors(self.forces[atoms], self.forces_label[atoms])
        stress = _errors(self.stress[chosen], self.stress_label[chosen])
        per_atom = (self.volume[chosen] / n_atoms)[:, None, None]
        virial = _errors(self.stress[chosen] * per_atom, self.stress_label[chosen] * per_atom)
        dipole = _errors(self.dipole[chosen], self.dipole_label[chosen])
        lengths = np.linalg.norm(self.dipole_label[chosen], axis=1)
        mean_length = np.mean(lengths[~np.isnan(lengths)]) if np.any(lengths > 0) else np.nan
        dipole_mae, dipole_rmse = _mae_and_rmse(dipole)
        return Errors(
            *_mae_and_rmse(energy),
            *_mae_and_rmse(forces),
            stress_rmse=_mae_and_rmse(stress)[1],
            virial_rmse=_mae_and_rmse(virial)[1],
            dipole_mae=dipole_mae,
            dipole_rmse=dipole_rmse,
            dipole_error=float(3**0.5 * dipole_rmse / mean_length),
        )


def residuals(predict: Callable[[Batch], Evaluation], batches: Batches) -> Residuals:
    """Evaluate all frames of batches, in the order of the data.

    Args:
        predict: energies, forces, stresses and dipoles of a batch.
        batches: the data.

    Returns:
        `Residuals`.

    Raises:
        InputError: predictions whose shape is not that of the batch.
    """
    parts = [_compare(predict(batch), batch) for batch in batches]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in Residuals._fields}
    orders = {name: np.argsort(joined[name], kind="stable") for name in ("frame", "atom_frame")}
    return Residuals(**{k: v[orders["atom_frame" if k in _OF_ATOMS else "frame"]] for k, v in joined.items()})


_OF_ATOMS = ("atom_frame", "element", "forces", "forces_label")


def _compare(evaluation: Evaluation, batch: Batch) -> dict[str, np.ndarray]:
    """The fields of `Residuals` for the frames of a batch."""
    if np.shape(evaluation.forces) != batch.labels.forces.shape:
        raise InputError(
            f"predict returned forces of shape {list(np.shape(evaluation.forces))} for a batch of shape "
            f"{list(batch.labels.forces.shape)}: it must evaluate every frame, padding included"
        )
    real = batch.frames >= 0
    frames, labels, system = batch.frames[real], batch.labels, batch.system
    numbers = system.atomic_numbers[real]
    is_atom = numbers > 0
    n_atoms = is_atom.sum(axis=1)
    is_periodic = all(batch.neighbors.periodic)
    has_dipoles = evaluation.dipole is not None
    dipole = evaluation.dipole if has_dipoles else np.full(labels.dipole.shape, np.nan)
    has_dipole = labels.has_dipole & (has_dipoles and not any(batch.neighbors.periodic))

    def predicted(values: Any) -> np.ndarray:
        return np.asarray(values, np.float64)[real]

    def labelled(values: Any, is_known: Any) -> np.ndarray:
        shape = (-1,) + (1,) * (values.ndim - 1)
        return np.where(is_known.reshape(shape), values, np.nan)[real]

    return {
        "frame": frames,
        "n_atoms": n_atoms,
        "energy": predicted(evaluation.energy),
        "energy_label": labelled(labels.energy, labels.has_energy),
        "atom_frame": np.repeat(frames, n_atoms),
        "element": numbers[is_atom],
        "forces": predicted(evaluation.forces)[is_atom],
        "forces_label": labelled(labels.forces, labels.has_forces)[is_atom],
        "stress": predicted(evaluation.stress),
        "stress_label": labelled(labels.stress, labels.has_stress),
        "volume": np.abs(np.linalg.det(system.cell[real])) if is_periodic else np.zeros(len(frames)),
        "dipole": predicted(dipole),
        "dipole_label": labelled(labels.dipole, has_dipole),
    }


def _errors(predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Errors of the labelled entries; ∞ for predictions that are not finite."""
    has_label = ~np.isnan(label)
    error = predicted[has_label] - label[has_label]
    return np.where(np.isfinite(error), error, np.inf)


def _mae_and_rmse(error: np.ndarray) -> tuple[float, float]:
    """Mean absolute and root mean square error; NaN without labels."""
    if not error.size:
        return float("nan"), float("nan")
    return float(np.mean(np.abs(error))), float(np.sqrt(np.mean(error**2)))
