"""`Frames`: the stored frames of a simulation, the same type in `rollout`, on the host and in files."""

from __future__ import annotations

from typing import Any, NamedTuple

from difmd._internal.summaries import brief_repr


@brief_repr
class Frames(NamedTuple):
    """Frames of a simulation: arrays whose leading axis is the frames, then replicas if there are any.

    `rollout` stores positions and momenta by default, `simulate` every field.

    Attributes:
        positions: unwrapped [Å]; [frames, *replicas, atoms, 3].
        momenta: [amu Å/(Å√(amu/eV))]; [frames, *replicas, atoms, 3].
        potential_energy: [eV]; [frames, *replicas].
        stress: of the interactions alone, tension positive [eV/Å³]; [frames, *replicas, 3, 3].
        cells: rows are lattice vectors [Å]; [frames, *replicas, 3, 3].
        reservoir: energy that baths have received, NaN where it is not computed [eV]; [frames, *replicas].
    """

    positions: Any
    momenta: Any
    potential_energy: Any = None
    stress: Any = None
    cells: Any = None
    reservoir: Any = None
