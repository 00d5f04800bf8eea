"""Trajectories in memory and on disk."""

from difmd.trajectory.frames import Frames
from difmd.trajectory.read import read_trajectory
from difmd.trajectory.snapshot import Snapshot
from difmd.trajectory.temperature import kinetic_temperature
from difmd.trajectory.trajectory import Trajectory

__all__ = ["Frames", "Snapshot", "Trajectory", "kinetic_temperature", "read_trajectory"]
