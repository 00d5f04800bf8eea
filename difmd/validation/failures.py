"""Notes of failed runs, with remedies that apply to `validate`."""

from __future__ import annotations

import numpy as np

from difmd.errors import REMEDIES, Flag, InputError, SimulationError, flags_of

_LIST = (
    "the neighbour list kept overflowing, or atoms left it: look for a time step that is too large, or atoms "
    "that collapse onto each other"
)

# The others name arguments of neighbour lists, integrators and `simulate`.
_REMEDIES = REMEDIES | {
    Flag.NEIGHBOR_OVERFLOW: _LIST,
    Flag.NEIGHBOR_STALE: _LIST,
    Flag.CELL_TOO_SMALL: "the cell shrank too far: look at the pressure (`1 * units.BAR`) and at the "
    "checks of the stress",
    Flag.ENERGY_JUMP: "the energy changed by more than its limit between two frames: look for a time step "
    "that is too large, or discontinuities of the potential; the limit is "
    "`validate(limits=difmd.Limits(energy_jump=))`",
    Flag.TOO_CLOSE: "two atoms are closer than the limit: look for a potential that is not repulsive there, "
    "such as a network (add `difmd.zbl`), or an initial density that is too high; the limit is "
    "`validate(limits=difmd.Limits(closest=))`",
    Flag.CELL_COLLAPSE: "the cell changed by more than a tenth in one step, or is smaller than its atoms: "
    "look at the pressure (`1 * units.BAR`), or for a potential that is not repulsive",
}


def reason(error: SimulationError | InputError) -> str:
    """The note of a check for an error of `simulate`: causes, remedies and the first step."""
    status = error.status if isinstance(error, SimulationError) else None
    if status is None:
        return str(error)
    flags, steps = np.asarray(status.flags).reshape(-1), np.asarray(status.first_bad_step).reshape(-1)
    is_bad = flags != 0
    text = "; ".join(_REMEDIES[flag] for flag in Flag if flags_of(status) & flag)
    return f"{text} (first at step {steps[is_bad].min()}, in {is_bad.sum()} of {len(flags)} replicas)"
