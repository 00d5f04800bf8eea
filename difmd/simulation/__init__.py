"""Molecular dynamics: `rollout`, a pure function, and `simulate`, its driver on the host."""

from difmd.simulation.driver import SimulationInterrupted, simulate
from difmd.simulation.limits import Limits
from difmd.simulation.rollouts import Frame, Rollout, initialize, rollout

__all__ = [
    "Frame",
    "Limits",
    "Rollout",
    "SimulationInterrupted",
    "initialize",
    "rollout",
    "simulate",
]
