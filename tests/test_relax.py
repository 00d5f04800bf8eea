"""`relax`: minima that ASE finds, batches, fixed atoms and axes, lists that grow, and what is told."""

import dataclasses
import functools
import importlib

import ase
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from matplotlib.figure import Figure

import difmd
from difmd import plots, units
from difmd.errors import Flag, InputError, SimulationError, flags_of
from difmd.interop.ase import Calculator
from difmd.neighbors import neighbor_list
from difmd.observables import elastic_constants
from difmd.potentials import lennard_jones, morse, stillinger_weber, switched, tersoff
from difmd.relaxation import any_strain, axial_strain, minimize

# `difmd.relax` is the function.
MODULE = importlib.import_module("difmd.relax")
slow = pytest.mark.slow
OPTIMIZERS = {"fire": difmd.fire(), "lbfgs": difmd.lbfgs()}
NOBLE = lennard_jones(
    ["Ar", "Kr"], sigma=[3.4, 3.65], epsilon=[0.0104, 0.0143], cutoff=6.5, truncation=switched(5.0)
)
PARAMS = NOBLE.init(jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Case:
    """Atoms off their sites, how they interact, and the pressure that the cell is under, or None for no cell."""

    atoms: ase.Atoms
    potential: difmd.potentials.Potential
    pressure: float | None = 0.0


def disturbed(atoms, *, seed=1, shift=0.05, strain=0.01):
    """Displaced, in a cell that has become triclinic."""
    rng = np.random.default_rng(seed)
    if strain:
        deformation = np.eye(3) + strain * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    atoms.positions += rng.normal(0, shift, atoms.positions.shape)
    return atoms


def silicon():
    atoms = disturbed(bulk("Si", "diamond", a=5.43, cubic=True))
    return Case(atoms, stillinger_weber(["Si"], epsilon=2.16826, sigma=2.0951))


def argon():
    return Case(disturbed(bulk("Ar", "fcc", a=5.4, cubic=True)), NOBLE)


def alloy():
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True)
    atoms.symbols[0] = "Kr"
    return Case(disturbed(atoms), NOBLE, 0.1 * units.GPA)


def vacancy():
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 1)
    del atoms[5]
    return Case(disturbed(atoms), NOBLE)


def diamond():
    return Case(disturbed(bulk("C", "diamond", a=3.56, cubic=True)), tersoff(["C"]), 20 * units.GPA)


def titanium():
    atoms = bulk("Ti", "hcp", a=2.95, c=4.8) * (2, 2, 1)
    potential = morse(
        ["Ti"], depth=0.42, width=1.3, distance=3.0, cutoff=6.5, truncation=switched(5.0)
    )  # fmt: skip
    return Case(disturbed(atoms), potential)


def cluster():
    rng = np.random.default_rng(4)
    corners = 3.8 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    return Case(ase.Atoms("Ar5Kr2", positions=corners + rng.normal(0, 0.2, corners.shape)), NOBLE, None)


CASES = {f.__name__: f for f in (silicon, argon, alloy, vacancy, diamond, titanium, cluster)}
QUICK = {"silicon", "alloy", "cluster"}


@functools.cache
def minimum_of_ase(name):
    """Enthalpy [eV] where ASE ends, and its steps."""
    case = CASES[name]()
    atoms = case.atoms.copy()
    atoms.calc = Calculator(case.potential, case.potential.init(jax.random.key(0)))
    free = atoms if case.pressure is None else FrechetCellFilter(atoms, scalar_pressure=case.pressure)
    search = BFGS(free, logfile=None)
    assert search.run(fmax=1e-6, steps=1000)
    pressed = 0.0 if case.pressure is None else case.pressure * atoms.get_volume()
    return atoms.get_potential_energy() + pressed, search.nsteps


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", [x if x in QUICK else pytest.param(x, marks=slow) for x in CASES])
def test_minima_are_those_of_ase(name, optimizer):
    case = CASES[name]()
    free = {} if case.pressure is None else {"strains": any_strain(), "pressure": case.pressure}
    found = difmd.relax(
        case.potential, case.potential.init(jax.random.key(0)), difmd.from_ase(case.atoms),
        optimizer=OPTIMIZERS[optimizer], force_tolerance=1e-6, progress=False, **free,
    )  # fmt: skip
    assert found.is_converged and found.largest_force <= 1e-6
    expected, n_steps = minimum_of_ase(name)
    deviation = found.enthalpies[-1] - expected
    print(f"{name}, {optimizer}: {deviation:.1e} eV, {found.n_steps} steps, BFGS of ASE {n_steps}")
    # ASE's steps are those of a dense Hessian.
    assert found.n_steps <= (3 if optimizer == "lbfgs" else 20) * n_steps
    assert abs(deviation) < 1e-8
