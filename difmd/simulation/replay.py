"""Runs that are repeated with a larger neighbour list when it overflows."""

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
    """`replay`, with a `SimulationError` for flags that a larger list does not clear (host)."""
    result, neighbors, growths = replay(run, system, neighbors)
    status = result.status  # type: ignore[attr-defined]
    if flags_of(status):
        raise SimulationError(describe(status), status=status)
    return result, neighbors, growths


def replay(
    run: Callable[[Neighbors], _Result], system: System, neighbors: Neighbors
) -> tuple[_Result, Neighbors, int]:
    """Run, and on overflow run again from the same state with a larger list, at most ten times (host).

    `run` is a pure function of the list whose result has a `status`. Returns the last result, its list, and
    the number of replays.
    """
    for growths in range(_MAX_GROWTHS + 1):
        result = run(neighbors)
        flags = flags_of(jax.block_until_ready(result.status))  # type: ignore[attr-defined]
        exploded = bool(flags & (Flag.NON_FINITE | Flag.TOO_FAST | Flag.CELL_COLLAPSE))
        if growths == _MAX_GROWTHS:
            break
        if flags & Flag.CELL_TOO_SMALL and not exploded:
            # More capacity each time, as the initial cell does not show how far it will shrink.
            neighbors = neighbor_list(
                system, cutoff=neighbors.cutoff, skin=neighbors.skin, shrink=1.1 ** (growths + 1),
                reverse_edges=neighbors.reverse_edges is not None,
            )  # fmt: skip
        elif flags & Flag.NEIGHBOR_OVERFLOW and not (exploded and growths >= 2):
            # Forces without a pair may cause an explosion, so the list is enlarged first; an explosion fills
            # any list, so this is tried only twice.
            neighbors = rebuild_on_host(system, neighbors)
            neighbors = grow(system, neighbors, at_least=1.0 if has_overflowed(neighbors) else 1.3)
            while has_overflowed(neighbors):
                # A list that lacks images or cell runs has not counted all neighbours.
                neighbors = grow(system, neighbors)
        else:
            break
    return result, neighbors, growths
