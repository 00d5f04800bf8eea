"""`relax`: minima of ASE, batches, fixed atoms and axes, growing lists, errors and summaries."""

import dataclasses
import functools
import re

import ase
import ase.io
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

import difmd
from difmd import plots, units
from difmd.errors import Flag, InputError, SimulationError, flags_of
from difmd.interop.ase import Calculator
from difmd.neighbors import neighbor_list
from difmd.observables import elastic_constants
from difmd.potentials import lennard_jones, morse, stillinger_weber, switched, tersoff
from difmd.relaxation import any_strain, axial_strain, driver, minimize

slow = pytest.mark.slow
OPTIMIZERS = {"fire": difmd.fire(), "lbfgs": difmd.lbfgs()}
NOBLE = lennard_jones(
    ["Ar", "Kr"], sigma=[3.4, 3.65], epsilon=[0.0104, 0.0143], cutoff=6.5, truncation=switched(5.0)
)
PARAMS = NOBLE.init(jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Case:
    """Displaced atoms, their potential, and the pressure on the cell; None: there is no cell."""

    atoms: ase.Atoms
    potential: difmd.potentials.Potential
    pressure: float | None = 0.0


def disturbed(atoms, *, seed=1, shift=0.05, strain=0.01):
    """Displaced atoms in a triclinic cell."""
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


@functools.cache
def minimum_of_ase(name):
    """Enthalpy [eV] at the minimum of ASE, and its number of steps."""
    case = CASES[name]()
    atoms = case.atoms.copy()
    atoms.calc = Calculator(case.potential, case.potential.init(jax.random.key(0)), skin=1.0)
    free = atoms if case.pressure is None else FrechetCellFilter(atoms, scalar_pressure=case.pressure)
    search = BFGS(free, logfile=None)
    assert search.run(fmax=1e-6, steps=1000)
    pressed = 0.0 if case.pressure is None else case.pressure * atoms.get_volume()
    return atoms.get_potential_energy() + pressed, search.nsteps


@pytest.mark.parametrize("optimizer", ["lbfgs", pytest.param("fire", marks=slow)])
@pytest.mark.parametrize("name", [x if x == "cluster" else pytest.param(x, marks=slow) for x in CASES])
def test_minimum_agrees_with_ase(name, optimizer):
    case = CASES[name]()
    free = {} if case.pressure is None else {"strains": any_strain(), "pressure": case.pressure}
    result = difmd.relax(
        case.potential, case.potential.init(jax.random.key(0)), difmd.from_ase(case.atoms),
        optimizer=OPTIMIZERS[optimizer], force_tolerance=1e-6, progress=False, **free,
    )  # fmt: skip
    assert result.is_converged and result.largest_force <= 1e-6
    expected, n_steps = minimum_of_ase(name)
    deviation = result.enthalpies[-1] - expected
    print(f"{name}, {optimizer}: {deviation:.1e} eV, {result.n_steps} steps, BFGS of ASE {n_steps}")
    # L-BFGS estimates the stiffness of the crystal, where ASE starts from 70 eV/Å².
    assert result.n_steps <= (1 if optimizer == "lbfgs" else 8) * n_steps
    assert abs(deviation) < 1e-8


def relaxed(systems, *, potential=NOBLE, params=PARAMS, **options):
    return difmd.relax(
        potential, params, systems, **({"progress": False, "force_tolerance": 1e-5, "skin": 0.8} | options)
    )


def stress_of(system):
    neighbors = neighbor_list(system, cutoff=NOBLE.cutoff)
    return jax.jit(difmd.evaluate, static_argnums=0)(NOBLE, PARAMS, system, neighbors).stress


def crystal(*, seed=0, shift=0.1, edge=5.4):
    """Four atoms of argon and krypton in a cube."""
    atoms = bulk("Ar", "fcc", a=edge, cubic=True)
    atoms.symbols[0] = "Kr"
    return disturbed(atoms, seed=seed, shift=shift, strain=0)


def slab():
    """Eight atoms; the lower four are fixed, off their sites."""
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True) * (1, 1, 2)
    atoms = disturbed(atoms, seed=5)
    atoms.set_constraint(FixAtoms(indices=range(4)))
    return atoms


@pytest.fixture(scope="module")
def different():
    """Three structures of different sizes, species and cells; the last is relaxed already."""
    two = disturbed(bulk("Kr", "fcc", a=5.8, cubic=True), seed=2, shift=0.2)
    del two[1]
    converged = relaxed(difmd.from_ase(crystal()), force_tolerance=1e-7).system
    return [difmd.from_ase(crystal(seed=1)), difmd.from_ase(two), converged]


