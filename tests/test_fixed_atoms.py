"""Fixed atoms, and molecules without drift and rotation."""

import ase
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength
from ase.md.velocitydistribution import Stationary, ZeroRotation

import difmd
from difmd import gradients, units
from difmd.errors import InputError, flags_of
from difmd.integrators import degrees_of_freedom, draw_momenta, kinetic_energy, remove_drift, remove_rotation
from difmd.neighbors import neighbor_list
from difmd.trajectory import kinetic_temperature

DT = 4 * units.FS
LJ = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=7.0, truncation=difmd.switched(6.0))
PARAMS = LJ.init(jax.random.key(0))
INTEGRATORS = {
    "velocity_verlet": difmd.velocity_verlet(dt=DT),
    "langevin": difmd.langevin(dt=DT, temperature=60.0, friction=1 / units.PS),
    "csvr": difmd.csvr(dt=DT, temperature=60.0, time_constant=0.1 * units.PS),
    "nose_hoover": difmd.nose_hoover(dt=DT, temperature=60.0, time_constant=0.1 * units.PS),
}


def slab():
    """Three layers of atoms with a fixed lowest layer, and vacuum above."""
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
    atoms.set_constraint(FixAtoms(mask=atoms.positions[:, 2] < 1.0))
    atoms.center(vacuum=10.0, axis=2)
    return difmd.from_ase(atoms)


@pytest.mark.quick("velocity_verlet")
@pytest.mark.parametrize("name", INTEGRATORS)
def test_fixed_atoms_stay_and_the_others_move(name):
    system = slab()
    fixed = np.asarray(system.fixed)
    assert fixed.sum() == 8
    run = difmd.simulate(
        LJ, PARAMS, system, INTEGRATORS[name], n_steps=40, save_every=20, initial_temperature=60.0,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(run.positions[:, fixed], np.asarray(system.positions)[None, fixed][[0, 0]])
    np.testing.assert_array_equal(run.momenta[:, fixed], 0)
    assert np.abs(run.positions[-1] - system.positions)[~fixed].min(axis=0).max() > 1e-4
    if name != "langevin":
        # Fixed atoms do no work.
        np.testing.assert_allclose(run.conserved, run.conserved[0], rtol=0, atol=1e-4)


def test_mobile_atoms_have_three_degrees_of_freedom_each():
    system = slab()
    momenta = jax.vmap(lambda key: draw_momenta(key, system, 60.0))(jax.random.split(jax.random.key(3), 4000))
    assert int(degrees_of_freedom(system)) == 72
    kinetic = jax.vmap(lambda p: kinetic_energy(system, p))(momenta)
    expected = 36 * units.KB * 60
    # K is a sum of 36 exponential numbers; the error of its mean is σ/√4000.
    assert abs(jnp.mean(kinetic) - expected) < 5 * expected / np.sqrt(36 * 4000)
    result = kinetic_temperature(system, momenta)
    np.testing.assert_allclose(result, kinetic / (36 * units.KB), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["direct", "checkpointed", "reversible", "forward"])
def test_derivatives_with_fixed_atoms(method):
    system = slab()
    neighbors = neighbor_list(system, cutoff=7.0, skin=1.0)
    methods = {
        "direct": gradients.direct(), "checkpointed": gradients.checkpointed(),
        "reversible": gradients.reversible(), "forward": gradients.forward(),
    }  # fmt: skip
    momenta = draw_momenta(jax.random.key(1), system, 60.0)

    def spread(epsilon):
        params = {**PARAMS, "epsilon": PARAMS["epsilon"] * epsilon}
        integrator = INTEGRATORS["langevin"]
        state = difmd.initialize(
            LJ, params, system, integrator, neighbors, momenta=momenta, key=jax.random.key(2)
        )
        done = difmd.rollout(
            LJ, params, state, integrator, neighbors, n_steps=20, save_every=10, rebuild_every=10,
            gradient=methods[method],
        )  # fmt: skip
        moved = done.state.system.positions - system.positions
        return jnp.sum(moved**2), (moved, done.status)

    result, (moved, status) = jax.jit(jax.grad(spread, has_aux=True))(1.0)
    assert not flags_of(status)
    # `reversible` rounds the initial state to a grid.
    np.testing.assert_allclose(np.asarray(moved)[np.asarray(system.fixed)], 0, atol=1e-12)
    values = jax.jit(jax.vmap(lambda x: spread(x)[0]))(jnp.asarray([1 + 1e-4, 1 - 1e-4]))
    np.testing.assert_allclose(result, (values[0] - values[1]) / 2e-4, rtol=1e-6)


def test_constraints_convert_from_and_to_ase():
    system = slab()
    back = difmd.to_ase(system)
    np.testing.assert_array_equal(back.constraints[0].get_indices(), np.flatnonzero(system.fixed))
    again = difmd.make_system(back.positions, back.numbers, cell=back.cell.array, fixed=[0, -1])
    np.testing.assert_array_equal(np.flatnonzero(again.fixed), [0, len(back) - 1])
    back.set_constraint(FixBondLength(0, 1))
    with pytest.warns(UserWarning, match="FixBondLength"):
        assert difmd.from_ase(back).fixed is None


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ([99], "contains 99"),
        ([0.5], "indices or bools"),
        ([True, False], "32 atoms"),
        ([[0]], "indices or bools"),
    ],
)
def test_wrong_fixed_atoms_raise(fixed, message):
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
    with pytest.raises(InputError, match=message):
        difmd.make_system(atoms.positions, atoms.numbers, cell=atoms.cell.array, fixed=fixed)


