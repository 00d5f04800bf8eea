"""`simulate`: exact replays after overflow, validation of arguments, and completed parts after failures."""

import importlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from difmd import units
from difmd.errors import InputError, SimulationError, SimulationInterrupted
from difmd.integrators import langevin, velocity_verlet
from difmd.neighbors import automatic_skin, neighbor_list
from difmd.potentials import lennard_jones, switched
from difmd.simulation.chunk import draw_state
from difmd.simulation.driver import simulate
from difmd.system import make_system
from difmd.trajectory import kinetic_temperature

# `difmd.simulate` is the function.
MODULE = importlib.import_module("difmd.simulation.engine")
POTENTIAL = lennard_jones(["Ar"], sigma=3.4, epsilon=120 * units.KB, cutoff=6.0, truncation=switched(5.0))
PARAMS = POTENTIAL.init(jax.random.key(0))
NVE = velocity_verlet(dt=5 * units.FS)
SKIN = 0.15 * POTENTIAL.cutoff
RECORDS = ("positions", "momenta", "potential_energy", "stress")


def run(system, *, integrator=NVE, n_steps=40, save_every=10, chunk_steps=20, **changes):
    start = {} if "momenta" in changes else {"initial_temperature": 100.0}
    return simulate(
        POTENTIAL,
        changes.pop("params", PARAMS),
        system,
        integrator,
        n_steps=n_steps,
        save_every=save_every,
        chunk_steps=chunk_steps,
        progress=False,
        key=changes.pop("key", jax.random.key(1)),
        **{**start, **changes},
    )


@pytest.fixture(scope="module")
def clean(argon):
    """40 steps in two chunks."""
    return run(argon)


@pytest.fixture(scope="module")
def crystal():
    """The third shell of neighbours lies just beyond cut-off and skin, and crosses it at high temperature."""
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    return make_system(5.7 * (cells + corners).reshape(-1, 3), np.full(32, 18), cell=[11.4] * 3)


@pytest.fixture(scope="module")
def hot_run(crystal):
    """Runs of the hot crystal by capacity, with noise, and the first step of every attempt at a chunk."""

    def make(capacity):
        attempts = []

        def spy(*args):
            attempts.append(int(args[6].step))
            return chunk(*args)

        chunk = MODULE.run_chunk
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MODULE, "run_chunk", spy)
            result = run(
                crystal,
                integrator=langevin(dt=10 * units.FS, temperature=300.0, friction=1 / units.PS),
                initial_temperature=300.0,
                chunk_steps=10,
                capacity=capacity,
                skin=SKIN,
            )
        return result, attempts

    return make


@pytest.fixture(scope="module")
def ample(hot_run):
    return hot_run(60)


