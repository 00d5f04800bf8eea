"""Exact neighbour lists: `neighbor_list` on the host, `update` and `rebuild` under jit."""

from difmd._internal.pairs import find_pairs
from difmd.neighbors.device import rebuild, update
from difmd.neighbors.host import allocate as allocate
from difmd.neighbors.host import capacity_of as capacity_of
from difmd.neighbors.host import grow, has_overflowed, neighbor_list
from difmd.neighbors.host import rebuild_on_host as rebuild_on_host
from difmd.neighbors.host import with_capacity as with_capacity
from difmd.neighbors.skin import automatic_skin
from difmd.neighbors.types import Neighbors, check, extended_positions, is_stale

__all__ = [
    "Neighbors", "automatic_skin", "check", "extended_positions", "find_pairs", "grow", "has_overflowed",
    "is_stale", "neighbor_list", "rebuild", "update",
]  # fmt: skip
