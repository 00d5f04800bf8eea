"""Correlations against double loops, diffusivities against exact processes, error bars, order."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from difmd import units
from difmd.errors import InputError
from difmd.observables import (
    Estimate,
    autocorrelation,
    crystalline_order,
    diffusivity,
    diffusivity_from_arrays,
    finite_size_correction,
    is_liquid,
    mean_squared_displacement,
    over_blocks,
    over_replicas,
    remove_center_of_mass,
    velocity_autocorrelation,
    with_control,
)
from difmd.system import make_system
from difmd.trajectory import Frames, Trajectory


def ornstein_uhlenbeck(rng, *, decay, shape):
    """Velocities of unit variance with ⟨v(0)v(n)⟩ = decayⁿ along axis −3, from their stationary state."""
    noise = rng.normal(size=shape)
    velocities = np.empty(shape)
    velocities[..., 0, :, :] = noise[..., 0, :, :]
    for n in range(1, shape[-3]):
        kick = np.sqrt(1 - decay**2) * noise[..., n, :, :]
        velocities[..., n, :, :] = decay * velocities[..., n - 1, :, :] + kick
    return velocities


@pytest.fixture(scope="module")
def langevin_gas():
    """Free Langevin particles: positions, momenta, masses, interval, exact D."""
    interval, decay, atoms = 0.2, 0.9, 20
    velocities = ornstein_uhlenbeck(np.random.default_rng(3), decay=decay, shape=(8, 2000, atoms, 3))
    # By the trapezoidal rule in both routes, D = Δt (½ + Σₙ decayⁿ), less the motion of the centre of mass.
    moved = 0.5 * interval * (velocities[:, 1:] + velocities[:, :-1])
    start = np.zeros_like(velocities[:, :1])
    positions = np.concatenate([start, np.cumsum(moved, axis=1)], axis=1)
    exact = interval * (0.5 + decay / (1 - decay)) * (1 - 1 / atoms)
    masses = np.full(atoms, 16.0)
    return jnp.asarray(positions), jnp.asarray(16 * velocities), jnp.asarray(masses), interval, exact


@pytest.fixture
def unchecked():
    """Without the type checker of conftest.py, so that a wrong shape reaches the check in difmd."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_autocorrelation_of_a_plain_series():
    x = np.random.default_rng(0).normal(size=17)
    direct = [np.mean(x[: 17 - t] * x[t:]) for t in range(17)]
    np.testing.assert_allclose(autocorrelation(jnp.asarray(x)), direct, rtol=1e-12, atol=1e-13)


def test_msd_equals_the_double_loop():
    steps = np.random.default_rng(1).normal(size=(23, 5, 3))
    r = 300 + np.cumsum(steps, axis=0)
    direct = [np.mean(np.sum((r[t:] - r[: 23 - t]) ** 2, axis=-1)) for t in range(23)]
    np.testing.assert_allclose(mean_squared_displacement(jnp.asarray(r)), direct, rtol=1e-10, atol=1e-10)


def test_vacf_equals_the_double_loop():
    v = np.random.default_rng(2).normal(size=(23, 5, 3))
    direct = [np.mean(np.sum(v[t:] * v[: 23 - t], axis=-1)) for t in range(23)]
    np.testing.assert_allclose(velocity_autocorrelation(jnp.asarray(v)), direct, rtol=1e-10, atol=1e-12)


def test_diffusivity_of_a_trajectory(langevin_gas):
    """Frames before replicas, padding atoms, and one species of two."""
    positions, momenta, masses, interval, _ = (np.asarray(x) for x in langevin_gas)
    numbers = np.where(np.arange(20) < 8, 18, 36)
    expected = diffusivity_from_arrays(
        positions, momenta, masses, interval=float(interval), window=(4.0, 6.0), select=numbers == 36
    )
    one = make_system(
        np.random.default_rng(9).uniform(0, 9, (22, 3)),
        [*numbers, 0, 0],
        masses=[*masses, 1.0, 1.0],
        cell=[9.0] * 3,
    )
    systems = jax.tree.map(lambda x: jnp.stack([x] * 8), one)
    frames = [np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 0))).swapaxes(0, 1) for x in (positions, momenta)]
    n = len(frames[0])
    run = Trajectory(
        system=systems,
        frames=Frames(*frames),
        steps=np.arange(1, n + 1),
        dt=interval,
    )
    found = diffusivity(run, window=(4.0, 6.0), species=36)
    np.testing.assert_allclose(found.samples, expected.samples, rtol=1e-10)
    assert abs(found.einstein.value / diffusivity(run, window=(4.0, 6.0)).einstein.value - 1) > 1e-6
    assert repr(found).startswith("Diffusivity: 8 samples, window 0.04072 to 0.06108 ps\n  Einstein: ")
    np.testing.assert_array_equal(diffusivity(run, window=(4.0, 6.0), species="Kr").samples, found.samples)
    with pytest.raises(InputError, match="no atom"):
        diffusivity(run, window=(4.0, 6.0), species=2)


