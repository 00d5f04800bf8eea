"""The report on gradients against gradients of each horizon, and growth against a pair of trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd import plots, units
from difmd.errors import InputError
from difmd.gradients import direct, forward
from difmd.integrators import draw_momenta, langevin, velocity_verlet
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, switched
from difmd.sensitivity import gradient_report, tangent_growth
from difmd.sensitivity.reports import squared_displacement
from difmd.simulation.rollouts import initialize, rollout

DT, EVERY, N_STEPS = 4 * units.FS, 10, 40
POTENTIAL = lennard_jones(["Ar"], sigma=3.4, epsilon=0.0104, cutoff=6.5, truncation=switched(5.5))
PARAMS = POTENTIAL.init(jax.random.key(0))


@pytest.fixture(scope="module")
def replicas(argon):
    systems = jax.tree.map(lambda x: jnp.stack([x, x]), argon)
    noise = 0.05 * jax.random.normal(jax.random.key(1), systems.positions.shape)
    systems = systems.replace(positions=systems.positions + noise)
    return systems, neighbor_list(systems, cutoff=6.5, skin=1.0, slack=1.3)


@pytest.fixture(scope="module")
def report(replicas):
    methods = {"direct": direct(), "forward": forward(max_inputs=1)}
    return gradient_report(
        POTENTIAL, PARAMS, replicas[0], langevin(dt=DT, temperature=120.0, friction=0.2), replicas[1],
        initial_temperature=120.0, n_steps=N_STEPS, save_every=EVERY, key=jax.random.key(3), methods=methods,
        progress=False,
    )  # fmt: skip


@pytest.mark.slow
def test_gradients_are_those_of_reverse_mode(report, replicas):
    """Each horizon is a rollout of its own, with the momenta and the noise of its replica."""
    systems, lists = replicas
    bath = langevin(dt=DT, temperature=120.0, friction=0.2)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 1), 2)

    def values(params, system, neighbors, key):
        momentum_key, noise_key, _ = jax.random.split(key, 3)
        momenta = draw_momenta(momentum_key, system, 120.0)
        state = initialize(POTENTIAL, params, system, bath, neighbors, momenta=momenta, key=noise_key)
        run = rollout(
            POTENTIAL, params, state, bath, neighbors,
            n_steps=N_STEPS, save_every=EVERY, rebuild_every=EVERY,
            save=lambda state, _: squared_displacement(system, state),
        )  # fmt: skip
        return run.frames, run.frames

    mapped = jax.jit(jax.vmap(jax.jacrev(values, has_aux=True), (None, 0, 0, 0)))
    slopes, each = mapped(PARAMS, systems, lists, keys)
    np.testing.assert_allclose(report.value, np.mean(each, axis=0), rtol=1e-10)
    assert report.names == ("epsilon", "sigma")
    for n, name in enumerate(report.names):
        found = np.asarray(slopes[name][..., 0] * PARAMS[name][0])
        np.testing.assert_allclose(report.gradient[n], found.mean(axis=0), rtol=1e-8, err_msg=name)
        error = np.abs(found[0] - found[1]) / 2
        np.testing.assert_allclose(report.gradient_stderr[n], error, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(report.times, DT * EVERY * np.arange(1, 5))


@pytest.mark.slow
def test_advice_and_costs(report):
    good = report.relative_error <= 0.1
    expected = report.times[good][-1] if good.any() else np.nan
    np.testing.assert_equal(report.horizon, expected)
    np.testing.assert_allclose(report.replicas_needed, 2 * (report.relative_error / 0.1) ** 2)
    assert (report.effective <= 1 + 1e-12).all() and (report.effective >= 0.5 - 1e-12).all()
    costs = {cost.method: cost for cost in report.costs}
    assert list(costs) == ["the rollout alone", "direct", "forward"]
    assert costs["direct"].seconds > 0 and costs["direct"].peak_bytes > costs["the rollout alone"].peak_bytes
    # It would carry two numbers along.
    assert "max_inputs = 1" in costs["forward"].refusal
    text = str(report)
    assert "Lyapunov exponent" in text and "max_inputs = 1" in text and "horizon" in text


@pytest.mark.slow
def test_plot(report, tmp_path):
    plots.plot_gradient_report(report, path=tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


@pytest.mark.slow
def test_growth_is_that_of_two_trajectories(argon):
    """A difference of 1e-6 Å in the direction that the tangent begins with."""
    neighbors = neighbor_list(argon, cutoff=6.5, skin=1.0, slack=1.3)
    momenta = draw_momenta(jax.random.key(5), argon, 120.0)
    key = jax.random.key(6)
    grown = tangent_growth(
        POTENTIAL, PARAMS, argon, momenta, neighbors, dt=DT, n_steps=100, rebuild_every=20, key=key
    )
    assert int(grown.status.flags) == 0
    roots = jnp.sqrt(argon.masses)[:, None]
    seeds = jax.random.normal(key, (2, *momenta.shape))
    tangent = seeds / jnp.linalg.norm(seeds)
    step = 1e-6

    def end(sign):
        nve = velocity_verlet(dt=DT)
        moved = argon.replace(positions=argon.positions + sign * step * tangent[0])
        p = momenta + sign * step * roots * tangent[1]
        state = initialize(POTENTIAL, PARAMS, moved, nve, neighbors, momenta=p, key=key)
        run = rollout(POTENTIAL, PARAMS, state, nve, neighbors, n_steps=100, save_every=20, rebuild_every=20)
        return run.frames.positions, run.frames.momenta / roots[None]

    ahead, behind = end(1.0), end(-1.0)
    apart = sum(jnp.sum((a - b) ** 2, axis=(1, 2)) for a, b in zip(ahead, behind, strict=True))
    np.testing.assert_allclose(grown.log_growth, jnp.log(jnp.sqrt(apart) / (2 * step)), atol=1e-5)
    np.testing.assert_allclose(grown.times, DT * 20 * np.arange(1, 6))


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"n_steps": 15}, "n_steps = 15"),
        ({"tolerance": 0.0}, "tolerance = 0.0"),
        ({"initial_temperature": -1.0}, "initial_temperature = -1.0"),
    ],
)
def test_bad_input_is_refused(replicas, change, culprit):
    settings = {"initial_temperature": 120.0, "n_steps": 20, "save_every": 10, "key": jax.random.key(0)}
    with pytest.raises(InputError, match=culprit):
        gradient_report(
            POTENTIAL,
            PARAMS,
            replicas[0],
            velocity_verlet(dt=DT),
            replicas[1],
            progress=False,
            **{**settings, **change},
        )


def test_one_replica_is_too_few(replicas):
    one = jax.tree.map(lambda x: x[:1], replicas)
    with pytest.raises(InputError, match="1 replica"):
        gradient_report(
            POTENTIAL, PARAMS, one[0], velocity_verlet(dt=DT), one[1],
            initial_temperature=120.0, n_steps=20, save_every=10, key=jax.random.key(0), progress=False,
        )  # fmt: skip
