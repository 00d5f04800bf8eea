"""Trajectories in memory and on disk."""

from difmd.trajectory.read import read_trajectory
from difmd.trajectory.trajectory import Trajectory, kinetic_temperature

__all__ = ["Trajectory", "kinetic_temperature", "read_trajectory"]