def test_removing_the_center_of_mass_leaves_it_at_rest():
    rng = np.random.default_rng(3)
    v, masses = rng.normal(size=(4, 6, 3)), rng.uniform(1, 9, 6)
    left = np.asarray(remove_center_of_mass(jnp.asarray(v), jnp.asarray(masses)))
    np.testing.assert_allclose(np.einsum("fac,a->fc", left, masses), 0, atol=1e-13)
    np.testing.assert_allclose(left[:, 1] - left[:, 0], v[:, 1] - v[:, 0], atol=1e-13)


def test_random_walk():
    """Independent steps of variance 2DΔt a component; the centre of mass takes 1/N of the motion."""
    d, interval, atoms = 0.37, 0.5, 25
    rng = np.random.default_rng(4)
    steps = np.sqrt(2 * d * interval) * rng.normal(size=(8, 500, atoms, 3))
    positions = jnp.asarray(np.cumsum(steps, axis=1))
    masses = jnp.full(atoms, 2.0)
    found = diffusivity_from_arrays(
        positions, jnp.zeros_like(positions), masses, interval=interval, window=(1.0, 5.0), n_blocks=2
    )
    assert found.samples.shape == (16,)
    assert found.einstein.stderr < 0.03 * d
    assert abs(found.einstein.value - d * (1 - 1 / atoms)) < 5 * found.einstein.stderr
    of_replicas = found.samples.reshape(8, 2).mean(axis=1)
    assert found.einstein.stderr == pytest.approx(of_replicas.std(ddof=1) / np.sqrt(8))


def test_both_routes_on_ornstein_uhlenbeck_velocities(langevin_gas):
    positions, momenta, masses, interval, exact = langevin_gas
    # Ten correlation times into the plateau.
    found = diffusivity_from_arrays(positions, momenta, masses, interval=interval, window=(20.0, 26.0))
    for name in ("einstein", "green_kubo"):
        value, stderr = getattr(found, name)
        assert stderr < 0.06 * exact, name
        assert abs(value - exact) < 5 * stderr, name
    n = np.arange(12)
    expected = 3 * 0.9**n * (1 - 1 / 20)
    assert (np.abs(found.vacf[:12] - expected) < 5 * found.vacf_stderr[:12]).all()
    assert found.window == (20.0, 26.0)
    np.testing.assert_allclose(found.times, interval * np.arange(len(found.msd)))
    assert len(found.msd) == 2 * 130 + 1


def test_drift_changes_nothing(langevin_gas):
    positions, momenta, _, interval, _ = langevin_gas
    positions, momenta = positions[:, :400], momenta[:, :400]
    masses = jnp.linspace(1.0, 9.0, positions.shape[2])
    drift = jnp.asarray([0.3, -1.0, 0.7])
    times = interval * jnp.arange(400.0)
    kwargs = {"interval": interval, "window": (2.0, 4.0)}
    still = diffusivity_from_arrays(positions, momenta, masses, **kwargs)
    moving = diffusivity_from_arrays(
        positions + jnp.outer(times, drift)[None, :, None, :],
        momenta + jnp.outer(masses, drift)[None, None],
        masses,
        **kwargs,
    )
    assert moving.einstein.value == pytest.approx(still.einstein.value, rel=1e-9)
    assert moving.green_kubo.value == pytest.approx(still.green_kubo.value, rel=1e-9)
    np.testing.assert_allclose(moving.msd, still.msd, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moving.vacf, still.vacf, rtol=1e-9, atol=1e-9)


def test_one_trajectory_in_blocks_is_as_many_replicas(langevin_gas):
    positions, momenta, masses, interval, _ = langevin_gas
    kwargs = {"interval": interval, "window": (2.0, 4.0)}
    blocks = diffusivity_from_arrays(positions[0, :400], momenta[0, :400], masses, n_blocks=4, **kwargs)

    def cut(x):
        return x[0, :400].reshape(4, 100, *x.shape[2:])

    replicas = diffusivity_from_arrays(cut(positions), cut(momenta), masses, **kwargs)
    np.testing.assert_array_equal(blocks.samples, replicas.samples)


