"""Statistics that scale a network: elements, energies of atoms, forces, numbers of neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd._internal.pairs import find_pairs
from difmd._internal.summaries import brief_repr
from difmd.data.frames import Frame
from difmd.data.references import excess_energies, reference_energies
from difmd.errors import InputError, check_positive
from difmd.potentials.species import Species, as_species, symbols, type_table


@brief_repr
class Statistics(NamedTuple):
    """Arguments of a network.

    Attributes:
        species: atomic numbers, ascending.
        references: energy of an atom of each element [eV].
        scale: root mean square of the force components [eV/Å]; without forces the standard deviation of the
            energies per atom [eV].
        avg_num_neighbors: mean number of neighbours within the cut-off.
    """

    species: tuple[int, ...]
    references: dict[int, float]
    scale: float
    avg_num_neighbors: float


def statistics(
    frames: Sequence[Frame], *, cutoff: float, isolated: Mapping[int, float] | None = None
) -> Statistics:
    """Statistics of the frames that a network is trained on.

    Args:
        frames: the data.
        cutoff: of the network [Å].
        isolated: energies of isolated atoms [eV], as in `reference_energies`.

    Returns:
        `Statistics`.

    Raises:
        InputError: no frames, no energies, no atom with a neighbour, or a cut-off that is not positive.
    """
    check_positive("cutoff", cutoff, "Å")
    references = reference_energies(frames, isolated)
    forces = [frame.forces.reshape(-1) for frame in frames if frame.forces is not None]
    if forces:
        scale = float(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    else:
        scale = float(np.nanstd(excess_energies(frames, references)))
    # A few hundred frames suffice for the mean.
    sample = frames[:: max(len(frames) // 200, 1)]
    pairs = sum(len(find_pairs(f.positions, f.cell, f.pbc, cutoff)[0]) for f in sample)
    neighbors = pairs / sum(frame.n_atoms for frame in sample)
    if neighbors == 0:
        raise InputError(f"no atom has a neighbour within {cutoff} Å: check the unit of the positions")
    energies = references.energies
    return Statistics(tuple(energies), energies, scale if scale > 0 else 1.0, float(neighbors))


def nearest_distances(
    frames: Sequence[Frame], *, species: Species, cutoff: float
) -> Float[np.ndarray, "species species"]:
    """Shortest distance of each pair of species, the argument `nearest` of a network.

    Args:
        frames: the data.
        species: symbols or atomic numbers, such as `Statistics.species`.
        cutoff: of the network [Å], also the value for pairs of species without a shorter distance.

    Returns:
        Distances [Å].

    Raises:
        InputError: an atom of another species, or a cut-off that is not positive.
    """
    check_positive("cutoff", cutoff, "Å")
    numbers = as_species(species)
    index = type_table(numbers)
    nearest = np.full((len(numbers), len(numbers)), float(cutoff))
    for frame in frames:
        kinds = index[frame.numbers]
        if (kinds < 0).any():
            raise InputError(
                f"{frame.source or 'a frame'} contains {symbols(frame.numbers[kinds < 0].tolist())[0]}, "
                f"which is not among the species {', '.join(symbols(numbers))}"
            )
        i, j, _, distances = find_pairs(frame.positions, frame.cell, frame.pbc, cutoff)
        np.minimum.at(nearest, (kinds[i], kinds[j]), distances)
    return np.minimum(nearest, nearest.T)
