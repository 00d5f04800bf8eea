"""`rollout`: restarts, mapping, recompilation, flags, and its gradient against finite differences."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd import units
from difmd.errors import Flag, InputError, Status, flags_of
from difmd.gradients import checkpointed, direct
from difmd.gradients.segment import check_motion
from difmd.integrators import draw_momenta, langevin, velocity_verlet
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, slots, switched
from difmd.simulation.rollouts import initialize, rollout

POTENTIAL = lennard_jones(["Ar"], sigma=3.4, epsilon=0.0104, cutoff=5.6, truncation=switched(4.5))
PARAMS = POTENTIAL.init(jax.random.key(0))
DT = 4 * units.FS
NVE = velocity_verlet(dt=DT)
NVT = langevin(dt=DT, temperature=90.0, friction=1 / units.PS)


@pytest.fixture(scope="module", autouse=True)
def rolled_loops():
    """Do not unroll the loop over neighbours, so that there is less code to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "_UNROLL", 1)
        yield


@pytest.fixture(scope="module")
def start(argon):
    """32 argon atoms at 90 K: state and list."""
    neighbors = neighbor_list(argon, cutoff=POTENTIAL.cutoff, skin=0.6, slack=1.4)
    momenta = draw_momenta(jax.random.key(1), argon, 90.0)
    state = initialize(POTENTIAL, PARAMS, argon, NVE, neighbors, momenta=momenta, key=jax.random.key(2))
    return state, neighbors


def total_energy(state, neighbors):
    from difmd.integrators import kinetic_energy

    potential = POTENTIAL.apply(PARAMS, state.system, neighbors)
    return potential + kinetic_energy(state.system, state.momenta)


def equal(a, b):
    def raw(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(raw(x), raw(y))), a, b))


@pytest.mark.quick("dynamic")
@pytest.mark.parametrize("rebuild_every", [None, 5], ids=["dynamic", "static"])
def test_restarted_run_equals_one_run_for_any_save_every(start, rebuild_every):
    state, neighbors = start

    def run(n_steps):
        return jax.jit(
            lambda state, neighbors: rollout(
                POTENTIAL, PARAMS, state, NVT, neighbors,
                n_steps=n_steps, save_every=5, rebuild_every=rebuild_every,
            )
        )  # fmt: skip

    complete = run(40)(state, neighbors)
    half = run(20)
    first = half(state, neighbors)
    second = half(first.state, first.neighbors)
    assert not flags_of(complete.status) and int(complete.status.first_bad_step) == -1
    assert int(complete.state.step) == 40 and complete.frames.positions.shape == (8, 32, 3)
    assert equal(second.state, complete.state)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first.frames, second.frames)
    assert equal(joined, complete.frames)
    assert jnp.array_equal(complete.frames.positions[-1], complete.state.system.positions)
    assert jnp.array_equal(complete.frames.momenta[-1], complete.state.momenta)


def test_energy_is_conserved_and_second_order_in_the_time_step(start):
    state, neighbors = start

    @jax.jit
    def energies(dt):
        run = rollout(
            POTENTIAL, PARAMS, state, velocity_verlet(dt=dt), neighbors,
            n_steps=200, save=total_energy,
        )  # fmt: skip
        return run.frames, run.status.flags

    drifts = []
    for dt in (DT, DT / 2):
        energy, flags = energies(dt)
        assert energy.shape == (200,) and int(flags) == 0
        drifts.append(float(jnp.std(energy)))
    assert drifts[0] < 1e-3 * 32 * 1.5 * units.KB * 90
    assert 3 < drifts[0] / drifts[1] < 5


def test_replicas_and_temperatures_are_mapped_without_recompiling(start):
    state, neighbors = start
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(integrators, momenta):
        def of_replica(integrator, momenta):
            return rollout(
                POTENTIAL, PARAMS, state.replace(momenta=momenta), integrator, neighbors,
                n_steps=20, save_every=10,
            ).frames  # fmt: skip

        return jax.vmap(of_replica)(integrators, momenta)

    def baths(temperatures):
        full = jnp.asarray(temperatures)
        return jax.vmap(lambda t: langevin(dt=DT, temperature=t, friction=1 / units.PS))(full)

    momenta = jnp.stack([state.momenta, -state.momenta])
    frames = run(baths([90.0, 150.0]), momenta)
    assert frames.positions.shape == (2, 2, 32, 3)
    swapped = run(baths([150.0, 90.0]), momenta[::-1])
    for a, b in zip(jax.tree.leaves(frames), jax.tree.leaves(swapped), strict=True):
        np.testing.assert_allclose(a, b[::-1], atol=1e-12)
    hotter = run(baths([90.0, 151.0]), momenta)
    np.testing.assert_array_equal(hotter.positions[0], frames.positions[0])
    assert jnp.abs(hotter.positions[1] - frames.positions[1]).max() > 1e-6
    alone = jax.jit(
        lambda: rollout(POTENTIAL, PARAMS, state, NVT, neighbors, n_steps=20, save_every=10).frames
    )()
    np.testing.assert_allclose(alone.positions, frames.positions[0], atol=1e-11)


