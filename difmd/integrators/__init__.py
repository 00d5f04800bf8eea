"""Integrators: factories that return pure `(init, step)`."""

from difmd.integrators.base import (
    ForceFunction,
    Integrator,
    MDState,
    degrees_of_freedom,
    draw_momenta,
    kinetic_energy,
    remove_drift,
)
from difmd.integrators.berendsen import berendsen
from difmd.integrators.csvr import csvr
from difmd.integrators.langevin import langevin
from difmd.integrators.nose_hoover import nose_hoover
from difmd.integrators.nve import velocity_verlet

__all__ = [
    "ForceFunction",
    "Integrator",
    "MDState",
    "berendsen",
    "csvr",
    "degrees_of_freedom",
    "draw_momenta",
    "kinetic_energy",
    "langevin",
    "nose_hoover",
    "remove_drift",
    "velocity_verlet",
]