def test_fixed_atoms_with_barostat_or_momenta_raise():
    system = slab()
    barostat = difmd.cell_rescaling(
        dt=DT, temperature=60.0, pressure=0.0, friction=1 / units.PS, time_constant=units.PS
    )
    with pytest.raises(InputError, match="barostat moves all atoms"):
        difmd.simulate(
            LJ,
            PARAMS,
            system,
            barostat,
            n_steps=10,
            save_every=10,
            initial_temperature=60.0,
            key=jax.random.key(0),
        )
    with pytest.raises(InputError, match="momenta of fixed atoms"):
        difmd.simulate(
            LJ, PARAMS, system, INTEGRATORS["csvr"], n_steps=10, save_every=10, key=jax.random.key(0),
            momenta=jnp.ones((32, 3)),
        )  # fmt: skip


MOLECULES = {"water": molecule("H2O"), "ethanol": molecule("CH3CH2OH"), "hydrogen": molecule("H2")}
MOLECULES["carbon dioxide"] = ase.Atoms("OCO", [[-1.16, 0.3, 0], [0, 0.3, 0], [1.16, 0.3, 0]])


@pytest.mark.parametrize("name", MOLECULES)
def test_molecules_have_no_drift_and_rotation(name):
    atoms = MOLECULES[name].copy()
    atoms.rotate(37.0, (1, 2, 3))
    system = difmd.from_ase(atoms)
    momenta = np.asarray(draw_momenta(jax.random.key(0), system, 300.0))
    r = atoms.positions - atoms.get_center_of_mass()
    size = np.abs(momenta).max()
    np.testing.assert_allclose(momenta.sum(axis=0), 0, atol=1e-12 * size)
    np.testing.assert_allclose(np.cross(r, momenta).sum(axis=0), 0, atol=1e-12 * size)
    # The same projection as that of ASE.
    rng = np.random.default_rng(0)
    masses = atoms.get_masses()[:, None]
    raw = np.sqrt(masses) * rng.normal(size=momenta.shape)
    atoms.set_momenta(raw)
    Stationary(atoms, preserve_temperature=False)
    ZeroRotation(atoms, preserve_temperature=False)
    no_rotation = remove_rotation(remove_drift(jnp.asarray(raw), system), system)
    np.testing.assert_allclose(no_rotation, atoms.get_momenta(), atol=1e-12)


@pytest.mark.parametrize("name", MOLECULES)
def test_temperature_of_a_molecule_excludes_rotation(name):
    """With or without rotation the mean is the temperature of the distribution.

    A linear molecule has one more degree of freedom than after it has bent: two bending modes instead of one.
    """
    system = difmd.from_ase(MOLECULES[name])
    keys = jax.random.split(jax.random.key(5), 4000)
    masses = system.masses[:, None]
    at_rest = jax.vmap(lambda key: draw_momenta(key, system, 300.0))(keys)
    free = jax.vmap(lambda key: jax.random.normal(key, system.positions.shape))(keys)
    free = free * jnp.sqrt(masses * units.KB * 300.0)[None]
    n_free = int(degrees_of_freedom(system))
    assert n_free == {"water": 3, "ethanol": 21, "hydrogen": 1, "carbon dioxide": 3}[name]
    drawn = 4 if name == "carbon dioxide" else n_free
    for momenta in (at_rest, free):
        result = kinetic_temperature(system, momenta) * n_free / drawn
        assert abs(result.mean() - 300.0) < 5 * 300 * np.sqrt(2 / drawn / 4000)


