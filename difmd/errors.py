"""Errors raised on the host, and the sticky status flags that computations under jit return.

Nothing inside jit raises. Each check sets a bit of a `Status`; the host reads it and acts on every flag.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

__all__ = [
    "DifmdError",
    "Flag",
    "InputError",
    "SimulationError",
    "SimulationInterrupted",
    "Status",
    "describe",
    "flags_of",
]


class DifmdError(Exception):
    """Base class of the errors of difmd."""


class InputError(DifmdError, ValueError):
    """An invalid argument; the message names it, its value and what is allowed."""


def check_positive(name: str, value: Any, unit: str) -> None:
    """Require a positive, finite value, or raise `InputError`; traced values pass (host)."""
    if not (_finite_reals(name, value, unit) > 0).all():
        raise InputError(f"{name} = {value} {unit} must be positive and finite")


def check_not_negative(name: str, value: Any, unit: str) -> None:
    """Require a finite value that is not negative, or raise `InputError`; traced values pass (host)."""
    if not (_finite_reals(name, value, unit) >= 0).all():
        raise InputError(f"{name} = {value} {unit} must be finite and not negative")


def _finite_reals(name: str, value: Any, unit: str) -> np.ndarray:
    """Real numbers, with NaN for infinite and none for traced ones; lists, which are pytrees, raise."""
    if isinstance(value, jax.core.Tracer):
        return np.empty(0)
    if not isinstance(value, list | tuple):
        values = np.asarray(value)
        if jnp.issubdtype(values.dtype, np.floating) or jnp.issubdtype(values.dtype, np.integer):
            return np.where(np.isfinite(values), values, np.nan)
    raise InputError(f"{name} = {value!r} must be a real number [{unit}], not a {type(value).__name__}")


class SimulationError(DifmdError, RuntimeError):
    """A run that stopped because of a bad status.

    Attributes:
        partial_result: the completed part of the result, a `Trajectory` of `simulate` or the results of
            `relax`; None where nothing was complete.
        status: the `Status` that stopped the run, where there is one.
        states: from `simulate`, the `MDState` before the failure and the one at the failure.
    """

    def __init__(self, message: str, partial_result: Any = None, status: Status | None = None) -> None:
        """Store the completed part of the result and the status."""
        super().__init__(message)
        self.partial_result = partial_result
        self.status = status
        self.states: tuple[Any, ...] = ()


class SimulationInterrupted(SimulationError, KeyboardInterrupt):
    """Ctrl-C during `simulate` or `relax`; `partial_result` holds the completed part."""


class Flag(enum.IntFlag):
    """Bits of `Status.flags`."""

    NEIGHBOR_OVERFLOW = 1
    NEIGHBOR_STALE = 2
    CELL_TOO_SMALL = 4
    NON_FINITE = 8
    TOO_FAST = 16
    OFF_GRID = 32
    NOT_CONVERGED = 64
    ENERGY_JUMP = 128
    TOO_CLOSE = 256
    CELL_COLLAPSE = 512


REMEDIES = {
    Flag.NEIGHBOR_OVERFLOW: "the neighbour list ran out of capacity: rebuild it with "
    "`neighbor_list(..., slack=)` larger",
    Flag.NEIGHBOR_STALE: "an atom moved more than skin/2 between two rebuilds: use a larger skin, "
    "a smaller rebuild_every, or a smaller time step",
    Flag.CELL_TOO_SMALL: "the cell shrank so far that more periodic images are needed than were "
    "allocated: build a new list with `neighbor_list`",
    Flag.NON_FINITE: "positions, momenta, forces or the energy are NaN or infinite: look for overlapping "
    "atoms, a time step that is too large, or unphysical parameters",
    Flag.TOO_FAST: "an atom moves farther than the cut-off in one step: look for overlapping atoms, or a "
    "time step that is too large",
    Flag.OFF_GRID: "positions or momenta left the range in which `reversible` undoes steps exactly: start "
    "with atoms inside the cell, use float64, or another gradient method",
    Flag.ENERGY_JUMP: "the energy changed more between two frames than `simulate(limits=)` allows: look for "
    "a time step that is too large, or places where the potential is not smooth",
    Flag.TOO_CLOSE: "two atoms are closer than `simulate(limits=)` allows: look for a potential that does "
    "not repel at short distances, as a network may not (add `difmd.zbl`), or an initial state that is too "
    "dense",
    Flag.CELL_COLLAPSE: "the cell changed by more than a tenth in one step, or is smaller than its atoms: "
    "check the units of the pressure (`1 * units.BAR`), the time constant, the compressibility, and whether "
    "the potential repels at short distances",
    Flag.NOT_CONVERGED: "forces are still above the tolerance: allow more steps, or a larger tolerance in "
    "float32",
}


_OF_LISTS = Flag.NEIGHBOR_OVERFLOW | Flag.NEIGHBOR_STALE | Flag.CELL_TOO_SMALL


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Sticky flags of a computation under jit.

    Attributes:
        flags: bitwise or of `Flag`, 0 without problems; int32 [].
        first_bad_step: step at which the first flag was set, −1 without flags; int32 [].
    """

    flags: Int[Array, "..."]
    first_bad_step: Int[Array, "..."]

    @classmethod
    def ok(cls) -> Status:
        """A status without flags."""
        return cls(flags=jnp.int32(0), first_bad_step=jnp.int32(-1))

    def raise_flag(self, flag: Flag, when: Bool[Array, "..."], step: Int[Array, "..."]) -> Status:
        """A status with `flag` set where `when` holds; the first bad step stays."""
        new = jnp.where(when, self.flags | int(flag), self.flags)
        first = jnp.where((self.flags == 0) & when, step, self.first_bad_step)
        return Status(flags=new.astype(jnp.int32), first_bad_step=first.astype(jnp.int32))


def describe(status: Status) -> str:
    """The flags of a status as text (host).

    Args:
        status: of any batch shape.

    Returns:
        Flags, remedies and the first bad step; `ok` without flags.
    """
    flags = np.asarray(status.flags).reshape(-1)
    steps = np.asarray(status.first_bad_step).reshape(-1)
    union = flags_of(status)
    if not union:
        return "ok"
    bad = flags != 0
    where = f"first at step {int(steps[bad].min())}"
    if flags.size > 1:
        where += f", in {int(bad.sum())} of {flags.size} replicas"
    # A list may overflow because of an explosion, so its flags come last.
    order = sorted(Flag, key=lambda flag: (flag in _OF_LISTS, flag))
    lines = [f"{flag.name}: {REMEDIES[flag]}" for flag in order if union & flag]
    return f"{'; '.join(lines)} ({where})"


def flags_of(status: Status) -> Flag:
    """All flags set in a status (host).

    Args:
        status: of any batch shape.

    Returns:
        The union of its flags.
    """
    return Flag(int(np.bitwise_or.reduce(np.asarray(status.flags).reshape(-1))))
