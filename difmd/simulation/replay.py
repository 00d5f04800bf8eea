"""Runs that overflow a neighbour list, run again with a larger one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from difmd.errors import Flag, SimulationError, describe, flags_of
from difmd.neighbors import Neighbors, grow, has_overflowed, neighbor_list, rebuild_on_host
from difmd.system import System

_MAX_GROWTHS = 10
_Result = TypeVar("_Result")


def replay_on_overflow(
    run: Callable[[Neighbors], _Result], system: System, neighbors: Neighbors
) -> tuple[_Result, Neighbors, int]:
    """Run, and on overflow run again from the same start with a larger list (host).

    Args:
        run: a function of the list whose result has a `status`; the same list gives the same result. A list
            that was grown is current for `system`.
        system: the start, from which a larger list is built.
        neighbors: the list to begin with; what counts is the room that it has.

    Returns:
        The clean result, the list that gave it, and how often it was grown.

    Raises:
        SimulationError: any other flag, or `_MAX_GROWTHS` growths that were not enough.
    """
    for growths in range(_MAX_GROWTHS + 1):
        result = run(neighbors)
        status = jax.block_until_ready(result.status)  # type: ignore[attr-defined]
        flags = flags_of(status)
        if not flags:
            return result, neighbors, growths
        exploded = bool(flags & (Flag.NON_FINITE | Flag.TOO_FAST | Flag.CELL_COLLAPSE))
        if flags & Flag.CELL_TOO_SMALL and not exploded:
            # More room each time, as the start of the chunk tells nothing of how far the cell went.
            neighbors = neighbor_list(
                system, cutoff=neighbors.cutoff, skin=neighbors.skin,
                reverse_edges=neighbors.reverse_edges is not None,
                shrink=1.1 ** (growths + 1),
            )  # fmt: skip
        elif flags & Flag.NEIGHBOR_OVERFLOW and not (exploded and growths >= 2):
            # Forces that miss a pair may well explode, so the list comes first; an explosion fills any
            # list, so it does so only twice.
            neighbors = rebuild_on_host(system, neighbors)
            neighbors = grow(system, neighbors, at_least=1.0 if has_overflowed(neighbors) else 1.3)
            while has_overflowed(neighbors):
                # A list that lacks images or runs did not see all neighbours.
                neighbors = grow(system, neighbors)
        else:
            break
    raise SimulationError(describe(status), status=status)