@pytest.mark.parametrize("max_lag", [1.0, 3.0, 5.0])
def test_max_lag_shortens_the_curves_and_nothing_else(langevin_gas, max_lag):
    """Also when it lies before or inside the window of the fit."""
    positions, momenta, masses, interval, _ = langevin_gas
    data = (positions[:2, :100], momenta[:2, :100], masses)
    kwargs = {"interval": interval, "window": (2.0, 4.0)}
    whole = diffusivity_from_arrays(*data, **kwargs)
    short = diffusivity_from_arrays(*data, max_lag=max_lag, **kwargs)
    assert len(short.times) == len(short.msd) == len(short.vacf) == round(max_lag / interval) + 1
    assert short.einstein == whole.einstein and short.green_kubo == whole.green_kubo


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"window": (2.0, 40.0)}, "window"),
        ({"window": (0.0, 4.0)}, "window"),
        ({"window": (4.0, 2.0)}, "window"),
        ({"window": (2.0, 4.0), "n_blocks": 8}, "window"),
        ({"n_blocks": 0}, "n_blocks"),
        ({"replicas": 1}, "n_blocks"),
        ({"momenta": 99}, "momenta"),
    ],
)
def test_diffusivity_validates_its_input(unchecked, langevin_gas, change, culprit):
    positions, momenta, masses, interval, _ = langevin_gas
    replicas = change.get("replicas", 2)
    frames = change.get("momenta", 100)
    kwargs = {k: v for k, v in change.items() if k in ("window", "n_blocks")}
    with pytest.raises(InputError, match=culprit):
        diffusivity_from_arrays(
            positions[:replicas, :100],
            momenta[:replicas, :frames],
            masses,
            interval=interval,
            **{"window": (2.0, 4.0), **kwargs},
        )


def test_finite_size_correction_of_methane_in_si():
    """99 K, 160 µPa·s, 864 molecules at 440.26 kg/m³; SI by hand, and 0.34 of the literature."""
    volume = 864 * 16.043 * 1.66053906660e-27 / 440.26
    length = volume ** (1 / 3)
    by_hand = 2.837297 * 1.380649e-23 * 99 / (6 * np.pi * 160e-6 * length)
    found = (
        finite_size_correction(temperature=99.0, viscosity=160e-6 * units.PA_S, box_length=length * 1e10)
        / units.M2_PER_S
    )
    assert found == pytest.approx(by_hand, rel=1e-8)
    assert found == pytest.approx(0.34e-9, abs=0.005e-9)


def test_finite_size_correction_goes_as_one_over_length():
    near, far = (finite_size_correction(temperature=99.0, viscosity=1e-3, box_length=b) for b in (20.0, 60.0))
    assert near == pytest.approx(3 * far, rel=1e-14)
    assert finite_size_correction(temperature=99.0, viscosity=1e-3, box_length=np.inf) == 0


