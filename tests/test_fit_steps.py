"""What a step of a fit is made of: the optimiser, coordinates, residuals and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from difmd import units
from difmd.errors import InputError
from difmd.fitting import (
    absolute_residual,
    gauss_newton,
    identity,
    logarithmic,
    relative_residual,
)
from difmd.fitting.targets.diffusion import moving_mean
from difmd.integrators import draw_momenta
from difmd.neighbors import neighbor_list, rebuild
from difmd.potentials import lennard_jones, switched
from difmd.sensitivity import equilibrium_gradient
from difmd.sensitivity.diffusion import DiffusionWindow, diffusion_sample

# Optimiser and coordinates


def newton(optimizer, residual, x, n_steps):
    """Iterates of a fit with an exact Jacobian."""
    state, path = optimizer.init(x), [x]
    for _ in range(n_steps):
        jacobian = jax.jacfwd(residual)(x)
        step, state = optimizer.update(
            x,
            state,
            x,
            residuals=residual(x),
            jacobian=jacobian,
            jacobian_stderr=jax.tree.map(jnp.zeros_like, jacobian),
        )
        x = optax.apply_updates(x, step)
        path.append(x)
    return path


def test_gauss_newton_solves_a_nonlinear_least_squares_problem():
    t = jnp.linspace(0.0, 2.0, 7)
    data = 2.5 * jnp.exp(-1.3 * t)

    def residual(x):
        return x["a"][0] * jnp.exp(-x["b"] * t) - data

    start = {"a": jnp.asarray([2.0]), "b": jnp.asarray(1.0)}
    path = newton(gauss_newton(max_step=0.4, full_steps=20), residual, start, 9)
    assert path[-1]["a"][0] == pytest.approx(2.5, rel=1e-9)
    assert path[-1]["b"] == pytest.approx(1.3, rel=1e-9)


def test_gauss_newton_averages_after_the_full_steps():
    """For r = x a step of gain g leaves (1 − g) x; with the origin moved along, steps show the gains."""
    optimizer = gauss_newton(max_step=1e9, full_steps=2)
    state, gains = optimizer.init(jnp.zeros(1)), []
    for _ in range(5):
        step, state = optimizer.update(
            jnp.zeros(1),
            state,
            residuals=jnp.ones(1),
            jacobian=jnp.ones((1, 1)),
            jacobian_stderr=jnp.zeros((1, 1)),
        )
        gains.append(-float(step[0]))
    np.testing.assert_allclose(gains, [1, 1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-12)


def test_gauss_newton_respects_the_largest_step():
    optimizer = gauss_newton(max_step=0.05)
    jacobian = jnp.asarray([[1.0, 0.0], [0.0, 2.0]])
    kwargs = {"jacobian": jacobian, "jacobian_stderr": jnp.zeros((2, 2))}
    step, _ = optimizer.update(
        jnp.zeros(2), optimizer.init(jnp.zeros(2)), residuals=jnp.asarray([3.0, -3.0]), **kwargs
    )
    np.testing.assert_allclose(step, [-0.05, 0.025], rtol=1e-12)
    step, _ = optimizer.update(
        jnp.zeros(2), optimizer.init(jnp.zeros(2)), residuals=jnp.asarray([0.03, 0.02]), **kwargs
    )
    np.testing.assert_allclose(step, [-0.03, -0.01], rtol=1e-12)


def test_gauss_newton_leaves_an_undetermined_direction_alone():
    """The Jacobian of the second coordinate is noise s; a damped step is at most |r|/(2 s √n)."""
    n, noise, rng = 3, 0.5, np.random.default_rng(0)
    residuals = jnp.asarray([0.02, 0.015, 0.025])
    bound = float(jnp.linalg.norm(residuals)) / (2 * noise * np.sqrt(n))
    optimizer = gauss_newton(max_step=1e9)
    steps = {True: [], False: []}
    for _ in range(60):
        jacobian = jnp.stack([jnp.full(n, 5.0), jnp.asarray(rng.normal(0, noise, n))], axis=1)
        for known in steps:
            error = jnp.zeros((n, 2)).at[:, 1].set(noise if known else 0.0)
            step, _ = optimizer.update(
                jnp.zeros(2),
                optimizer.init(jnp.zeros(2)),
                residuals=residuals,
                jacobian=jacobian,
                jacobian_stderr=error,
            )
            steps[known].append(np.asarray(step))
    damped, plain = np.array(steps[True]), np.array(steps[False])
    assert np.abs(damped[:, 1]).max() < bound
    assert np.abs(plain[:, 1]).max() > 2 * bound
    np.testing.assert_allclose(damped[:, 0], -0.004, rtol=0.1)


def test_coordinates():
    params = {"sigma": jnp.asarray([3.6]), "epsilon": jnp.asarray([0.012])}
    log = logarithmic()
    np.testing.assert_allclose(log.to_free(params)["sigma"], np.log([3.6]))
    back = log.from_free(log.to_free(params))
    np.testing.assert_allclose(back["epsilon"], params["epsilon"], rtol=1e-15)
    with pytest.raises(InputError, match="epsilon.*identity"):
        log.to_free({**params, "epsilon": jnp.asarray([-0.1])})
    assert identity().from_free(identity().to_free(params)) is params


def test_residuals():
    value, measured = jnp.asarray([2.0, 3.0]), jnp.asarray([1.0, 3.0])
    np.testing.assert_allclose(relative_residual(value, measured), [np.log(2), 0])
    np.testing.assert_allclose(absolute_residual(value, measured), [1 / np.sqrt(5), 0])


# Gradients


def test_equilibrium_gradient_of_an_oscillator():
    """⟨x(t)²⟩ = kT/k for starts from the canonical ensemble, so that d⟨x(t)²⟩/dk = −kT/k² exactly.

    Only the sum of both terms gives it: along the trajectory x(t) = x cos ωt + v sin ωt/ω, and through
    the distribution of its start.
    """
    k, mass, time, temperature = 2.0, 1.5, 0.9, 300.0
    kt = units.KB * temperature
    x, v = np.random.default_rng(8).normal(size=(2, 40_000, 5))
    x, v = jnp.asarray(x * np.sqrt(kt / k)), jnp.asarray(v * np.sqrt(kt / mass))

    def value(k, x, v):
        omega = jnp.sqrt(k / mass)
        return (x * jnp.cos(omega * time) + v * jnp.sin(omega * time) / omega) ** 2

    along = jax.vmap(jax.grad(value), (None, 0, 0))(k, x[:, 0], v[:, 0])
    data = (value(k, x, v), {"k": 0.5 * x**2}, {"k": along})
    found = equilibrium_gradient(*data, temperature=temperature)
    exact = -kt / k**2
    assert found.gradient_stderr["k"] < 0.05 * abs(exact)
    assert abs(found.gradient["k"] - exact) < 5 * found.gradient_stderr["k"]
    assert abs(found.value - kt / k) < 5 * found.value_stderr
    assert found.value_stderr < 0.02 * kt / k
    np.testing.assert_allclose(found.along["k"] + found.initial["k"], found.gradient["k"], rtol=1e-12)
    part = equilibrium_gradient(*data, temperature=temperature, initial_state_term=False)
    assert abs(part.gradient["k"] - exact) > 20 * part.gradient_stderr["k"]
    assert part.gradient["k"] == pytest.approx(float(found.along["k"]), rel=1e-12)


def test_equilibrium_gradient_errors_are_those_of_repeats():
    """The error bar of ⟨x²⟩'s gradient agrees with the scatter of independent repeats."""
    kt = units.KB * 300.0
    x = jnp.asarray(np.random.default_rng(9).normal(size=(50, 200, 2)) * np.sqrt(kt))
    none = jnp.zeros(2)

    def gradient(x):
        found = equilibrium_gradient(x**2, 0.5 * x**2, none, temperature=300.0)
        return found.gradient, found.gradient_stderr

    values, errors = jax.vmap(gradient)(x)
    assert jnp.std(values) == pytest.approx(float(jnp.mean(errors)), rel=0.35)
    # Unbiased: the means are those of the same sample.
    assert abs(jnp.mean(values) + kt) < 5 * jnp.std(values) / np.sqrt(50)


