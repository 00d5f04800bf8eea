"""difmd: end-to-end differentiable molecular dynamics in JAX.

The pipeline, one package a step: `System` → `neighbors` → `potentials` → `forces` → `integrators` →
`simulation` → `trajectory` → `observables` → `sensitivity`, `training`, `fitting` → `validation`.
"""

from typing import TYPE_CHECKING

from difmd import (
    errors,
    forces,
    gradients,
    integrators,
    neighbors,
    observables,
    potentials,
    relaxation,
    simulation,
    system,
    trajectory,
    units,
)
from difmd._internal.compilation_cache import enable_cache
from difmd._internal.lazy import importer
from difmd._internal.version import __version__ as __version__
from difmd.errors import DifmdError, InputError, SimulationError, SimulationInterrupted, Status
from difmd.forces import evaluate
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
from difmd.potentials.model_file import Model, load, save
from difmd.relaxation import Relaxation, fire, lbfgs, relax
from difmd.simulation import Limits, initialize, rollout, simulate
from difmd.system import System, from_ase, make_system, to_ase
from difmd.trajectory import Trajectory, read_trajectory

if TYPE_CHECKING:
    from difmd import data, datasets, fitting, interop, plots, sensitivity, training, validation
    from difmd.potentials import invariant, mace, nequip
    from difmd.validation import validate
else:
    _LAZY = ("data", "datasets", "fitting", "interop", "plots", "sensitivity", "training", "validation")
    __getattr__ = importer(
        __name__,
        {name: f"difmd.{name}" for name in _LAZY}
        | dict.fromkeys(("invariant", "mace", "nequip"), "difmd.potentials.networks")
        | {"validate": "difmd.validation"},
    )

__all__ = [
    "DifmdError", "InputError", "Limits", "Model", "Relaxation", "SimulationError",
    "SimulationInterrupted", "Status", "System", "Trajectory", "buckingham", "cell_rescaling",
    "coulomb_damped_shifted", "csvr", "data", "datasets", "draw_momenta", "embedded_atom", "enable_cache",
    "errors", "evaluate", "ewald", "fire", "fitting", "forces", "from_ase", "gradients", "initialize",
    "integrators", "interop", "invariant", "langevin", "lbfgs", "lennard_jones", "load", "mace",
    "make_system", "martyna_tobias_klein", "morse", "neighbor_list", "neighbors", "nequip", "nose_hoover",
    "observables", "pair_prior", "plots", "potentials", "ramp", "read_eam", "read_trajectory", "relax",
    "relaxation", "rollout", "save", "sensitivity", "shifted", "simulate", "simulation",
    "stillinger_weber", "switched", "system", "tabulated", "tersoff", "to_ase", "training", "trajectory",
    "truncated", "units", "validate", "validation", "velocity_verlet", "zbl",
]  # fmt: skip


def __dir__() -> list[str]:
    return ["__version__", *__all__]
