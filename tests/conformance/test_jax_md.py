"""jax-md and difmd run each other's potentials: the same energies, forces and trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd import units
from difmd.errors import InputError
from difmd.integrators import draw_momenta
from difmd.neighbors import neighbor_list
from difmd.potentials.tersoff import TERSOFF_1989


@pytest.fixture(scope="module", autouse=True)
def jax_md():
    """Import jax-md when its tests run: it takes seconds and mixes dtypes."""
    global energy, minimize, simulate, space, from_jax_md, to_jax_md
    with jax.numpy_dtype_promotion("standard"):
        from jax_md import energy, minimize, simulate, space

        from difmd.interop.jax_md import from_jax_md, to_jax_md


LJ = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=6.0, truncation=difmd.switched(5.0))
SW = difmd.stillinger_weber(["Si"], epsilon=2.16826, sigma=2.0951)


def shaken(symbol, a, basis, n, *, strain=0.0, width=0.08):
    """A crystal with displaced atoms in a cell that is sheared, upper triangular as jax-md requires."""
    rng = np.random.default_rng(0)
    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    shear = np.eye(3) + strain * np.array([[0, 0, 0], [0.7, 0, 0], [-0.4, 0.5, 0]])
    cell = n * a * shear
    x = ((cells + np.asarray(basis)).reshape(-1, 3) / n) @ cell + rng.normal(0, width, (n**3 * len(basis), 3))
    number = {"Ar": 18, "Si": 14}[symbol]
    return difmd.make_system(x, np.full(len(x), number), masses=np.full(len(x), 30.0), cell=cell)


FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
DIAMOND = FCC + (np.array(FCC) + 0.25).tolist()


def argon(**more):
    return shaken("Ar", 5.4, FCC, 3, **more)


def silicon(**more):
    return shaken("Si", 5.43, DIAMOND, 2, **more)


def known(potential, params, system):
    neighbors = neighbor_list(
        system, cutoff=potential.cutoff, skin=0.5, reverse_edges=potential.uses_reverse_edges
    )
    return difmd.evaluate(potential, params, system, neighbors)


CASES = [
    pytest.param(LJ, argon(), id="Lennard-Jones"),
    pytest.param(LJ, argon(strain=0.2), id="Lennard-Jones, triclinic"),
    pytest.param(LJ, shaken("Ar", 5.4, FCC, 1), id="cut-off over the cell"),
    pytest.param(SW, silicon(strain=0.1), id="Stillinger-Weber"),
]


@pytest.mark.quick("Lennard-Jones-False")
@pytest.mark.parametrize("fractional", [False, True])
@pytest.mark.parametrize(("potential", "system"), CASES)
def test_energy_and_forces_through_jax_md(potential, system, fractional):
    params = potential.init(jax.random.key(0))
    expected = known(potential, params, system)
    neighbor_fn, energy_fn = to_jax_md(potential, params, system, fractional_coordinates=fractional)
    r = system.positions @ jnp.linalg.inv(system.cell) if fractional else system.positions
    neighbors = neighbor_fn.allocate(r)
    value, slope = jax.jit(jax.value_and_grad(energy_fn))(r, neighbors)
    assert float(value) == pytest.approx(float(expected.energy), rel=1e-10)
    scale = float(jnp.abs(expected.forces).max())
    np.testing.assert_allclose(-slope, expected.forces, rtol=0, atol=1e-10 * scale)
    # Wrapped positions are the same, once the list is updated.
    if not fractional:
        wrapped = (r @ jnp.linalg.inv(system.cell) % 1.0) @ system.cell
        current = neighbors.update(wrapped)
        assert not current.did_buffer_overflow
        assert float(energy_fn(wrapped, current)) == pytest.approx(float(expected.energy), rel=1e-10)


def test_box_and_params_are_arguments():
    system, params = argon(), LJ.init(jax.random.key(0))
    neighbor_fn, energy_fn = to_jax_md(LJ, params, system)
    larger = difmd.make_system(
        system.positions, np.asarray(system.atomic_numbers), masses=np.asarray(system.masses),
        cell=1.02 * np.asarray(system.cell),
    )  # fmt: skip
    other = {"sigma": jnp.asarray([3.3]), "epsilon": jnp.asarray([0.02])}
    expected = float(known(LJ, other, larger).energy)
    for box in (larger.cell.T, jnp.diag(larger.cell), larger.cell[0, 0]):
        neighbors = neighbor_fn.update(system.positions, neighbor_fn.allocate(system.positions), box=box)
        found = energy_fn(system.positions, neighbors, params=other, box=box)
        assert float(found) == pytest.approx(expected, rel=1e-10)


def test_trajectories_agree_to_rounding():
    """100 steps of constant energy by either package."""
    system, params = argon(), LJ.init(jax.random.key(0))
    # jax-md does this in single precision.
    dt = float(np.float32(4 * units.FS))
    momenta = draw_momenta(jax.random.key(1), system, 60.0)
    done = difmd.simulate(
        LJ, params, system, difmd.velocity_verlet(dt=dt), n_steps=100, save_every=100, momenta=momenta,
        key=jax.random.key(0), progress=False,
    )  # fmt: skip
    neighbor_fn, energy_fn = to_jax_md(LJ, params, system)
    _, shift = space.periodic_general(system.cell.T, fractional_coordinates=False, wrapped=False)
    with jax.numpy_dtype_promotion("standard"):
        init, step = simulate.nve(energy_fn, shift, dt=dt)
        neighbors = neighbor_fn.allocate(system.positions)
        state = init(
            jax.random.key(0), system.positions, kT=1e-3, mass=system.masses[:, None], neighbor=neighbors
        )
        state = state.set(momentum=momenta)

        @jax.jit
        def run(state, neighbors):
            def one(_, both):
                state, neighbors = both
                neighbors = neighbors.update(state.position)
                return step(state, neighbor=neighbors), neighbors

            return jax.lax.fori_loop(0, 100, one, (state, neighbors))

        state, neighbors = run(state, neighbors)
    assert not neighbors.did_buffer_overflow
    np.testing.assert_allclose(state.position, done.positions[-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(state.momentum, done.momenta[-1], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_minimisers_of_jax_md_reach_the_crystal():
    system, params = argon(), LJ.init(jax.random.key(0))
    perfect = shaken("Ar", 5.4, FCC, 3, width=0.0)
    neighbor_fn, energy_fn = to_jax_md(LJ, params, system, skin=1.5)
    _, shift = space.periodic_general(system.cell.T, fractional_coordinates=False)
    neighbors = neighbor_fn.allocate(system.positions)
    with jax.numpy_dtype_promotion("standard"):
        init, apply = minimize.fire_descent(energy_fn, shift, dt_start=0.05, dt_max=0.5)
        state = init(system.positions, neighbor=neighbors)
        state = jax.jit(lambda s: jax.lax.fori_loop(0, 400, lambda _, s: apply(s, neighbor=neighbors), s))(
            state
        )
    found = float(energy_fn(state.position, neighbors.update(state.position)))
    assert found == pytest.approx(float(known(LJ, params, perfect).energy), abs=1e-8)


@pytest.mark.slow
def test_stillinger_weber_of_jax_md_is_that_of_difmd():
    system = silicon(strain=0.05)
    theirs = from_jax_md(
        lambda displacement, params: energy.stillinger_weber(displacement, epsilon=params["epsilon"]),
        cutoff=3.77118,
        init=lambda key: {"epsilon": jnp.asarray(2.16826)},
    )
    expected = known(SW, SW.init(jax.random.key(0)), system)
    found = known(theirs, theirs.init(jax.random.key(0)), system)
    # jax-md adds 1e-7 Å to the distances that angles are computed from.
    assert float(found.energy) == pytest.approx(float(expected.energy), rel=1e-8)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=1e-8)


def eam(displacement, params):
    """A metal of exponentials."""
    del params

    def near(r):
        return jnp.exp(-2.0 * (r - 2.8)) * jnp.where(r < 5, (1 - r / 5) ** 3, 0)

    return energy.eam(
        displacement, near, lambda rho: -1.1 * jnp.sqrt(rho + 1e-9), lambda r: 0.4 * near(r) ** 2
    )


def edip(displacement, params):
    del params
    return energy.edip(displacement)


def tersoff(displacement, params):
    """The silicon of difmd with the argument names of jax-md."""
    del params
    si = TERSOFF_1989["Si"]
    table = {
        "A": si.A, "B": si.B, "lam1": si.lambda_, "lam2": si.mu, "lam3": 0.0, "beta": si.beta, "nTf": si.n,
        "mTf": 3.0, "cTf": si.c, "dTf": si.d, "hTf": si.h, "R": (si.R + si.S) / 2, "D": (si.S - si.R) / 2,
    }  # fmt: skip
    return energy.tersoff(displacement, [table])


def silica(displacement, params):
    """Two species with charges. `bks_silica_pair` is not finite: it pairs an atom with itself."""
    del params
    species = np.arange(108) % 3 > 0
    i, j = np.triu_indices(len(species), 1)
    of_pairs = {
        name: np.asarray(table)[species[i].astype(int), species[j].astype(int)] if np.ndim(table) else table
        for name, table in energy.BKS_SILICA_DICT.items()
    }

    def energy_fn(R):
        r = space.distance(jax.vmap(displacement)(R[i], R[j]))
        return jnp.sum(energy.bks(r, cutoff=8.0, **of_pairs))

    return energy_fn


@pytest.mark.slow
def test_tersoff_of_jax_md_is_that_of_difmd():
    system = silicon(strain=0.05)
    own = difmd.tersoff(["Si"])
    expected = known(own, own.init(jax.random.key(0)), system)
    found = known(from_jax_md(tersoff, cutoff=3.0), {}, system)
    assert float(found.energy) == pytest.approx(float(expected.energy), rel=1e-7)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "cutoff", "system", "dt_fs"),
    [
        pytest.param(eam, 5.0, argon(), 0.5, id="EAM"),
        pytest.param(edip, 3.13, silicon(), 0.5, id="EDIP"),
        pytest.param(tersoff, 3.0, silicon(), 0.5, id="Tersoff"),
        # Not a structure of silica, but one in which ions collapse.
        pytest.param(silica, 8.0, argon(), 0.1, id="BKS"),
    ],
)
def test_energies_of_jax_md_through_difmd(make, cutoff, system, dt_fs):
    """Against jax-md itself, and a trajectory of difmd conserves the energy."""
    potential = from_jax_md(make, cutoff=cutoff)
    found = known(potential, {}, system)
    with jax.numpy_dtype_promotion("standard"):
        displacement, _ = space.periodic(jnp.diag(system.cell))
        value, slope = jax.value_and_grad(make(displacement, {}))(system.positions)
    assert float(found.energy) == pytest.approx(float(value), rel=1e-10)
    np.testing.assert_allclose(found.forces, -slope, rtol=0, atol=1e-10 * float(jnp.abs(slope).max()))
    done = difmd.simulate(
        potential, {}, system, difmd.velocity_verlet(dt=dt_fs * units.FS), n_steps=20, save_every=1,
        initial_temperature=50.0, key=jax.random.key(0), progress=False,
    )  # fmt: skip
    total = done.potential_energy + done.kinetic_energy
    assert np.ptp(total) < 1e-3 * np.ptp(done.potential_energy)


def test_requests_that_jax_md_does_not_support_are_refused():
    potential = from_jax_md(eam, cutoff=5.0)
    small = shaken("Ar", 5.4, FCC, 1)
    with pytest.raises(InputError, match="twice the cut-off"):
        known(potential, {}, small)
    padded = difmd.make_system(np.eye(3), [18, 18, 0], cell=[16.2] * 3)
    with pytest.raises(InputError, match="padding"):
        known(potential, {}, padded)
    system = argon()
    with pytest.raises(InputError, match="energies of atoms"):
        potential.atomic({}, system, neighbor_list(system, cutoff=5.0))
    with pytest.raises(InputError, match="skin"):
        to_jax_md(LJ, LJ.init(jax.random.key(0)), system, skin=-1.0)
    with pytest.raises(InputError, match="Si"):
        to_jax_md(LJ, LJ.init(jax.random.key(0)), silicon())