def test_kinetic_control_reduces_noise():
    """Starts of an oscillator: ∂U/∂k at an origin is independent of the kinetic energy there.

    Along one Newtonian trajectory the two sum to a constant, and the noise of their covariance is that of
    the covariance of x² with ∂U/∂k. The gradient stays right, the error bar is that of repeats, and it is
    smaller.
    """
    temperature, repeats, n_replicas, n_origins = 300.0, 60, 64, 16
    kt = units.KB * temperature
    x, v = np.sqrt(kt) * np.random.default_rng(10).normal(size=(2, repeats, n_replicas, 1))
    phase = np.linspace(0, np.pi, n_origins, endpoint=False)
    x, v = (
        jnp.asarray(x * np.cos(phase) + v * np.sin(phase)),
        jnp.asarray(v * np.cos(phase) - x * np.sin(phase)),
    )
    none, values = jnp.zeros(2), x**2 + 2 * v**2

    def gradient(values, x, v, is_controlled):
        control = (v**2 / 2 - kt / 2) / kt if is_controlled else None
        found = equilibrium_gradient(values, 0.5 * x**2, none, temperature=temperature, control=control)
        return found.gradient, found.gradient_stderr

    errors = {}
    for is_controlled in (False, True):
        found, errors[is_controlled] = jax.vmap(lambda *a, c=is_controlled: gradient(*a, c))(values, x, v)
        # ⟨x² + 2v²⟩ with the starts that k changes: v does not depend on it, and ⟨x²⟩ = kT/k.
        assert abs(jnp.mean(found) + kt) < 5 * jnp.std(found) / np.sqrt(repeats)
        assert jnp.std(found) == pytest.approx(float(jnp.mean(errors[is_controlled])), rel=0.35)
    assert jnp.mean(errors[True] ** 2) < 0.6 * jnp.mean(errors[False] ** 2)


