"""Stochastic cell rescaling and the barostat of Martyna, Tobias and Klein."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import difmd
from difmd import gradients, units
from difmd.errors import InputError
from difmd.integrators import Forces, draw_momenta, kinetic_energy
from difmd.integrators.cell import exponential
from difmd.neighbors import neighbor_list

T, P = 100.0, 300 * units.BAR
DT, TAU = 4 * units.FS, 0.2 * units.PS
POTENTIAL = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=7.0, truncation=difmd.switched(6.0))
PARAMS = POTENTIAL.init(jax.random.key(0))
COUPLINGS = ("isotropic", "anisotropic", "triclinic")
BAROSTATS = {
    "cell_rescaling": lambda **given: difmd.cell_rescaling(
        **{"friction": 2 / units.PS, "time_constant": TAU, "compressibility": 2e-4 / units.BAR, **given}
    ),
    "martyna_tobias_klein": lambda **given: difmd.martyna_tobias_klein(
        **{"time_constant": TAU, "piston_time": 2 * TAU, **given}
    ),
}


def made(name, **changes):
    return BAROSTATS[name](**{"dt": DT, "temperature": T, "pressure": P, **changes})


def crystal(n=3):
    x = 5.5 * np.stack(np.meshgrid(*[np.arange(n)] * 3), -1).reshape(-1, 1, 3)
    basis = 2.75 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    x = (x + basis).reshape(-1, 3)
    return difmd.make_system(x, np.full(len(x), 18), masses=np.linspace(20, 60, len(x)), cell=[5.5 * n] * 3)


def started(integrator, system=None):
    system = crystal() if system is None else system
    neighbors = neighbor_list(system, cutoff=7.0, skin=1.5, shrink=1.1)
    momenta = draw_momenta(jax.random.key(1), system, T)
    state = difmd.initialize(
        POTENTIAL, PARAMS, system, integrator, neighbors, momenta=momenta, key=jax.random.key(2)
    )
    return state, neighbors


@pytest.mark.quick("triclinic")
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_piston_conserves_energy_to_second_order(coupling):
    def drift(dt):
        integrator = made("martyna_tobias_klein", dt=dt, coupling=coupling)
        state, neighbors = started(integrator)

        def energy(state, neighbors):
            potential = POTENTIAL.apply(PARAMS, state.system, neighbors)
            return potential + kinetic_energy(state.system, state.momenta) + integrator.reservoir(state)

        done = jax.jit(
            lambda state: difmd.rollout(
                POTENTIAL, PARAMS, state, integrator, neighbors, n_steps=round(400 * DT / dt), save_every=1,
                save=lambda *at: (energy(*at), at[0].system.volume),
            )
        )(state)  # fmt: skip
        assert int(done.status.flags) == 0
        energies, volumes = done.frames
        # Energy was exchanged.
        assert float(jnp.std(volumes)) > 0.002 * float(volumes[0])
        return float(jnp.max(jnp.abs(energies - energy(state, neighbors))))

    coarse, fine = drift(2 * DT), drift(DT)
    assert 3 < coarse / fine < 5.5
    assert fine < 1e-2


@pytest.mark.quick("triclinic-martyna_tobias_klein", "anisotropic-cell_rescaling", "isotropic-cell_rescaling")
@pytest.mark.parametrize("name", BAROSTATS)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_coupling_restricts_strains(name, coupling):
    integrator = made(name, coupling=coupling)
    state, neighbors = started(integrator)
    done = jax.jit(lambda state: difmd.rollout(POTENTIAL, PARAMS, state, integrator, neighbors, n_steps=40))(
        state
    )
    assert int(done.status.flags) == 0
    change = np.linalg.solve(np.asarray(state.system.cell), np.asarray(done.state.system.cell))
    off = change - np.diag(np.diag(change))
    assert np.ptp(np.diag(change)) < 1e-12 if coupling == "isotropic" else np.ptp(np.diag(change)) > 1e-6
    assert np.abs(off).max() > 1e-7 if coupling == "triclinic" else np.abs(off).max() < 1e-12
    # A strain does not change fractional coordinates: atoms and cell move together.
    assert not np.allclose(change, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(
        np.asarray(done.state.virial),
        -np.asarray(
            difmd.evaluate(POTENTIAL, PARAMS, done.state.system, done.neighbors).stress
        ) * float(done.state.system.volume),
        rtol=1e-9, atol=1e-12,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BAROSTATS)
def test_volume_of_an_ideal_gas(name):
    """⟨V⟩ = (N + 1) k_BT/P if the centre of mass moves, N k_BT/P if it is at rest, for each coupling."""
    n_atoms, n_replicas, n_steps, every = 16, 64, 6000, 20
    pressure = 20 * units.BAR
    volume = n_atoms * units.KB * T / pressure
    length = volume ** (1 / 3)
    x = np.random.default_rng(0).uniform(0, length, (n_atoms, 3))
    box = difmd.make_system(x, np.full(n_atoms, 18), cell=[length] * 3)
    nothing = Forces(
        lambda system: 0 * system.positions, lambda system: (0 * system.positions, 0 * system.cell)
    )

    def volumes(coupling):
        integrator = made(
            name, pressure=pressure, coupling=coupling,
            **({"compressibility": 1 / pressure} if name == "cell_rescaling" else {}),
        )  # fmt: skip

        @jax.jit
        @jax.vmap
        def run(key):
            keys = jax.random.split(key)
            state = integrator.init(box, draw_momenta(keys[0], box, T), keys[1], nothing)

            def frame(state, _):
                state, _ = jax.lax.scan(
                    lambda s, _: (integrator.step(s, nothing), None), state, None, length=every
                )
                return state, state.system.volume

            return jax.lax.scan(frame, state, None, length=n_steps // every)[1]

        return np.asarray(run(jax.random.split(jax.random.key(3), n_replicas)))[:, n_steps // every // 5 :]

    power = n_atoms if name == "cell_rescaling" else n_atoms - 1
    for coupling in COUPLINGS:
        found = volumes(coupling)
        means = found.mean(axis=1)
        expected = (power + 1) * units.KB * T / pressure
        error = means.std(ddof=1) / np.sqrt(n_replicas)
        assert error < 0.01 * expected
        assert abs(means.mean() - expected) < 5 * error
        spread = ((found - found.mean()) ** 2).mean(axis=1)
        wanted = (power + 1) * (units.KB * T / pressure) ** 2
        assert abs(spread.mean() - wanted) < 5 * spread.std(ddof=1) / np.sqrt(n_replicas)


@pytest.mark.quick("cell_rescaling")
@pytest.mark.parametrize("name", BAROSTATS)
def test_simulate_saves_cells_and_continues(name):
    """Replicas, cells of frames, the internal pressure, and a run in two parts."""
    systems = jax.tree.map(lambda x: jnp.stack([x, x]), crystal())

    def simulate(system, n_steps, **more):
        return difmd.simulate(
            POTENTIAL, PARAMS, system, made(name), n_steps=n_steps, save_every=50, progress=False, skin=1.5,
            chunk_steps=100, **more,
        )  # fmt: skip

    first = simulate(systems, 200, initial_temperature=T, key=jax.random.key(0))
    assert first.cells.shape == (4, 2, 3, 3) and first.volume.shape == (4, 2)
    np.testing.assert_array_equal(first.cells[-1], np.asarray(first.state.system.cell))
    assert np.isfinite(first.pressure).all() and (np.ptp(first.volume, axis=0) > 0).all()
    assert (first.cells[-1, 0] != first.cells[-1, 1]).any()
    rest = simulate(first.state, 200)
    whole = simulate(systems, 400, initial_temperature=T, key=jax.random.key(0))
    np.testing.assert_array_equal(rest.cells[-1], whole.cells[-1])
    np.testing.assert_array_equal(rest.positions[-1], whole.positions[-1])


@pytest.mark.slow
def test_lists_follow_a_shrinking_cell():
    """A gas condenses: lists that lack images are rebuilt with more capacity."""
    stretched = crystal()
    system = stretched.replace(positions=1.25 * stretched.positions, cell=1.25 * stretched.cell)
    run = difmd.simulate(
        POTENTIAL, PARAMS, system, made("cell_rescaling", pressure=2000 * units.BAR), n_steps=1000,
        initial_temperature=T, key=jax.random.key(0), progress=False,
    )  # fmt: skip
    assert run.volume[-1] < 0.8 * float(system.volume)
    assert run.n_replays > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [("cell_rescaling", "direct"), ("martyna_tobias_klein", "checkpointed"), ("cell_rescaling", "forward")],
)
def test_gradient_of_the_volume(name, method):
    state, neighbors = started(made(name), crystal(2))

    def volume(pressure, sigma):
        integrator = made(name, pressure=pressure)
        params = {**PARAMS, "sigma": sigma * PARAMS["sigma"]}
        start = difmd.initialize(
            POTENTIAL, params, state.system, integrator, neighbors, momenta=state.momenta, key=state.key
        )
        done = difmd.rollout(
            POTENTIAL, params, start, integrator, neighbors, n_steps=20, save_every=5, rebuild_every=5,
            gradient=getattr(gradients, method)(),
        )  # fmt: skip
        return done.state.system.volume

    at = (jnp.asarray(P), jnp.asarray(1.0))
    found = jax.jit(jax.grad(volume, (0, 1)))(*at)
    value = jax.jit(volume)
    for k, step in enumerate((1e-3 * P, 1e-5)):
        moved = [[x + (s * step if n == k else 0) for n, x in enumerate(at)] for s in (1, -1)]
        difference = (value(*moved[0]) - value(*moved[1])) / (2 * step)
        np.testing.assert_allclose(float(found[k]), float(difference), rtol=1e-6)


def test_reversible_raises_for_a_barostat():
    state, neighbors = started(made("cell_rescaling"), crystal(2))
    with pytest.raises(InputError, match="cannot undo"):
        difmd.rollout(
            POTENTIAL, PARAMS, state, made("cell_rescaling"), neighbors, n_steps=1,
            gradient=gradients.reversible(),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BAROSTATS)
def test_ramps_of_temperature_and_pressure(name):
    """Heating and compression; other values do not compile again."""
    hot = difmd.ramp([0, 400], [T, 3 * T])
    pressed = difmd.ramp([0, 400], [P, 60 * P])
    run = difmd.simulate(
        POTENTIAL, PARAMS, crystal(), made(name, temperature=hot, pressure=pressed), n_steps=800,
        save_every=100, initial_temperature=T, key=jax.random.key(0), progress=False, skin=1.5,
    )  # fmt: skip
    assert run.temperature[-1] > 1.7 * T and run.volume[-1] < 0.97 * float(run.system.volume)


def test_ramp_is_piecewise_linear():
    schedule = difmd.ramp([10, 20, 40], [1.0, 3.0, 2.0])
    steps = jnp.asarray([0, 10, 15, 20, 30, 40, 100])
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule.at))(steps), [1, 1, 2, 3, 2.5, 2, 2])


@pytest.mark.parametrize(
    ("steps", "values"),
    [([0], [1.0]), ([0, 0], [1.0, 2.0]), ([5, 2], [1.0, 2.0]), ([0, 1], [1.0]), ([0, 1], [1.0, np.nan])],
)
def test_bad_ramp_raises(steps, values):
    with pytest.raises(InputError, match="ramp"):
        difmd.ramp(steps, values)


@pytest.mark.parametrize("name", BAROSTATS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coupling": "cubic"}, "isotropic"),
        ({"pressure": np.nan}, "pressure"),
        ({"pressure": np.arange(9.0).reshape(3, 3)}, "symmetric"),
        ({"pressure": np.zeros(2)}, "number"),
        ({"temperature": -1.0}, "temperature"),
        ({"dt": 0.0}, "dt"),
        ({"time_constant": -TAU}, "time_constant"),
    ],
)
def test_bad_settings_raise(name, changes, message):
    with pytest.raises(InputError, match=message):
        made(name, **changes)


def test_barostat_requires_a_periodic_cell():
    slab = crystal().replace(pbc=jnp.asarray([True, True, False]))
    with pytest.raises(InputError, match="periodic"):
        difmd.simulate(
            POTENTIAL, PARAMS, slab, made("cell_rescaling"), n_steps=10, save_every=10, initial_temperature=T,
            key=jax.random.key(0), progress=False,
        )  # fmt: skip


def test_force_function_without_virial_raises():
    system = crystal(2)
    with pytest.raises(InputError, match="virial"):
        made("cell_rescaling").init(system, 0 * system.positions, jax.random.key(0), lambda s: s.positions)


def test_exponential_agrees_with_scipy():
    strain = 0.3 * np.random.default_rng(0).normal(size=(3, 3))
    strain = strain + strain.T
    found = np.asarray(jax.jit(exponential)(jnp.asarray(0.1 * strain)))
    np.testing.assert_allclose(found, scipy.linalg.expm(0.1 * strain), rtol=1e-10)