@pytest.mark.slow
def test_sequence_agrees_with_single_structures(different):
    together = relaxed(different, strains=None, save_every=3)
    assert [one.system.n_atoms for one in together] == [4, 3, 4]
    assert len({int(one.n_steps) for one in together}) == 3
    for system, one in zip(different, together, strict=True):
        alone = relaxed(system, save_every=3)
        assert alone.n_steps == one.n_steps
        np.testing.assert_array_equal(alone.steps, one.steps)
        np.testing.assert_allclose(one.positions, alone.positions, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.energies, alone.energies, rtol=1e-12)
        np.testing.assert_array_equal(one.system.atomic_numbers, system.atomic_numbers)
        assert one.is_converged
    # A relaxed structure does not move while the others do.
    assert together[2].n_steps == 0
    np.testing.assert_array_equal(together[2].system.positions, different[2].positions)


@pytest.mark.slow
def test_batch_dimension_is_returned(different):
    first, _, converged = different
    both = jax.tree.map(lambda *x: jnp.stack(x), first, converged)
    result = relaxed(both, save_every=4)
    n_steps = int(result.n_steps[0])
    assert result.system.positions.shape == (2, 4, 3)
    assert result.positions.shape == (len(result.steps), 2, 4, 3)
    assert result.n_steps[1] == 0 and result.is_converged.all()
    np.testing.assert_array_equal(result.steps, [*range(0, n_steps, 4), n_steps])
    np.testing.assert_array_equal(result.positions[:, 1], np.stack([converged.positions] * len(result.steps)))
    np.testing.assert_array_equal(result.positions[-1], result.system.positions)
    first = result.at(0)
    assert first.energy == result.energy[0] == first.energies[-1]
    with pytest.raises(InputError, match="batch"):
        result.to_ase()


@pytest.mark.parametrize("optimizer", ["lbfgs", pytest.param("fire", marks=slow)])
def test_second_call_does_not_trace(optimizer):
    traced = []

    def apply(params, system, neighbors):
        traced.append(optimizer)
        return NOBLE.apply(params, system, neighbors)

    counting = dataclasses.replace(NOBLE, apply=apply)
    options = {"potential": counting, "max_steps": 500, "save_every": 7}
    relaxed(difmd.from_ase(crystal(seed=3)), optimizer=OPTIMIZERS[optimizer], **options)
    n_traced = len(traced)
    factory = {"fire": difmd.fire, "lbfgs": difmd.lbfgs}[optimizer]
    again = relaxed(difmd.from_ase(crystal(seed=4)), optimizer=factory(), force_tolerance=1e-4, **options)
    assert again.n_steps > 0
    assert len(traced) == n_traced > 0


def test_fixed_atoms_stay_and_their_forces_do_not_count():
    atoms = slab()
    system = difmd.from_ase(atoms)
    result = relaxed(system, force_tolerance=1e-6)
    fixed = np.asarray(system.fixed)
    np.testing.assert_array_equal(
        result.positions[:, fixed], np.stack([system.positions[fixed]] * len(result.steps))
    )
    assert np.abs(result.system.positions - system.positions)[~fixed].max(axis=1).min() > 0.01
    atoms.calc = Calculator(NOBLE, PARAMS, skin=1.0)
    assert BFGS(atoms, logfile=None).run(fmax=1e-6, steps=1000)
    np.testing.assert_allclose(result.energy, atoms.get_potential_energy(), rtol=0, atol=1e-8)
    # Forces on fixed atoms remain.
    assert np.linalg.norm(atoms.get_forces(apply_constraint=False)[fixed], axis=1).max() > 1e-3
    assert result.to_ase()[-1].constraints[0].get_indices().tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_fixed_atoms_follow_a_free_cell():
    system = difmd.from_ase(slab())
    result = relaxed(system, strains=any_strain(), pressure=0.05 * units.GPA, force_tolerance=1e-6)
    inverse = np.linalg.inv(system.cell), np.linalg.inv(result.system.cell)
    before, after = (x @ y for x, y in zip((system.positions, result.system.positions), inverse, strict=True))
    fixed = np.asarray(system.fixed)
    np.testing.assert_allclose(after[fixed], before[fixed], rtol=0, atol=1e-12)
    assert np.abs(after - before)[~fixed].max() > 1e-3
    # The stress at constant fractional coordinates balances the pressure.
    stress = stress_of(result.system)
    np.testing.assert_allclose(stress, -0.05 * units.GPA * np.eye(3), rtol=0, atol=1e-7)


