"""Integrators: factories that return pure `(init, step)`."""

from difmd.integrators.base import ForceFunction, Forces, Integrator, MDState
from difmd.integrators.berendsen import berendsen
from difmd.integrators.cell_rescaling import cell_rescaling
from difmd.integrators.csvr import csvr
from difmd.integrators.langevin import langevin
from difmd.integrators.martyna_tobias_klein import martyna_tobias_klein
from difmd.integrators.momenta import (
    degrees_of_freedom,
    draw_momenta,
    kinetic_energy,
    remove_drift,
    remove_rotation,
)
from difmd.integrators.nose_hoover import nose_hoover
from difmd.integrators.schedule import Schedule, ramp
from difmd.integrators.velocity_verlet import velocity_verlet

__all__ = [
    "ForceFunction",
    "Forces",
    "Integrator",
    "MDState",
    "Schedule",
    "berendsen",
    "cell_rescaling",
    "csvr",
    "degrees_of_freedom",
    "draw_momenta",
    "kinetic_energy",
    "langevin",
    "martyna_tobias_klein",
    "nose_hoover",
    "ramp",
    "remove_drift",
    "remove_rotation",
    "velocity_verlet",
]
