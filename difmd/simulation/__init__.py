"""Molecular dynamics: `rollout`, a pure function, and `simulate`, its driver on the host."""

from difmd.simulation.driver import simulate
from difmd.simulation.limits import Limits
from difmd.simulation.rollouts import Rollout, initialize, rollout

__all__ = ["Limits", "Rollout", "initialize", "rollout", "simulate"]