@slow
def test_strains_hold_the_other_axes():
    atoms = crystal()
    atoms.set_cell(atoms.cell.array * [1.0, 1.03, 1.02], scale_atoms=True)
    system = difmd.from_ase(atoms)
    result = relaxed(system, strains=any_strain()[:2], force_tolerance=1e-6)
    cell = np.asarray(result.system.cell)
    np.testing.assert_array_equal(cell[2], system.cell[2])
    np.testing.assert_array_equal(cell - np.diag(np.diag(cell)), 0)
    stress = np.diag(stress_of(result.system))
    np.testing.assert_allclose(stress[:2], 0, atol=1e-7)
    assert abs(stress[2]) > 1e-5


@slow
def test_derivatives_with_fixed_atoms():
    """Derivatives of relaxed positions with respect to parameters and positions of fixed atoms."""
    system = difmd.from_ase(slab())
    neighbors = neighbor_list(system, cutoff=NOBLE.cutoff, skin=1.0, slack=1.3)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)))
    sideways = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)))
    sideways = jnp.where(system.fixed[:, None], sideways, 0)

    @jax.jit
    def value(x, y):
        params = {**PARAMS, "sigma": PARAMS["sigma"] * (1 + x)}
        start = system.replace(positions=system.positions + y * sideways)
        result = minimize(
            NOBLE, params, start, neighbors, force_tolerance=1e-6, optimizer=difmd.lbfgs()
        )  # fmt: skip
        return jnp.sum(weights * result.system.positions) + result.energy, result

    total, result = value(0.0, 0.0)
    assert not flags_of(result.status)
    np.testing.assert_array_equal(result.system.positions[:4], system.positions[:4])
    expected = relaxed(system, force_tolerance=1e-7).system.positions
    np.testing.assert_allclose(result.system.positions, expected, rtol=0, atol=1e-5)
    (gradient, _) = jax.jit(jax.grad(value, (0, 1), has_aux=True))(0.0, 0.0)
    h = 1e-4
    for k, (x, y) in enumerate([(h, 0.0), (0.0, h)]):
        difference = (value(x, y)[0] - value(-x, -y)[0]) / (2 * h)
        np.testing.assert_allclose(gradient[k], difference, rtol=1e-5, err_msg=str(k))


@slow
def test_elastic_constants_with_fixed_atoms_are_second_differences():
    start = relaxed(difmd.from_ase(slab()), strains=any_strain(), force_tolerance=1e-8).system
    neighbors = neighbor_list(start, cutoff=NOBLE.cutoff, skin=0.5, slack=1.3)
    constants = elastic_constants(NOBLE, PARAMS, start, neighbors)
    h = 1e-3
    rng = np.random.default_rng(4)
    strain = rng.normal(size=6)
    energies = []
    for step in (h, 0.0, -h):
        tensor = np.eye(3) + np.tensordot(step * strain, any_strain(), 1)
        moved = start.replace(
            positions=jnp.asarray(start.positions @ tensor), cell=jnp.asarray(start.cell @ tensor)
        )
        energies.append(relaxed(moved, force_tolerance=1e-8).energy)
    curvature = (energies[0] - 2 * energies[1] + energies[2]) / h**2 / start.volume
    np.testing.assert_allclose(strain @ constants @ strain, curvature, rtol=1e-3)


# Each larger list compiles again.
@pytest.mark.slow
def test_overflowing_lists_grow(monkeypatch):
    """An expanded crystal shrinks until it has many more neighbours and images."""
    system = difmd.from_ase(crystal(shift=0.0, edge=6.1))
    near = relaxed(difmd.from_ase(crystal()), strains=axial_strain())
    flags, replay_on_overflow = Flag(0), driver.replay_on_overflow

    def tight(*args, **options):
        return neighbor_list(*args, slack=1.0, **options)

    def watched(run, start, neighbors):
        def noted(neighbors):
            nonlocal flags
            result = run(neighbors)
            flags |= flags_of(result.status)
            return result

        return replay_on_overflow(noted, start, neighbors)

    monkeypatch.setattr(driver, "neighbor_list", tight)
    monkeypatch.setattr(driver, "replay_on_overflow", watched)
    result = relaxed(system, strains=axial_strain(), save_every=100)
    assert flags == Flag.NEIGHBOR_OVERFLOW | Flag.CELL_TOO_SMALL
    assert result.is_converged
    np.testing.assert_allclose(result.energy, near.energy, rtol=0, atol=1e-8)


