"""Exact neighbour lists: `neighbor_list` on the host, `update` and `rebuild` under jit."""

from difmd._internal.pairs import find_pairs
from difmd.neighbors.device import rebuild, update
from difmd.neighbors.host import (
    allocate,
    capacity_of,
    grow,
    has_overflowed,
    neighbor_list,
    rebuild_on_host,
    with_capacity,
)
from difmd.neighbors.skin import automatic_skin
from difmd.neighbors.types import Grid, Neighbors, check, extended_positions, is_stale

__all__ = [
    "Grid",
    "Neighbors",
    "automatic_skin",
    "check",
    "extended_positions",
    "find_pairs",
    "grow",
    "has_overflowed",
    "is_stale",
    "neighbor_list",
    "rebuild",
    "rebuild_on_host",
    "allocate",
    "capacity_of",
    "update",
    "with_capacity",
]
