"""`fit` over several terms: optima, error bars, weights, priors, bounds, and kills."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from killed import run_killed

from difmd._internal.checkpoint import fingerprint
from difmd.errors import InputError
from difmd.fitting import (
    FitError,
    bounded,
    fit,
    gauss_newton,
    identity,
    least_squares,
    logarithmic,
    prior,
    scalar_loss,
)

X = np.array([[1.0, 0.5], [1.0, 1.0], [1.0, 2.0], [1.0, 4.0]])
Y = np.array([1.1, 1.4, 2.2, 3.3])
SPREAD = np.array([0.1, 0.2, 0.1, 0.3])
START = {"a": jnp.asarray(1.0), "b": jnp.asarray([0.3])}


def near(value):
    return lambda params: params["a"][None] - value


def line(params):
    """(Xθ − y)/σ."""
    theta = jnp.stack([params["a"], params["b"][0]])
    return (jnp.asarray(X) @ theta - jnp.asarray(Y)) / jnp.asarray(SPREAD)


def solved(terms, params=None, **changes):
    settings = {"n_iterations": 2, "key": jax.random.key(0), "transform": identity(), "progress": False}
    settings["optimizer"] = gauss_newton(max_step=1e9, full_steps=100)
    with jax.numpy_dtype_promotion("standard" if "optimizer" in changes else "strict"):
        return fit(START if params is None else params, terms, **{**settings, **changes})


def vector(params):
    return np.array([float(params["a"]), float(params["b"][0])])


def test_a_line_and_its_errors():
    """Weighted least squares, whose optimum and covariance are known."""
    scaled = X / SPREAD[:, None]
    normal = scaled.T @ scaled
    expected = np.linalg.solve(normal, scaled.T @ (Y / SPREAD))
    found = solved([least_squares(line, noise=1.0)])
    np.testing.assert_allclose(vector(found.params), expected, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(normal), rtol=1e-10)
    np.testing.assert_allclose(vector(found.stderr), np.sqrt(np.diagonal(np.linalg.inv(normal))), rtol=1e-10)
    # A prediction at x = 10.
    at = np.array([1.0, 10.0])
    gradient = {"a": jnp.asarray(at[0]), "b": jnp.asarray(at[1:])}
    expected = np.sqrt(at @ np.linalg.inv(normal) @ at)
    assert found.stderr_of(gradient) == pytest.approx(expected, rel=1e-10)


def test_noise_that_is_not_known_is_that_of_what_remains():
    """Where the errors of the points are only known up to a factor."""
    known, found = (solved([least_squares(line, noise=noise)]) for noise in (1.0, None))
    rest = np.sum(np.asarray(line(found.params)) ** 2) / (len(Y) - 2)
    np.testing.assert_allclose(found.covariance, rest * known.covariance, rtol=1e-8)


def test_errors_are_those_of_repeated_experiments():
    """Each time with other noise; unequal weights make another estimator, and its covariance another one."""
    rng = np.random.default_rng(0)
    draws = Y + SPREAD * rng.normal(size=(4000, 4))
    # As for equal errors, which they are not.
    estimates = draws @ np.linalg.solve(X.T @ X, X.T).T
    plain = least_squares(lambda p: line(p) * jnp.asarray(SPREAD), noise=jnp.asarray(SPREAD))
    found = solved([plain])
    np.testing.assert_allclose(np.cov(estimates.T), found.covariance, rtol=0.1)


def test_errors_in_other_coordinates():
    log = solved([least_squares(line, noise=1.0)], transform=logarithmic(), n_iterations=12)
    plain = solved([least_squares(line, noise=1.0)])
    np.testing.assert_allclose(vector(log.params), vector(plain.params), rtol=1e-8)
    np.testing.assert_allclose(log.covariance, plain.covariance, rtol=1e-5)


def test_what_the_data_do_not_determine_has_no_error_bar():
    def blind(params):
        return jnp.stack([params["a"] - 2.0, params["a"] - 2.5]) + 0 * params["b"]

    start = {"a": jnp.asarray(1.0), "b": jnp.asarray([0.3])}
    # Damped, as the normal equations are singular.
    found = solved([least_squares(blind, noise=1.0)], start, optimizer=optax.sgd(0.25))
    assert np.isnan(found.covariance).all()


def test_weights_and_their_schedules():
    terms = [
        least_squares(near(1.0), weight=3.0, name="one"),
        least_squares(near(5.0), weight=lambda k: 1.0 if k < 2 else 9.0, name="other"),
    ]
    start = {"a": jnp.asarray(1.5)}
    assert float(solved(terms, start, n_iterations=1).params["a"]) == pytest.approx((3 * 1 + 5) / 4)
    found = solved(terms, start, n_iterations=3)
    assert float(found.params["a"]) == pytest.approx((3 * 1 + 9 * 5) / 12)
    entry = found.history[-1]
    assert entry["losses"] == {"one": pytest.approx(1.0), "other": pytest.approx(9.0)}
    assert entry["loss"] == pytest.approx(3 * 1 + 9 * 9)
    # With the weights of the end, which best parameters are judged by; those of the start are 1.5.
    assert found.best_loss == pytest.approx(84)
    assert found.best_loss < 3 * 0.25 + 9 * 12.25
    assert float(found.best_params["a"]) == pytest.approx(2.0)


def test_noise_known_for_some_terms_only():
    """The residuals of one term say nothing about the noise of another."""
    held = prior({"b": jnp.asarray([5.0])}, {"b": jnp.asarray([1.0])}, weight=1e-6)
    found, alone = solved([least_squares(line), held]), solved([least_squares(line)])
    np.testing.assert_allclose(found.covariance, alone.covariance, rtol=1e-3)


def test_a_prior_is_more_data():
    """The mean of two normal distributions."""
    width = 0.05
    scaled = X / SPREAD[:, None]
    normal = scaled.T @ scaled + np.diag([0, 1 / width**2])
    expected = np.linalg.solve(normal, scaled.T @ (Y / SPREAD) + [0, 0.7 / width**2])
    held = prior({"b": jnp.asarray([0.7])}, {"b": jnp.asarray([width])})
    found = solved([least_squares(line, noise=1.0), held])
    np.testing.assert_allclose(vector(found.params), expected, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(normal), rtol=1e-9)
    relative = prior({"b": 0.7}, {"b": 0.1}, relative=True)
    evaluation, _ = relative.evaluate(START, (), None, lambda *_: None)
    assert float(evaluation.loss) == pytest.approx((np.log(0.3 / 0.7) / 0.1) ** 2)


def test_bounds():
    low, high = {"a": 0.0, "b": np.array([0.1])}, {"a": 1.5, "b": np.array([0.5])}
    limits = bounded(low, high)
    back = limits.from_free(limits.to_free(START))
    np.testing.assert_allclose(vector(back), vector(START), rtol=1e-12)
    # The optimum has b = 0.63, beyond them.
    found = solved([least_squares(line)], transform=limits, n_iterations=60, optimizer=optax.adam(0.5))
    assert 0.49 < float(found.params["b"][0]) < 0.5
    with pytest.raises(InputError, match=r"\['b'\].*not between"):
        limits.to_free({"a": jnp.asarray(1.0), "b": jnp.asarray([0.5])})
    with pytest.raises(InputError, match=r"\['a'\].*not below"):
        bounded({"a": 1.0}, {"a": 1.0})


def test_a_loss_without_residuals():
    def valley(params):
        return (params["a"] - 2.0) ** 2 + jnp.sum((params["b"] - 1.0) ** 4)

    found = solved(
        [scalar_loss(valley), prior({"a": 2.0}, {"a": 1.0})], optimizer=optax.adam(0.05), n_iterations=200
    )
    assert found.best_loss < 0.01
    assert found.covariance is None
    with pytest.raises(InputError, match="no covariance"):
        _ = found.stderr
    with pytest.raises(FitError, match="gauss_newton.*optax.adam"):
        solved([scalar_loss(valley)])


@pytest.mark.parametrize(
    ("terms", "culprit"),
    [
        ([], "at least one"),
        ([least_squares(line), least_squares(line)], "a different name"),
        ([least_squares(line, name="loss")], "'loss'"),
        ([least_squares(line, weight=-1.0)], "weight of least_squares = -1.0"),
    ],
)
def test_bad_terms_are_refused(terms, culprit):
    with pytest.raises(InputError, match=culprit):
        solved(terms)


def test_bad_priors_are_refused():
    with pytest.raises(InputError, match="center has"):
        prior({"a": 1.0}, {"b": 1.0})
    with pytest.raises(InputError, match="width of a"):
        prior({"a": 1.0}, {"a": 0.0})
    with pytest.raises(FitError, match="no parameter c; there are a, b"):
        solved([prior({"c": 1.0}, {"c": 1.0})])
    with pytest.raises(FitError, match="not \\[residuals\\]"):
        solved([least_squares(lambda p: p["a"])])


def test_a_fit_is_prolonged(tmp_path):
    short = solved([least_squares(line)], optimizer=optax.adam(0.1), folder=tmp_path)
    long = solved([least_squares(line)], optimizer=optax.adam(0.1), folder=tmp_path, n_iterations=4)
    uninterrupted = solved([least_squares(line)], optimizer=optax.adam(0.1), n_iterations=4)
    assert long.history == uninterrupted.history and long.history[:2] == short.history
    np.testing.assert_array_equal(vector(long.params), vector(uninterrupted.params))


@pytest.mark.parametrize(
    "change",
    [
        {"terms": [least_squares(near(2.0))]},
        {"terms": [least_squares(near(1.0), weight=2.0)]},
        {"terms": [least_squares(near(1.0)), prior({"b": 1.0}, {"b": 0.1})]},
        {"transform": bounded({"a": 0.0, "b": 0.0}, {"a": 3.0, "b": 3.0})},
        {"optimizer": optax.adam(0.1)},
        {"key": jax.random.key(1)},
    ],
    ids=["data", "weight", "another term", "bounds", "optimizer", "seed"],
)
def test_checkpoints_of_other_fits_are_refused(tmp_path, change):
    settings = {
        "terms": [least_squares(near(1.0))],
        "transform": bounded({"a": 0.0, "b": 0.0}, {"a": 2.0, "b": 2.0}),
        "optimizer": optax.sgd(0.1),
        "folder": tmp_path,
    }
    solved(**settings)
    with pytest.raises(InputError, match="another fit|other terms"):
        solved(**{**settings, **change})


def test_priors_on_other_parameters_are_other_priors():
    first, second = (prior({name: 1.0}, {name: 0.1}).settings(START) for name in ("a", "b"))
    assert fingerprint(first) != fingerprint(second)


KILLED = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
jax.config.update("jax_enable_x64", True)
from difmd.fitting import fit, least_squares, prior

def rosenbrock(params):
    return jnp.stack([10 * (params["b"] - params["a"] ** 2), 1 - params["a"]])

start = {"a": jnp.asarray(0.4), "b": jnp.asarray(1.9)}
terms = [least_squares(rosenbrock), prior({"a": 1.1}, {"a": 3.0})]
found = fit(
    start, terms, n_iterations=300, key=jax.random.key(0), optimizer=optax.adam(0.02), folder=sys.argv[1],
    progress=False, on_iteration=lambda _: print("x", end="", flush=True),
)
np.savez(sys.argv[2], **{k: np.asarray(v) for k, v in found.params.items()}, loss=found.best_loss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_kills", [1, 20])
def test_killed_fit_ends_with_the_same_bits(tmp_path, n_kills):
    assert run_killed(KILLED, tmp_path / "whole", tmp_path / "uninterrupted.npz", None)
    rng = np.random.default_rng(1)
    for _ in range(n_kills):
        assert not run_killed(KILLED, tmp_path / "killed", tmp_path / "killed.npz", rng.uniform(0, 0.02))
    assert run_killed(KILLED, tmp_path / "killed", tmp_path / "killed.npz", None)
    uninterrupted, killed = np.load(tmp_path / "uninterrupted.npz"), np.load(tmp_path / "killed.npz")
    for name in ("a", "b", "loss"):
        np.testing.assert_array_equal(uninterrupted[name], killed[name])


def test_parameters_to_use():
    """The last parameters if the optimiser averages over its steps, otherwise the best ones."""
    averaged = solved([least_squares(line, noise=1.0)])
    np.testing.assert_array_equal(vector(averaged.params), vector(averaged.last_params))
    # Steps that grow: the first parameters are the best.
    diverging = solved([least_squares(line, noise=1.0)], optimizer=optax.sgd(1.0), n_iterations=3)
    np.testing.assert_array_equal(vector(diverging.params), vector(diverging.best_params))
    np.testing.assert_allclose(vector(diverging.params), vector(START))
    assert diverging.history[0]["loss"] == diverging.best_loss < diverging.history[-1]["loss"]
    assert not np.allclose(vector(diverging.last_params), vector(START))


def test_results_are_summarised(tmp_path, monkeypatch):
    found = solved([least_squares(line, noise=1.0)])
    rows = found.summary()
    assert rows["n_iterations"] == 2 and rows["best_loss"] == found.best_loss
    assert rows["a"] == float(found.params["a"]) and rows["b_stderr"] == float(found.stderr["b"][0])
    for text in (repr(found), found._repr_html_()):
        assert f"{rows['a']:.6g} ± {rows['a_stderr']:.2g}" in text
    assert len(repr(found).splitlines()) <= 6
    found.plot(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 1000
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        found.to_pandas()


def test_history_as_a_table():
    pandas = pytest.importorskip("pandas")
    found = solved([least_squares(line, noise=1.0)])
    table = found.to_pandas()
    assert isinstance(table, pandas.DataFrame) and len(table) == 2
    assert list(table["params.b"]) == [entry["params"]["b"][0] for entry in found.history]
    assert "least_squares.residuals[3]" in table