def test_kinetic_control_of_arrays_is_that_of_their_numbers():
    x, v = (jnp.asarray(z) for z in np.random.default_rng(12).normal(size=(2, 20, 6)))
    slopes = jnp.stack([x**2, x**4], axis=-1)
    settings = {"temperature": 300.0, "control": v**2 - 1}
    both = equilibrium_gradient(x**2 + v**2, slopes, jnp.zeros((2, 2)), **settings)
    for k in range(2):
        one = equilibrium_gradient(x**2 + v**2, slopes[..., k], jnp.zeros(2), **settings)
        np.testing.assert_allclose(both.gradient[k], one.gradient, rtol=1e-12)
        np.testing.assert_allclose(both.gradient_stderr[k], one.gradient_stderr, rtol=1e-12)


def test_kinetic_control_needs_some_replicas():
    """With few replicas it is the plain covariance."""
    x, v = (jnp.asarray(z) for z in np.random.default_rng(11).normal(size=(2, 4, 3)))
    plain, controlled = (
        equilibrium_gradient(x**2, x**2, jnp.zeros(2), temperature=300.0, control=c) for c in (None, v**2 - 1)
    )
    assert plain.gradient == controlled.gradient and plain.gradient_stderr == controlled.gradient_stderr


ARGON = lennard_jones(["Ar"], sigma=3.4, epsilon=120 * units.KB, cutoff=6.0, truncation=switched(5.0))


@pytest.fixture(scope="module")
def sample_and_gradient(argon):
    """A of a short window and its derivatives as a function of the parameters, compiled once."""
    window = DiffusionWindow(dt=5 * units.FS, save_every=4, rebuild_every=4, first=3, last=5, origins=1)
    neighbors = neighbor_list(argon, cutoff=6.0, skin=1.0, slack=1.4)
    momenta = draw_momenta(jax.random.key(2), argon, 100.0)

    def sample(params):
        return diffusion_sample(ARGON, params, argon, momenta, neighbors, window)

    return jax.jit(jax.value_and_grad(sample, has_aux=True)), momenta


@pytest.mark.slow
def test_diffusion_sample_rebuilds_the_list(argon):
    """Any list of enough capacity gives the same sample, that of another configuration too."""
    window = DiffusionWindow(dt=5 * units.FS, save_every=4, rebuild_every=4, first=1, last=2, origins=0)
    neighbors = neighbor_list(argon, cutoff=6.0, skin=1.0, slack=1.4)
    other = argon.replace(positions=argon.positions[::-1])
    momenta = draw_momenta(jax.random.key(2), argon, 100.0)
    params = ARGON.init(jax.random.key(0))

    @jax.jit
    def sample(neighbors):
        return diffusion_sample(ARGON, params, argon, momenta, neighbors, window)

    value, status = sample(neighbors)
    again, _ = sample(rebuild(other, neighbors))
    assert int(status.flags) == 0 and again == value


def test_origins_of_the_initial_state_term_are_those_of_the_sample():
    """The moving mean lies about the frame whose energy slope it meets: a line is left as it is."""
    line = jnp.arange(24.0).reshape(2, 12)
    np.testing.assert_array_equal(moving_mean(line, 3), line[:, 3:-3])
    np.testing.assert_array_equal(moving_mean(line, 0), line)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sigma", "epsilon"])
def test_diffusion_sample_against_central_differences(sample_and_gradient, name):
    compute, _ = sample_and_gradient
    params = ARGON.init(jax.random.key(0))
    (value, status), gradient = compute(params)
    assert int(status.flags) == 0
    step = 1e-5 * params[name]
    ahead, behind = (compute({**params, name: params[name] + s})[0][0] for s in (step, -step))
    expected = float(ahead - behind) / (2 * float(step[0]))
    assert gradient[name][0] == pytest.approx(expected, rel=1e-5)
    assert abs(expected * float(params[name][0])) > 0.01 * value


@pytest.mark.slow
def test_diffusion_sample_of_free_flight(sample_and_gradient, argon):
    """Without forces r(s+t) − r(s−t) = 2vt, so that A = ⟨v²⟩ t̄/3."""
    compute, momenta = sample_and_gradient
    (value, status), _ = compute({"sigma": jnp.asarray([3.4]), "epsilon": jnp.asarray([1e-30])})
    assert int(status.flags) == 0
    square = np.mean(np.sum(np.asarray(momenta) ** 2, axis=1)) / float(argon.masses[0]) ** 2
    assert value == pytest.approx(square * 4 * 20 * units.FS / 3, rel=1e-9)
