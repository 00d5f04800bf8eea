"""What a run that failed is reported as, with remedies that `validate` has."""

from __future__ import annotations

import numpy as np

from difmd.errors import REMEDIES, Flag, InputError, SimulationError, flags_of

_LIST = (
    "the neighbour list would not stop growing, or atoms left it: look for a time step that is too large, or "
    "atoms that collapse onto each other"
)

# Others name arguments of neighbour lists, integrators and `simulate`.
_REMEDIES = REMEDIES | {
    Flag.NEIGHBOR_OVERFLOW: _LIST,
    Flag.NEIGHBOR_STALE: _LIST,
    Flag.CELL_TOO_SMALL: "the cell shrank too far: look at the pressure (`1 * units.BAR`) and at the rows of "
    "the stress",
    Flag.ENERGY_JUMP: "the energy changed more from one frame to the next than it can: look for a time step "
    "that is too large, or places where the potential is not smooth; "
    "`validate(limits=difmd.Limits(energy_jump=))` says how much it may",
    Flag.TOO_CLOSE: "two atoms are nearer than chemistry knows: look for a potential that does not repel "
    "there, as a network may not (add `difmd.zbl`), or a start that is too dense; "
    "`validate(limits=difmd.Limits(closest=))` says how near they may be",
    Flag.CELL_COLLAPSE: "the cell changed by more than a tenth in one step, or is smaller than its atoms: "
    "look at the pressure (`1 * units.BAR`), or for a potential that does not repel",
}


def reason(error: SimulationError | InputError) -> str:
    """The note of a row for what `simulate` raised.

    Args:
        error: with a status, or with words alone.

    Returns:
        What was wrong, remedies, and when it was.
    """
    status = error.status if isinstance(error, SimulationError) else None
    if status is None:
        return str(error)
    flags, steps = np.asarray(status.flags).reshape(-1), np.asarray(status.first_bad_step).reshape(-1)
    is_bad = flags != 0
    said = "; ".join(_REMEDIES[flag] for flag in Flag if flags_of(status) & flag)
    return f"{said} (first at step {steps[is_bad].min()}, in {is_bad.sum()} of {len(flags)} replicas)"