@pytest.mark.parametrize("name", ["temperature", "viscosity", "box_length"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_finite_size_correction_refuses(name, value):
    with pytest.raises(InputError, match=name):
        finite_size_correction(**{"temperature": 99.0, "viscosity": 1e-3, "box_length": 20.0, name: value})


@pytest.mark.parametrize("decay", [0.0, 0.8, 0.95])
def test_block_error_of_an_autoregressive_series(decay):
    """AR(1) of unit variance: the variance of the mean is (1 + a)/(1 − a)/n."""
    n = 2**16
    series = ornstein_uhlenbeck(np.random.default_rng(5), decay=decay, shape=(n, 1, 1))[:, 0, 0]
    found = over_blocks(series)
    exact = np.sqrt((1 + decay) / (1 - decay) / n)
    assert found.value == pytest.approx(series.mean())
    assert found.stderr == pytest.approx(exact, rel=0.2)
    assert abs(found.value) < 5 * exact


@pytest.mark.parametrize("series", [np.zeros(7), np.zeros((8, 1))])
def test_blocks_need_a_series(unchecked, series):
    with pytest.raises(InputError, match="at least 8"):
        over_blocks(series)


def test_replicas():
    samples = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    found = over_replicas(samples)
    np.testing.assert_allclose(found.value, [3, 2])
    np.testing.assert_allclose(found.stderr, [2 / np.sqrt(3), 0])
    with pytest.raises(InputError, match="two or more"):
        over_replicas(samples[:1])


def test_a_crystal_is_not_a_liquid_but_random_positions_are():
    rng = np.random.default_rng(6)
    a = 5.7
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cells = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    perfect = a * (cells + corners).reshape(-1, 3) + [0.3, 1.0, -2.0]
    hot = perfect + rng.normal(0, 0.06 * a / np.sqrt(2), (108, 3))
    random = rng.uniform(0, 3 * a, (108, 3))
    replicas = [make_system(r, np.full(108, 18), cell=[3 * a] * 3) for r in (perfect, hot, random)]
    systems = jax.tree.map(lambda *x: jnp.stack(x), *replicas)
    order = crystalline_order(systems, spacing=a / np.sqrt(2))
    assert order[0] == pytest.approx(1, abs=1e-9)
    assert 0.5 < order[1] < 0.95
    assert order[2] < 0.2
    np.testing.assert_array_equal(is_liquid(systems, spacing=a / np.sqrt(2)), [False, False, True])


def test_control_removes_shared_noise():
    """Over many experiments the mean, the smaller scatter and the standard error are right."""
    rng = np.random.default_rng(8)
    control = 5 + rng.normal(size=(2000, 16))
    samples = 3 + 2 * (control - 5) + 0.5 * rng.normal(size=control.shape)
    found = [with_control(y, x, 5.0) for y, x in zip(samples, control, strict=True)]
    values, errors = np.array([f.value for f in found]), np.array([f.stderr for f in found])
    assert abs(values.mean() - 3) < 5 * values.std() / np.sqrt(2000)
    assert values.std() == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.1)
    assert values.std() < 0.3 * samples.mean(axis=1).std()


def test_control_needs_samples():
    samples = np.array([1.0, 2.0, 4.0])
    assert with_control(samples, samples, 0.0) == over_replicas(samples)
    many = np.arange(9.0)
    assert with_control(many, np.ones(9), 0.0) == over_replicas(many)


def test_diffusivity_at_a_temperature_regresses_on_the_kinetic_one(langevin_gas):
    positions, momenta, masses, interval, _ = langevin_gas
    window = (20.0, 26.0)
    plain = diffusivity_from_arrays(positions, momenta, masses, interval=interval, window=window)
    per_replica = (np.asarray(momenta) ** 2 / np.asarray(masses)[:, None]).sum((2, 3)).mean(1)
    kelvin = per_replica / (3 * (len(masses) - 1) * units.KB)
    kwargs = {"interval": interval, "window": window, "temperature": 300.0}
    found = diffusivity_from_arrays(positions, momenta, masses, **kwargs)
    expected = with_control(plain.samples, kelvin, 300.0)
    np.testing.assert_allclose(found.einstein.value, expected.value)
    np.testing.assert_allclose(found.einstein.stderr, expected.stderr)


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (1.234, 0.042, "1.23(4)"),
        (1.234, 0.014, "1.234(14)"),
        (345.0, 42.0, "3.5(4)e2"),
        (-3e-7, 2e-8, "-3.0(2)e-7"),
        (1.0, np.nan, "1 ± nan"),
    ],
)
def test_an_estimate_prints_its_error_in_brackets(value, stderr, text):
    estimate = Estimate(np.asarray(value), np.asarray(stderr))
    assert repr(estimate) == text
    assert (estimate / 2).value == value / 2
    assert repr(over_replicas(np.ones((3, 4)))) == "Estimate(value=float64[4], stderr=float64[4])"


def test_observables_validate_their_input(unchecked):
    one = make_system(np.diag([0.0, 1.0, 2.0]), [18] * 3, cell=[5.0] * 3)
    systems = jax.tree.map(lambda x: x[None], one)
    with pytest.raises(InputError, match="trajectory is of type System"):
        diffusivity(systems, window=(4.0, 6.0))
    for function in (crystalline_order, is_liquid):
        for arguments, match in (
            ((one, 3.0), "must be replicas"),
            ((systems, -3.0), "spacing"),
            ((systems, 90.0), "no wave vector"),
            ((systems.replace(pbc=~systems.pbc), 3.0), "periodic in all directions"),
        ):
            with pytest.raises(InputError, match=match):
                function(arguments[0], spacing=arguments[1])
    frames = jnp.zeros((2, 4, 5, 3))
    for function in (mean_squared_displacement, velocity_autocorrelation):
        with pytest.raises(InputError, match=r"must have shape \[frames, atoms, 3\]"):
            function(frames)
    with pytest.raises(InputError, match="masses have shape"):
        remove_center_of_mass(frames[0], jnp.ones(4))