def test_unconverged_structures_are_reported(different):
    with pytest.raises(
        SimulationError, match=r"2 of 3 structures have not converged \(systems\[0\], systems\[1\]"
    ) as caught:
        relaxed(different, max_steps=2)
    assert "NOT_CONVERGED" in str(caught.value)
    result = caught.value.partial_result
    assert [bool(each.is_converged) for each in result] == [False, False, True]
    assert flags_of(result[0].status) == Flag.NOT_CONVERGED
    assert result[0].n_steps == 2 and np.isfinite(result[0].energy)


def test_exploding_structure_does_not_affect_others(different):
    def apply(params, system, neighbors):
        energy = NOBLE.apply(params, system, neighbors)
        return energy / jnp.where(system.cell[0, 0] > 6, 0.0, 1.0)

    singular = dataclasses.replace(NOBLE, apply=apply)
    wide = difmd.from_ase(crystal(edge=6.6))
    with pytest.raises(SimulationError, match=r"1 of 2 .*systems\[0\].* NON_FINITE") as caught:
        relaxed([wide, different[0]], potential=singular)
    assert [bool(one.is_converged) for one in caught.value.partial_result] == [False, True]


def test_interrupt_returns_the_completed_part(monkeypatch):
    advance, calls = driver._advance, []

    def interrupted(*args):
        calls.append(len(calls))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return advance(*args)

    monkeypatch.setattr(driver, "_advance", interrupted)
    cube = difmd.from_ase(crystal())
    free = cube.replace(pbc=jnp.zeros(3, bool))
    with pytest.raises(difmd.SimulationInterrupted, match="0 of 2 structures") as caught:
        relaxed([cube, free], save_every=5)
    begun, waiting = caught.value.partial_result
    assert begun.n_steps == 5 and np.isfinite(begun.energy)
    assert waiting.n_steps == 0 and np.isnan(waiting.energy) and not waiting.is_converged
    np.testing.assert_array_equal(waiting.system.positions, free.positions)


@pytest.mark.slow
def test_structures_relax_in_their_precision():
    systems = [difmd.from_ase(crystal(seed=n), dtype=kind) for n, kind in enumerate(("float64", "float32"))]
    # Parameters are in float64.
    with jax.numpy_dtype_promotion("standard"):
        result = relaxed(systems, force_tolerance=1e-3)
    for one, system in zip(result, systems, strict=True):
        for name in ("positions", "masses", "cell"):
            assert getattr(one.system, name).dtype == system.positions.dtype, name
        assert one.positions.dtype == one.cells.dtype == system.positions.dtype
        assert one.is_converged
    np.testing.assert_array_equal(result[0].positions, relaxed(systems[0], force_tolerance=1e-3).positions)


@slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_float32_relaxes_to_its_precision(optimizer):
    system = difmd.from_ase(crystal(), dtype=jnp.float32)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), PARAMS)
    double = relaxed(difmd.from_ase(crystal()), strains=axial_strain())
    result = relaxed(
        system, params=params, strains=axial_strain(), optimizer=OPTIMIZERS[optimizer], force_tolerance=1e-4
    )
    assert result.system.positions.dtype == result.positions.dtype == np.float32
    np.testing.assert_allclose(result.energy, double.energy, rtol=0, atol=1e-5)


def test_frames_convert_to_ase_and_plot(different, tmp_path):
    result = relaxed(different, save_every=2)
    frames = result[0].to_ase()
    ase.io.write(tmp_path / "relaxation.extxyz", frames)
    back = ase.io.read(tmp_path / "relaxation.extxyz", index=":")
    assert len(back) == len(result[0].steps) and back[-1].info["step"] == result[0].n_steps
    np.testing.assert_allclose(back[-1].get_potential_energy(), result[0].energy, rtol=1e-7)
    left, right = plots.plot_relaxation(result).axes
    above = result[0].energies - result[0].energies[-1]
    np.testing.assert_allclose(left.lines[0].get_ydata(), above[above > 1e-15])
    np.testing.assert_allclose(right.lines[0].get_ydata(), result[0].largest_forces)
    assert {axis.get_yscale() for axis in (left, right)} == {"log"}


