"""What a network is made to the measure of: elements, energies of atoms, sizes of forces, neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd._internal.pairs import find_pairs
from difmd.data.frames import Frame
from difmd.data.references import excess_energies, reference_energies
from difmd.errors import InputError, check_positive
from difmd.potentials.species import type_table


class Statistics(NamedTuple):
    """What a network is made with.

    Attributes:
        species: atomic numbers, ascending.
        references: energy of an atom of each element [eV].
        scale: root mean square force [eV/Å], or without forces the spread of energies per atom [eV].
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
        InputError: no frames, no energies, or no atom with a neighbour.
    """
    check_positive("cutoff", cutoff, "Å")
    references = reference_energies(frames, isolated)
    species = tuple(sorted({int(z) for frame in frames for z in np.unique(frame.numbers)}))
    forces = [frame.forces.reshape(-1) for frame in frames if frame.forces is not None]
    if forces:
        scale = float(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    else:
        scale = float(np.nanstd(excess_energies(frames, references)))
    # A few hundred frames tell the mean.
    some = frames[:: max(len(frames) // 200, 1)]
    pairs = sum(len(find_pairs(f.positions, f.cell, f.pbc, cutoff)[0]) for f in some)
    neighbors = pairs / sum(frame.n_atoms for frame in some)
    if neighbors == 0:
        raise InputError(f"no atom has a neighbour within {cutoff} Å: look at the units of the positions")
    return Statistics(species, references.energies, scale if scale > 0 else 1.0, float(neighbors))


def nearest_distances(
    frames: Sequence[Frame], *, species: Sequence[int], cutoff: float
) -> Float[np.ndarray, "species species"]:
    """Shortest distance of each pair of species, for the `nearest` of a network.

    Args:
        frames: the data, all of which are searched.
        species: atomic numbers, as in `Statistics`.
        cutoff: of the network [Å], which stands where no pair is in reach.

    Returns:
        Distances [Å].

    Raises:
        InputError: an atom of another species.
    """
    check_positive("cutoff", cutoff, "Å")
    place = type_table(species)
    found = np.full((len(species), len(species)), float(cutoff))
    for frame in frames:
        kinds = place[frame.numbers]
        if (kinds < 0).any():
            raise InputError(
                f"frames hold the element {frame.numbers[kinds < 0][0]}, which is not among the species "
                f"{tuple(species)}"
            )
        i, j, _, distances = find_pairs(frame.positions, frame.cell, frame.pbc, cutoff)
        np.minimum.at(found, (kinds[i], kinds[j]), distances)
    return np.minimum(found, found.T)
