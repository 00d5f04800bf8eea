"""Relaxed structures, elastic constants, and derivatives of both against central differences and ASE."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from difmd import units
from difmd.errors import Flag, InputError, flags_of
from difmd.interop.ase import Calculator
from difmd.neighbors import neighbor_list
from difmd.observables import elastic_constants
from difmd.potentials import lennard_jones, stillinger_weber, switched
from difmd.relaxation import any_strain, axial_strain, isotropic_strain, minimize
from difmd.relaxation.implicit import solve_symmetric, stationary_point
from difmd.system import from_ase, make_system


def silicon():
    """Eight displaced atoms in a triclinic cell."""
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.rattle(0.05, seed=1)
    rng = np.random.default_rng(0)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.01 * rng.normal(size=(3, 3))), scale_atoms=True)
    return stillinger_weber(["Si"], epsilon=2.16826, sigma=2.0951), atoms


def argon():
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    potential = lennard_jones(["Ar"], sigma=3.4, epsilon=0.0104, cutoff=6.5, truncation=switched(5.0))
    return potential, atoms


def alloy():
    """Two species."""
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True)
    atoms.symbols[0] = "Kr"
    atoms.rattle(0.05, seed=2)
    potential = lennard_jones(
        ["Ar", "Kr"], sigma=[3.4, 3.65], epsilon=[0.0104, 0.0143], cutoff=6.5, truncation=switched(5.0)
    )
    return potential, atoms


CRYSTALS = {"silicon": silicon, "argon": argon, "alloy": alloy}

slow = pytest.mark.slow


def list_of(potential, system):
    return neighbor_list(system, cutoff=potential.cutoff, skin=0.5, slack=1.3)


@functools.cache
def problem(kind):
    potential, atoms = CRYSTALS[kind]()
    system = from_ase(atoms)
    neighbors = list_of(potential, system)

    @jax.jit
    def relaxed(params, pressure):
        found = minimize(
            potential, params, system, neighbors,
            strains=any_strain(), pressure=pressure, force_tolerance=1e-6,
        )  # fmt: skip
        return found, elastic_constants(potential, params, found.system, found.neighbors)

    return potential, atoms, potential.init(jax.random.key(0)), relaxed


@slow
@pytest.mark.parametrize("kind", CRYSTALS)
@pytest.mark.parametrize("pressure", [0.0, 2 * units.GPA])
def test_energy_and_volume_agree_with_ase(kind, pressure):
    potential, atoms, params, relaxed = problem(kind)
    pressure = pressure if kind == "silicon" else pressure / 20
    found, _ = relaxed(params, pressure)
    assert flags_of(found.status) == 0
    assert found.largest_force < 1e-6
    atoms = atoms.copy()
    atoms.calc = Calculator(potential, params)
    assert BFGS(FrechetCellFilter(atoms, scalar_pressure=pressure), logfile=None).run(fmax=1e-5, steps=500)
    # At the minimum only the enthalpy is stationary, and not energy and volume.
    enthalpy = atoms.get_potential_energy() + pressure * atoms.get_volume()
    np.testing.assert_allclose(found.energy + pressure * found.system.volume, enthalpy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.system.volume, atoms.get_volume(), rtol=1e-5)


@slow
@pytest.mark.parametrize("kind", CRYSTALS)
def test_gradients_are_those_of_the_minimum(kind):
    _, _, params, relaxed = problem(kind)
    rng = np.random.default_rng(3)
    weights = jnp.asarray(rng.normal(size=(6, 6)))
    leaves, tree = jax.tree.flatten((params, jnp.asarray(0.0)))
    # Tables of pairs are symmetric, and so are their changes.
    signs = [s + s.T if s.ndim == 2 else s for s in (rng.normal(size=x.shape) for x in leaves)]
    directions = [s * jnp.where(x == 0, 1e-3, x) for s, x in zip(signs, leaves, strict=True)]

    @jax.jit
    def quantities(x):
        moved = [leaf + x * direction for leaf, direction in zip(leaves, directions, strict=True)]
        found, constants = relaxed(*jax.tree.unflatten(tree, moved))
        return jnp.stack([found.energy, jnp.log(found.system.volume), jnp.sum(weights * constants)])

    h = 1e-5
    differences = (quantities(h) - quantities(-h)) / (2 * h)
    forward = jax.jit(jax.jacfwd(quantities))(0.0)
    np.testing.assert_allclose(forward, differences, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(jax.jit(jax.jacrev(quantities))(0.0), forward, rtol=1e-9, atol=1e-11)


@slow
def test_elastic_constants_of_silicon_agree_with_the_literature():
    # At the lattice constant 5.431 Å, from Gangan et al., J. Chem. Theory Comput. 2025, where the third one
    # is 2 C44. Without relaxation of the atoms C44 would be twice as large.
    potential, atoms = silicon()
    system = from_ase(bulk("Si", "diamond", a=5.431, cubic=True))
    params = potential.init(jax.random.key(0))
    found = elastic_constants(potential, params, system, list_of(potential, system)) / units.GPA
    cubic = found[0, 0], found[0, 1], 2 * found[3, 3]
    np.testing.assert_allclose(cubic, (151.413, 76.415, 112.893), atol=0.002)
    np.testing.assert_allclose(found[:3, 3:], 0, atol=1e-8)


@slow
@pytest.mark.parametrize("kind", CRYSTALS)
def test_elastic_constants_are_second_differences_of_relaxed_energies(kind):
    potential, _, params, relaxed = problem(kind)
    found, constants = relaxed(params, 0.0)
    h = 1e-3
    rng = np.random.default_rng(4)
    strain = rng.normal(size=6)
    deformed = [found.system]
    for step in (h, -h):
        tensor = np.tensordot(step * strain, any_strain(), 1)
        positions, cell = (
            np.asarray(x) @ (np.eye(3) + tensor) for x in (found.system.positions, found.system.cell)
        )
        deformed.append(found.system.replace(positions=jnp.asarray(positions), cell=jnp.asarray(cell)))
    neighbors = list_of(potential, deformed[0])
    held = jax.jit(lambda system: minimize(potential, params, system, neighbors, force_tolerance=1e-6))
    middle, up, down = (held(system).energy for system in deformed)
    curvature = (up - 2 * middle + down) / h**2 / found.system.volume
    np.testing.assert_allclose(strain @ constants @ strain, curvature, rtol=1e-3)


@slow
def test_molecule_relaxes_without_a_cell():
    atoms = molecule("CH4")
    atoms.rattle(0.1, seed=0)
    system = make_system(atoms.positions, [18] * 5)
    potential = lennard_jones(["Ar"], sigma=1.0, epsilon=0.5, cutoff=4.0, truncation=switched(3.0))
    found = minimize(potential, potential.init(jax.random.key(0)), system, list_of(potential, system))
    assert flags_of(found.status) == 0
    assert found.largest_force < 1e-4
    # The energy of the cluster of five is −9.103852 ε without a cut-off.
    assert -9.2 < found.energy / 0.5 < -9.0


@slow
def test_axes_relax_independently():
    potential, atoms = argon()
    atoms.set_cell(atoms.cell.array * [1.0, 1.0, 1.02], scale_atoms=True)
    system = from_ase(atoms)
    params = potential.init(jax.random.key(0))
    run = functools.partial(minimize, potential, params, system, list_of(potential, system))
    alike = run(strains=isotropic_strain()).system.cell
    np.testing.assert_allclose(alike[2, 2] / alike[0, 0], 1.02, rtol=1e-9)
    free = np.diag(run(strains=axial_strain()).system.cell)
    np.testing.assert_allclose(free, free[0], rtol=1e-5)
    np.testing.assert_array_equal(run().system.cell, system.cell)


def test_failures_are_flagged():
    potential, atoms = argon()
    system = from_ase(atoms)
    neighbors = list_of(potential, system)
    params = potential.init(jax.random.key(0))
    run = jax.jit(
        lambda system: minimize(potential, params, system, neighbors, max_steps=2, force_tolerance=1e-8)
    )
    few = run(system)
    assert flags_of(few.status) == Flag.NOT_CONVERGED
    assert few.n_steps == 2
    broken = system.replace(positions=system.positions.at[0, 0].set(jnp.nan))
    assert flags_of(run(broken).status) & Flag.NON_FINITE


def test_bad_input_raises():
    potential, atoms = silicon()
    system = from_ase(atoms)
    params = potential.init(jax.random.key(0))
    run = functools.partial(minimize, potential, params, system, list_of(potential, system))
    with pytest.raises(InputError, match="force_tolerance"):
        run(force_tolerance=0.0)
    with pytest.raises(InputError, match="max_steps"):
        run(max_steps=0)
    with pytest.raises(InputError, match="pressure = 0.1"):
        run(pressure=0.1)
    with pytest.raises(InputError, match="shape"):
        run(strains=np.eye(3))
    with pytest.raises(InputError, match="symmetric"):
        run(strains=np.arange(9.0).reshape(1, 3, 3))
    free = system.replace(pbc=jnp.zeros(3, bool))
    with pytest.raises(InputError, match="periodic"):
        minimize(potential, params, free, list_of(potential, free), strains=any_strain())


def test_linear_systems_without_solution_give_nan():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix, target = jnp.asarray(root @ root.T), jnp.asarray(rng.normal(size=6))
    np.testing.assert_allclose(
        solve_symmetric(lambda x: matrix @ x, target), jnp.linalg.solve(matrix, target), rtol=1e-8
    )
    # A singular matrix with a target outside its range.
    flat = jnp.diag(jnp.asarray([1.0, 1.0, 0.0]))
    assert jnp.isnan(solve_symmetric(lambda x: flat @ x, jnp.ones(3))).any()
    assert (solve_symmetric(lambda x: flat @ x, jnp.zeros(3)) == 0).all()


def test_second_derivatives_of_a_stationary_point():
    def point(a):
        return stationary_point(lambda x: x**3 - a, jnp.asarray(2.0))

    a = 8.1
    for derivative, expected in (
        (point, 2.008298850628),
        (jax.grad(point), a ** (-2 / 3) / 3),
        (jax.grad(jax.grad(point)), -2 * a ** (-5 / 3) / 9),
        (jax.jacfwd(jax.grad(point)), -2 * a ** (-5 / 3) / 9),
    ):
        np.testing.assert_allclose(derivative(a), expected, rtol=1e-3)