@pytest.fixture
def unchecked():
    """Disable the type checker of conftest.py, so that a wrong argument reaches the check in difmd."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"systems": []}, "systems is empty"),
        ({"systems": "argon"}, "system is of type str: convert it with difmd.from_ase"),
        ({"systems": ["argon"]}, r"systems\[0\]: system is of type str"),
        ({"optimizer": "fire"}, "optimizer = 'fire'"),
        ({"force_tolerance": -1.0}, "force_tolerance = -1.0"),
        ({"force_tolerance": np.array([1e-3])}, "force_tolerance = .* must be one number"),
        ({"pressure": "1 bar", "strains": any_strain()}, "pressure is not an array of numbers"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"max_steps": 1.5}, "max_steps = 1.5"),
        ({"save_every": 0}, "save_every = 0"),
        ({"skin": 0.0}, "skin = 0.0"),
        ({"pressure": 0.1}, "pressure = 0.1 .* fixed cell"),
        ({"pressure": np.nan, "strains": any_strain()}, "pressure = nan"),
        ({"pressure": [0.0, 0.1], "strains": any_strain()}, "pressure has shape"),
        ({"strains": np.eye(3)}, "strains must have shape"),
        ({"strains": np.arange(9.0).reshape(1, 3, 3)}, "strains must be symmetric"),
        ({"strains": np.full((1, 3, 3), np.inf)}, "strains are not finite"),
        ({"strains": np.zeros((1, 3, 3))}, "strains are linearly dependent"),
        ({"params": {**PARAMS, "epsilon": PARAMS["epsilon"] * np.nan}}, "params.*epsilon"),
    ],
)
def test_bad_arguments_raise(options, message, unchecked):
    options = {"systems": difmd.from_ase(crystal())} | options
    with pytest.raises(InputError, match=message):
        relaxed(**options)


def test_bad_structures_raise(different):
    good = different[0]
    for bad, message in (
        (good.replace(positions=good.positions.at[2, 1].set(np.nan)), r"systems\[1\]: positions\[2, 1\]"),
        (good.replace(atomic_numbers=good.atomic_numbers.at[0].set(6)), r"systems\[1\]: .* C"),
        (good.replace(atomic_numbers=good.atomic_numbers * 0), r"systems\[1\]: all of its atoms are padding"),
        (jax.tree.map(lambda x: x[None], good), r"systems\[1\] is a batch"),
    ):
        with pytest.raises(InputError, match=message):
            relaxed([good, bad])
    with pytest.raises(InputError, match=r"systems\[1\]: only a cell with three periodic"):
        relaxed([good, good.replace(pbc=jnp.asarray([True, True, False]))], strains=any_strain())


def test_ase_atoms_are_structures(different):
    result = relaxed([crystal(seed=1), *different[1:]])
    np.testing.assert_array_equal(result[0].positions, relaxed(different)[0].positions)


def test_summaries(different):
    """Short for one structure, a batch and a list, and without arrays."""
    result = relaxed(different)
    assert re.fullmatch(
        r"Relaxation\(4 atoms, converged after \d+ steps, energy -\S+ eV, forces up to \S+ eV/Å\)",
        repr(result[0]),
    )
    assert len(repr(result).splitlines()) == 1
    both = jax.tree.map(lambda *x: jnp.stack(x), different[0], different[2])
    assert repr(relaxed(both)).startswith("Relaxation of 2 structures of up to 4 atoms\n  converged: 2 of 2")
    assert repr(difmd.fire()) == "fire(dt=0.1, dt_max=1, max_step=0.2)"
    assert repr(difmd.lbfgs(memory=5)) == "lbfgs(memory=5, stiffness=70, max_step=0.2)"


def test_minimize_validates_its_inputs():
    system = difmd.from_ase(crystal())
    neighbors = neighbor_list(system, cutoff=NOBLE.cutoff, skin=0.5)
    carbon = system.replace(atomic_numbers=jnp.full(4, 6))
    for changes, message in (
        ({"system": carbon}, "the potential has no parameters for C"),
        ({"params": {"epsilon": PARAMS["epsilon"]}}, "sigma"),
        ({"neighbors": neighbor_list(difmd.from_ase(slab()), cutoff=NOBLE.cutoff)}, "list is for 8 atoms"),
        ({"neighbors": neighbor_list(system, cutoff=3.0)}, r"list reaches 3.0 Å, the potential 6.5 Å"),
    ):
        given = {"potential": NOBLE, "params": PARAMS, "system": system, "neighbors": neighbors} | changes
        with pytest.raises(InputError, match=message):
            minimize(**given)


def test_bad_settings_of_optimizers_raise(unchecked):
    for make, message in (
        (lambda: difmd.fire(dt=0.0), "dt = 0.0"),
        (lambda: difmd.fire(dt=2.0), "exceeds dt_max"),
        (lambda: difmd.fire(max_step=-1.0), "max_step = -1.0"),
        (lambda: difmd.lbfgs(memory=0), "memory = 0"),
        (lambda: difmd.lbfgs(memory=2.5), "memory = 2.5"),
        (lambda: difmd.lbfgs(stiffness=0.0), "stiffness = 0.0"),
        (lambda: difmd.lbfgs(max_step=np.inf), "max_step = inf"),
    ):
        with pytest.raises(InputError, match=message):
            make()
