"""difmd: end-to-end differentiable molecular dynamics in JAX.

The pipeline, one module an arrow: `System` → `potentials` → `forces` → `integrators` →
`rollout`/`simulate` → `observables` → `gradients` → `fitting`.
"""

from typing import TYPE_CHECKING

from difmd import gradients, integrators, neighbors, observables, potentials, units
from difmd.cache import enable_cache
from difmd.errors import DifmdError, InputError, SimulationError, Status
from difmd.forces import evaluate, forces
from difmd.guards import Limits
from difmd.integrators import (
    cell_rescaling,
    csvr,
    draw_momenta,
    langevin,
    martyna_tobias_klein,
    nose_hoover,
    ramp,
    velocity_verlet,
)
from difmd.lazy import importer
from difmd.model import Model, load, save
from difmd.neighbors import neighbor_list
from difmd.potentials import (
    buckingham,
    coulomb_damped_shifted,
    embedded_atom,
    ewald,
    lennard_jones,
    morse,
    pair_prior,
    read_eam,
    shifted,
    stillinger_weber,
    switched,
    tabulated,
    tersoff,
    truncated,
    zbl,
)
from difmd.relax import relax
from difmd.relaxation import Relaxation, fire, lbfgs
from difmd.rollout import initialize, rollout
from difmd.simulate import SimulationInterrupted, simulate
from difmd.stored import read_trajectory
from difmd.system import System, from_ase, make_system, to_ase
from difmd.trajectory import Trajectory

if TYPE_CHECKING:
    from difmd import data, datasets, training
    from difmd.potentials import invariant, mace, nequip
    from difmd.validation import validate
else:
    __getattr__ = importer(
        __name__,
        {name: f"difmd.{name}" for name in ("data", "datasets", "training")}
        | dict.fromkeys(("invariant", "mace", "nequip"), "difmd.potentials.networks")
        | {"validate": "difmd.validation"},
    )

__version__ = "0.1.0"

# Before anything is compiled, by the user's own code too.
enable_cache()

__all__ = [
    "DifmdError",
    "InputError",
    "Limits",
    "Model",
    "Relaxation",
    "SimulationError",
    "SimulationInterrupted",
    "Status",
    "System",
    "Trajectory",
    "buckingham",
    "cell_rescaling",
    "coulomb_damped_shifted",
    "csvr",
    "data",
    "datasets",
    "draw_momenta",
    "embedded_atom",
    "evaluate",
    "ewald",
    "fire",
    "forces",
    "from_ase",
    "gradients",
    "initialize",
    "integrators",
    "invariant",
    "langevin",
    "lbfgs",
    "lennard_jones",
    "load",
    "mace",
    "make_system",
    "martyna_tobias_klein",
    "morse",
    "neighbor_list",
    "neighbors",
    "nequip",
    "nose_hoover",
    "observables",
    "pair_prior",
    "potentials",
    "ramp",
    "read_eam",
    "read_trajectory",
    "relax",
    "rollout",
    "save",
    "shifted",
    "simulate",
    "stillinger_weber",
    "switched",
    "tabulated",
    "tersoff",
    "to_ase",
    "training",
    "truncated",
    "units",
    "validate",
    "velocity_verlet",
    "zbl",
]


def __dir__() -> list[str]:
    return ["__version__", *__all__]