@pytest.fixture
def unchecked():
    """Without the type checker of conftest.py, so that wrong arguments reach the checks of difmd."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def assert_same_path(result, expected):
    """Positions and momenta bit for bit; recorded sums, which do not affect the path, to rounding."""
    for name in ("positions", "momenta"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)
    for name in ("potential_energy", "stress"):
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-12, atol=1e-16)


def test_sufficient_capacity_needs_no_replay(ample):
    result, attempts = ample
    assert result.n_replays == 0
    assert attempts == [0, 10, 20, 30]


def test_overflow_during_a_run_does_not_change_the_trajectory(hot_run, ample, crystal):
    start = neighbor_list(crystal, cutoff=POTENTIAL.cutoff, skin=SKIN)
    needed = int(start.n_neighbors)
    result, attempts = hot_run(needed)
    assert result.n_replays >= 1
    assert len(attempts) == 4 + result.n_replays
    # A chunk after the first was repeated.
    assert any(attempts.count(step) > 1 for step in (10, 20, 30)), attempts
    assert_same_path(result, ample[0])


@pytest.mark.slow
def test_overflow_at_step_0_does_not_change_the_trajectory(hot_run, ample):
    result, _ = hot_run(1)
    assert result.n_replays >= 1
    assert_same_path(result, ample[0])


@pytest.mark.slow
def test_slab_that_exceeds_the_capacity_for_the_mean_density(crystal, monkeypatch):
    """The list is enlarged to the capacity that the initial state needs, and the trajectory is the same."""
    slab = crystal.replace(cell=jnp.diag(jnp.array([11.4, 11.4, 34.2])))
    expected = run(slab, capacity=80)
    host = importlib.import_module("difmd.neighbors.host")
    monkeypatch.setattr(host, "_CROWDED", 100.0)
    monkeypatch.setattr(host, "_FEW", 4)
    chunk, ends = MODULE.run_chunk, []

    def spy(*args):
        done = chunk(*args)
        ends.append(int(done.state.step))
        return done

    monkeypatch.setattr(MODULE, "run_chunk", spy)
    result = run(slab)
    assert expected.n_replays == 0
    assert result.n_replays >= 1
    assert ends[0] == 0 < ends[1]
    assert_same_path(result, expected)


def test_frames(argon, clean):
    assert clean.positions.shape == clean.momenta.shape == (4, 32, 3)
    assert clean.potential_energy.shape == clean.kinetic_energy.shape == clean.temperature.shape == (4,)
    assert clean.stress.shape == (4, 3, 3)
    np.testing.assert_allclose(clean.time, 0.05 * np.arange(1, 5), rtol=1e-14)
    assert int(clean.state.step) == 40
    np.testing.assert_array_equal(clean.state.system.positions, clean.positions[-1])
    np.testing.assert_array_equal(clean.state.momenta, clean.momenta[-1])
    assert clean.system is argon
    kinetic = 0.5 * np.sum(clean.momenta**2 / 39.95, axis=(1, 2))
    np.testing.assert_allclose(clean.kinetic_energy, kinetic, rtol=1e-3)
    np.testing.assert_allclose(clean.total_energy - clean.potential_energy, kinetic, rtol=1e-3)
    np.testing.assert_allclose(clean.temperature, 2 * clean.kinetic_energy / (93 * units.KB), rtol=1e-12)
    virial = np.trace(clean.stress, axis1=1, axis2=2)
    np.testing.assert_allclose(
        clean.pressure, 2 * clean.kinetic_energy / (3 * 11.4**3) - virial / 3, rtol=1e-12
    )


@pytest.mark.parametrize("batched", [False, True], ids=["one", "replicas"])
def test_continued_run_equals_one_run(argon, batched):
    """20 + 20 steps have the noise, times and path of 40."""
    system = jax.tree.map(lambda x: jnp.stack([x, x]), argon) if batched else argon
    bath = langevin(dt=5 * units.FS, temperature=100.0, friction=1 / units.PS)
    complete = run(system, integrator=bath)
    first = run(system, integrator=bath, n_steps=20)
    second = simulate(
        POTENTIAL, PARAMS, first.state, bath, n_steps=20, save_every=10, chunk_steps=20, progress=False
    )
    np.testing.assert_array_equal(second.positions, complete.positions[2:])
    np.testing.assert_array_equal(second.momenta, complete.momenta[2:])
    np.testing.assert_allclose(second.time, complete.time[2:], rtol=1e-14)
    with pytest.raises(InputError, match="leave out initial_temperature"):
        run(first.state)


def test_temperature_excludes_the_centre_of_mass():
    """Four atoms and padding, at rest and with a common velocity."""
    system = make_system(np.eye(5, 3), [18, 18, 18, 18, 0], cell=[9.0] * 3)
    momenta = np.zeros((2, 5, 3))
    momenta[:, 0, 0], momenta[:, 1, 0] = 3.0, -3.0
    expected = kinetic_temperature(system, momenta)
    np.testing.assert_allclose(expected, 2 * 9.0 / 39.95 / (9 * units.KB), rtol=1e-3)
    moving = momenta + 5.0 * np.array([1.0, 1, 1, 1, 0])[:, None]
    np.testing.assert_allclose(kinetic_temperature(system, moving), expected, rtol=1e-12)
    alone = make_system(np.zeros((1, 3)), [18], cell=[9.0] * 3)
    assert np.isnan(kinetic_temperature(alone, np.ones((1, 3))))


def test_non_finite_energy_stops_the_run(argon, monkeypatch):
    def broken(*args):
        done = chunk(*args)
        frames, checks = done.frames
        checks = checks._replace(potential_energy=jnp.nan * checks.potential_energy)
        return done._replace(frames=(frames, checks))

    chunk = MODULE.run_chunk
    monkeypatch.setattr(MODULE, "run_chunk", broken)
    with pytest.raises(SimulationError, match="NON_FINITE.*first at step 10") as caught:
        run(argon)
    assert len(caught.value.partial_result) == 0


def test_trajectory_does_not_depend_on_the_chunk_size(argon, clean):
    """50 steps in chunks of 20, 20, 10 and in chunks of 10; only the order of sums may differ."""
    uneven = run(argon, n_steps=50)
    short = run(argon, n_steps=50, chunk_steps=10)
    assert uneven.positions.shape == short.positions.shape == (5, 32, 3)
    np.testing.assert_array_equal(uneven.positions[:4], clean.positions)
    np.testing.assert_allclose(short.positions, uneven.positions, atol=1e-10)
    for result in (uneven, short):
        total = result.total_energy
        # Velocity Verlet at 5 fs: small compared with the exchange of potential and kinetic energy.
        assert np.ptp(total) < 0.01 * np.ptp(result.kinetic_energy)
        assert np.ptp(result.kinetic_energy) > 0.01


def test_replicas_are_independent_runs(argon, clean):
    """Two replicas from given momenta: the first equals a run of one system, the second differs."""
    momenta = jnp.stack([clean.state.momenta, -clean.state.momenta])
    systems = jax.tree.map(lambda x: jnp.stack([x, x]), argon)
    both = run(systems, momenta=momenta, n_steps=20)
    alone = run(argon, momenta=momenta[0], n_steps=20)
    assert both.positions.shape == both.momenta.shape == (2, 2, 32, 3)
    assert both.potential_energy.shape == both.temperature.shape == both.pressure.shape == (2, 2)
    assert both.stress.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(both.positions[:, 0], alone.positions, atol=1e-10)
    np.testing.assert_allclose(both.potential_energy[:, 0], alone.potential_energy, atol=1e-10)
    assert np.abs(both.positions[:, 1] - both.positions[:, 0]).max() > 0.1
    drawn = run(systems, initial_temperature=100.0, n_steps=20)
    assert np.abs(drawn.momenta[0, 0] - drawn.momenta[0, 1]).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"momenta": jnp.zeros((32, 3)).at[4, 1].set(jnp.nan)}, "momenta"),
        ({"momenta": jnp.zeros((31, 3))}, "momenta"),
        ({"momenta": jnp.zeros((2, 32, 3))}, "momenta"),
        ({"initial_temperature": -5.0}, "temperature = -5.0"),
        ({"initial_temperature": 0.0}, "temperature = 0.0"),
        ({"initial_temperature": float("nan")}, "temperature = nan"),
        ({"initial_temperature": 100.0, "momenta": jnp.zeros((32, 3))}, "initial_temperature or momenta"),
        ({"initial_temperature": None}, "initial_temperature or momenta"),
        ({"n_steps": 15}, "n_steps = 15"),
        ({"n_steps": 0}, "n_steps = 0"),
        ({"n_steps": -10}, "n_steps = -10"),
        ({"save_every": 0}, "save_every = 0"),
        ({"skin": -0.5}, "skin = -0.5"),
        ({"capacity": 0}, "capacity = 0"),
        ({"params": {"sigma": jnp.asarray([jnp.nan]), "epsilon": jnp.asarray([0.01])}}, "sigma"),
        ({"params": {"sigma": jnp.asarray([3.4]), "epsilon": jnp.asarray([1e308])}}, "forces at the start"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value).replace(" ", ""),
)
def test_bad_arguments_raise(argon, changes, culprit):
    with pytest.raises(InputError, match=culprit):
        run(argon, **changes)


@pytest.mark.parametrize("dt", [-1.0, 0.0, float("nan")])
def test_bad_time_steps_raise(dt):
    with pytest.raises(InputError, match="dt = "):
        velocity_verlet(dt=dt)
    with pytest.raises(InputError, match="dt = "):
        langevin(dt=dt, temperature=100.0, friction=0.1)


def test_bad_systems_raise(argon):
    with pytest.raises(InputError, match="Kr.*Ar"):
        run(argon.replace(atomic_numbers=argon.atomic_numbers.at[3].set(36)))
    with pytest.raises(InputError, match=r"positions\[2, 1\]"):
        run(argon.replace(positions=argon.positions.at[2, 1].set(jnp.nan)))
    systems = jax.tree.map(lambda x: jnp.stack([x, x]), argon)
    with pytest.raises(InputError, match="Kr"):
        run(systems.replace(atomic_numbers=systems.atomic_numbers.at[1, 3].set(36)))


def test_explosion_in_the_first_step(argon):
    """Two atoms nearly on top of each other, and a time step far too large."""
    near = argon.positions.at[1].set(argon.positions[0] + jnp.asarray([0.01, 0, 0]))
    with pytest.raises(SimulationError, match=r"NON_FINITE.*first at step 1\)") as caught:
        run(argon.replace(positions=near), integrator=velocity_verlet(dt=1000 * units.FS))
    partial = caught.value.partial_result
    assert partial.positions.shape == (0, 32, 3) and partial.stress.shape == (0, 3, 3)
    assert partial.time.shape == (0,)
    assert int(partial.state.step) == 0


def test_explosion_returns_the_completed_frames(argon, clean, monkeypatch):
    chunk = MODULE.run_chunk

    def kick(*args):
        state = args[6]
        if int(state.step) == 20:
            state = state.replace(momenta=1e306 * state.momenta)
        return chunk(*args[:6], state, *args[7:])

    monkeypatch.setattr(MODULE, "run_chunk", kick)
    with pytest.raises(SimulationError, match=r"NON_FINITE.*first at step 2\d\)") as caught:
        run(argon)
    partial = caught.value.partial_result
    for name in RECORDS:
        np.testing.assert_array_equal(getattr(partial, name), getattr(clean, name)[:2], err_msg=name)
    assert int(partial.state.step) == 20
    np.testing.assert_array_equal(partial.state.momenta, clean.momenta[1])


def test_interrupt_returns_the_completed_frames(argon, clean, monkeypatch):
    chunk, calls = MODULE.run_chunk, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return chunk(*args)

    monkeypatch.setattr(MODULE, "run_chunk", stop)
    with pytest.raises(SimulationInterrupted, match="40 of 80 steps") as caught:
        run(argon, n_steps=80)
    assert isinstance(caught.value, KeyboardInterrupt) and isinstance(caught.value, SimulationError)
    partial = caught.value.partial_result
    for name in RECORDS:
        np.testing.assert_array_equal(getattr(partial, name), getattr(clean, name), err_msg=name)
    assert int(partial.state.step) == 40
    np.testing.assert_array_equal(partial.time, clean.time)


@pytest.mark.parametrize("replicas", [(), (2,)])
def test_interrupt_before_the_first_frame_returns_the_initial_state(argon, monkeypatch, replicas):
    """Its forces have not been evaluated, and are NaN."""

    def stop(*args, **options):
        raise KeyboardInterrupt

    system = jax.tree.map(lambda x: jnp.broadcast_to(x, (*replicas, *x.shape)), argon)
    complete = run(system)
    with monkeypatch.context() as patch, pytest.raises(SimulationInterrupted, match="0 of 40") as caught:
        patch.setattr(MODULE, "run_chunk", stop)
        patch.setattr(MODULE, "run_replicas", stop)
        run(system)
    partial = caught.value.partial_result.state
    assert np.isnan(partial.forces).all()
    options = {"n_steps": 40, "save_every": 10, "chunk_steps": 20, "progress": False}
    assert_same_path(simulate(POTENTIAL, PARAMS, partial, NVE, **options), complete)


def test_continued_run_of_a_melting_crystal_equals_one_run(crystal):
    """Occupancy and numbers of neighbours change during the run; the order of sums must not."""
    options = {"save_every": 30, "chunk_steps": 30, "integrator": velocity_verlet(dt=8 * units.FS)}
    complete = run(crystal, n_steps=120, initial_temperature=600.0, **options)
    half = run(crystal, n_steps=60, initial_temperature=600.0, **options)
    rest = simulate(
        POTENTIAL, PARAMS, half.state, options["integrator"], n_steps=60, save_every=30, chunk_steps=30,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(rest.positions[-1], complete.positions[-1])
    np.testing.assert_array_equal(rest.momenta[-1], complete.momenta[-1])


def test_objects_that_are_no_systems_or_keys_raise(argon, unchecked):
    options = {"n_steps": 1, "save_every": 1, "initial_temperature": 100.0, "progress": False}
    with pytest.raises(InputError, match="str: convert it with difmd.from_ase"):
        simulate(POTENTIAL, PARAMS, "argon", NVE, key=jax.random.key(0), **options)
    with pytest.raises(InputError, match="key = 0 is not a key"):
        simulate(POTENTIAL, PARAMS, argon, NVE, key=0, **options)
    with pytest.raises(InputError, match="n_steps = 1.0 must be an integer"):
        simulate(POTENTIAL, PARAMS, argon, NVE, key=jax.random.key(0), **{**options, "n_steps": 1.0})


def test_another_temperature_does_not_recompile(argon):
    """Nor do other initial momenta, with or without a thermostat."""

    def heated(kelvin, key):
        bath = langevin(dt=5 * units.FS, temperature=kelvin, friction=1 / units.PS)
        options = {"n_steps": 20, "initial_temperature": kelvin, "key": jax.random.key(key)}
        return run(argon, integrator=bath, **options), run(argon, **options)

    heated(40.0, 1)
    compiled = [f._cache_size() for f in (MODULE.run_chunk, draw_state)]
    for kelvin, key in ((60.0, 2), (150.0, 3)):
        result, _ = heated(kelvin, key)
        assert 0.5 * kelvin < result.temperature[-1] < 1.5 * kelvin
    assert [f._cache_size() for f in (MODULE.run_chunk, draw_state)] == compiled


def test_automatic_skin_is_reported(argon):
    result = run(argon, n_steps=10)
    assert result.skin == automatic_skin(np.asarray(argon.masses), dt=float(NVE.dt), cutoff=POTENTIAL.cutoff)
    assert 0.02 * POTENTIAL.cutoff < result.skin < 0.3 * POTENTIAL.cutoff
    assert run(argon, n_steps=10, skin=0.4).skin == 0.4


def test_continued_run_does_not_recompile(argon):
    """Capacities are measured at every call; small differences must not change shapes."""
    first = run(argon, n_steps=40, save_every=20)
    state, compiled = first.state, MODULE.run_chunk._cache_size()
    for _ in range(4):
        state = simulate(
            POTENTIAL, PARAMS, state, NVE, n_steps=40, save_every=20, chunk_steps=20, progress=False
        ).state
    assert MODULE.run_chunk._cache_size() == compiled
