"""Integrators: factories that return pure `(init, step)`."""

from difmd.integrators.base import (
    ForceFunction,
    Integrator,
    MDState,
    draw_momenta,
    kinetic_energy,
    remove_drift,
)
from difmd.integrators.langevin import langevin
from difmd.integrators.nve import velocity_verlet

__all__ = [
    "ForceFunction",
    "Integrator",
    "MDState",
    "draw_momenta",
    "kinetic_energy",
    "langevin",
    "remove_drift",
    "velocity_verlet",
]