def test_a_single_atom_has_zero_momentum():
    alone = difmd.make_system(np.zeros((1, 3)), [18])
    np.testing.assert_allclose(draw_momenta(jax.random.key(0), alone, 100.0), 0, atol=1e-14)
    slope = jax.grad(lambda r: jnp.sum(draw_momenta(jax.random.key(0), alone.replace(positions=r), 9.0) ** 2))
    np.testing.assert_allclose(slope(alone.positions), 0, atol=1e-14)


def test_replicas_and_other_momenta_raise(unchecked):
    alone = difmd.make_system(np.zeros((1, 3)), [18])
    both = jax.tree.map(lambda x: jnp.stack([x, x]), alone)
    momenta = jnp.zeros((2, 1, 3))
    for call in (
        lambda: draw_momenta(jax.random.key(0), both, 100.0),
        lambda: degrees_of_freedom(both),
        lambda: remove_drift(momenta, both),
        lambda: remove_rotation(momenta, both),
    ):
        with pytest.raises(InputError, match=r"system holds 2 replicas.*map with jax\.vmap"):
            call()
    with pytest.raises(InputError, match=r"momenta \[2, 3\] and positions \[1, 3\] differ in shape"):
        remove_drift(jnp.zeros((2, 3)), alone)


@pytest.fixture
def unchecked():
    """Disable the type checker of conftest.py, so that a wrong argument reaches the check in difmd."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_fixed_padding_has_no_effect():
    x = np.array([[0, 0, 0], [3.8, 0, 0], [0, 3.8, 0], [9.0, 9, 9]])
    system = difmd.make_system(x, [18, 18, 18, 0], fixed=[3])
    without_padding = difmd.make_system(x[:3], [18, 18, 18])
    momenta = draw_momenta(jax.random.key(0), system, 100.0)
    np.testing.assert_allclose(momenta.sum(axis=0), 0, atol=1e-12)
    assert degrees_of_freedom(system) == degrees_of_freedom(without_padding) == 3
    np.testing.assert_allclose(
        kinetic_temperature(system, momenta), kinetic_temperature(without_padding, momenta[:3]), rtol=1e-12
    )


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("fixed", [None, [0]])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_temperature_counts_the_degrees_of_freedom(n, fixed, pbc):
    rng = np.random.default_rng(n)
    system = difmd.make_system(rng.uniform(0, 9, (n, 3)), [18] * n, cell=[9.0] * 3, pbc=pbc, fixed=fixed)
    momenta = draw_momenta(jax.random.key(1), system, 50.0)
    expected = 2 * kinetic_energy(system, momenta) / (degrees_of_freedom(system) * units.KB)
    np.testing.assert_allclose(kinetic_temperature(system, momenta), expected, rtol=1e-10)


@pytest.mark.slow
def test_thermostat_without_rotation_has_the_right_temperature():
    """3N − 6 degrees of freedom; with 3N − 3 the temperature would be 25 % too high."""
    cluster = np.array([[0, 0, 0], [3.8, 0, 0], [1.9, 3.3, 0], [1.9, 1.1, 3.1], [1.9, 1.1, -3.1]])
    system = difmd.make_system(cluster, [18] * 5)
    bath = difmd.csvr(dt=DT, temperature=15.0, time_constant=0.05 * units.PS)
    run = difmd.simulate(
        LJ, PARAMS, system, bath, n_steps=40_000, save_every=20, chunk_steps=8000, initial_temperature=15.0,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    r = run.positions - run.positions.mean(axis=1, keepdims=True)
    turning = np.cross(r, run.momenta).sum(axis=1)
    assert np.abs(turning).max() < 1e-8
    # Correlated over about 0.1 ps, 25 steps: 1600 independent values of a gamma distribution of shape 9/2.
    assert abs(run.temperature.mean() - 15.0) < 5 * 15 * np.sqrt(2 / 9 / 1600)