def test_status_has_the_first_bad_step(start):
    state, neighbors = start

    @jax.jit
    def run(dt, momenta):
        return rollout(
            POTENTIAL, PARAMS, state.replace(momenta=momenta), velocity_verlet(dt=dt), neighbors,
            n_steps=20, save_every=20, rebuild_every=20,
        ).status  # fmt: skip

    # One atom crosses skin/2 = 0.3 Å in four steps of 0.08 Å.
    speed = 0.08 / DT
    momenta = jnp.zeros((32, 3)).at[5, 0].set(speed * state.system.masses[5])
    stale = run(DT, momenta)
    assert flags_of(stale) == Flag.NEIGHBOR_STALE and int(stale.first_bad_step) == 4
    broken = run(DT, state.momenta.at[0, 0].set(jnp.nan))
    assert Flag.NON_FINITE in flags_of(broken) and int(broken.first_bad_step) == 1
    assert flags_of(run(DT / 100, state.momenta)) == Flag(0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["positions", "forces", "momenta"])
def test_non_finite_values_of_every_field_are_flagged(field, value, start):
    state, neighbors = start
    check = jax.jit(lambda state: check_motion(state, neighbors, jnp.asarray(DT), Status.ok()))
    assert flags_of(check(state)) == Flag(0)
    for atom, axis in itertools.product((0, 31), range(3)):
        if field == "positions":
            broken = state.system.positions.at[atom, axis].set(value)
            broken_state = state.replace(system=state.system.replace(positions=broken))
        else:
            broken_state = state.replace(**{field: getattr(state, field).at[atom, axis].set(value)})
        assert Flag.NON_FINITE in flags_of(check(broken_state))


def test_atom_that_moves_by_the_cutoff_in_one_step_is_flagged(start):
    state, neighbors = start
    check = jax.jit(lambda state: check_motion(state, neighbors, jnp.asarray(DT), Status.ok()))
    for atom, axis, sign in itertools.product((0, 31), range(3), (-1, 1)):
        speed = sign * 1.01 * neighbors.cutoff / DT
        fast = state.replace(momenta=state.momenta.at[atom, axis].set(speed * state.system.masses[atom]))
        assert flags_of(check(fast)) == Flag.TOO_FAST


def test_list_that_is_stale_at_step_0_is_flagged(start):
    """The forces of the initial state were computed with it, whether or not it is rebuilt afterwards."""
    state, neighbors = start
    old = neighbors.replace(reference_positions=neighbors.reference_positions + 0.4)
    for rebuild_every in (None, 5):
        run = rollout(
            POTENTIAL, PARAMS, state, NVE, old, n_steps=5, save_every=5, rebuild_every=rebuild_every
        )
        assert Flag.NEIGHBOR_STALE in flags_of(run.status) and int(run.status.first_bad_step) == 0


@pytest.mark.quick("direct")
@pytest.mark.parametrize("method", [direct, checkpointed])
def test_gradient_agrees_with_central_differences(start, method):
    """Over 50 steps, in the parameters and in all momenta along a direction."""
    state, neighbors = start
    weights = jnp.asarray(np.random.default_rng(8).normal(size=(10, 32, 3)))
    push = jnp.asarray(np.random.default_rng(9).normal(size=(32, 3)))

    def loss(theta):
        params = {"sigma": PARAMS["sigma"] * (1 + theta[:1]), "epsilon": PARAMS["epsilon"] * (1 + theta[1:2])}
        moved = state.replace(momenta=state.momenta + theta[2] * push)
        begun = initialize(
            POTENTIAL, params, moved.system, NVE, neighbors, momenta=moved.momenta, key=moved.key
        )
        run = rollout(
            POTENTIAL, params, begun, NVE, neighbors,
            n_steps=50, save_every=5, rebuild_every=10, gradient=method(),
        )  # fmt: skip
        frames = run.frames
        return jnp.sum(weights * frames.positions) + jnp.sum(jnp.sin(frames.momenta)), run.status.flags

    gradient, flags = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros(3))
    assert int(flags) == 0
    step = 1e-4
    stencil = step * np.array([-2, -1, 1, 2])[:, None, None] * np.eye(3)
    value = jax.jit(lambda theta: loss(theta)[0])
    values = np.array([[float(value(jnp.asarray(theta))) for theta in row] for row in stencil])
    expected = np.array([1, -8, 8, -1]) / 12 @ values / step
    assert np.all(np.abs(expected) > 1e-2)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "steps",
    [
        {"n_steps": 10, "save_every": 3},
        {"n_steps": 10, "save_every": 0},
        {"n_steps": 10, "save_every": 5, "rebuild_every": 2},
        {"n_steps": 10, "save_every": 1, "rebuild_every": 4},
        {"n_steps": 10, "save_every": 1, "rebuild_every": 0},
        {"n_steps": -10, "save_every": 5},
        {"n_steps": 0, "save_every": 5},
    ],
    ids=str,
)
def test_numbers_of_steps_that_do_not_divide_raise(start, steps):
    with pytest.raises(InputError, match=f"n_steps = {steps['n_steps']}|every = 0 must be at least 1"):
        rollout(POTENTIAL, PARAMS, start[0], NVE, start[1], **steps)
