"""`fit_diffusivity(gradient=)`: every method gives the gradient of D; unsuitable ones are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fit_given_liquid import BOXES, DENSITY, PARAMS, POTENTIAL, T
from test_fit_given_liquid import SAMPLING as GIVEN

from difmd import gradients, units
from difmd.errors import InputError
from difmd.fitting import DiffusivityTarget, fit_diffusivity, given_replicas, state_points
from difmd.fitting.targets.diffusion import diffusion_window, gradients_along
from difmd.sensitivity import reweighting

# 32 steps each way.
SAMPLING = dataclasses.replace(GIVEN, origin_time=16 * units.FS)
WINDOW = diffusion_window(SAMPLING)
TARGET = DiffusivityTarget(temperature=T, diffusivity=60 * units.D, density=DENSITY)
EXACT = {
    "direct": gradients.direct(),
    "checkpointed": gradients.checkpointed(levels=2),
    "forward": gradients.forward(),
    # A window as long as the trajectory.
    "truncated": gradients.truncated_backpropagation(n_steps=WINDOW.n_steps),
}


@pytest.fixture(scope="module")
def replicas():
    return given_replicas(POTENTIAL, BOXES, sampling=SAMPLING)


def along(replicas, method):
    """dA/dθ of each sample as one vector."""
    slopes = gradients_along(POTENTIAL, PARAMS, replicas, T, SAMPLING, jax.random.key(1), gradient=method)
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(slopes)], axis=1)


@pytest.fixture(scope="module")
def default(replicas):
    return along(replicas, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_methods_agree(replicas, default, name):
    np.testing.assert_allclose(along(replicas, EXACT[name]), default, rtol=1e-7)


@pytest.mark.slow
def test_reversible_agrees(replicas, default):
    """It rounds positions to a grid, so that trajectories differ slightly."""
    np.testing.assert_allclose(along(replicas, gradients.reversible()), default, rtol=1e-5)


@pytest.mark.slow
def test_reversible_serves_atoms_that_left_the_cell(replicas, default):
    """They would be outside its grid, but are folded back first."""
    cells = 2.0**20 * replicas.systems.cell[:, :1]
    away = replicas.systems.replace(positions=replicas.systems.positions + cells)
    found = along(replicas._replace(systems=away), gradients.reversible())
    np.testing.assert_allclose(found, default, rtol=1e-4)


@pytest.mark.slow
def test_truncation_bounds_and_biases(replicas, default):
    """Windows of half the trajectory leave out what happened before, and nothing else."""
    half = along(replicas, gradients.truncated_backpropagation(n_steps=WINDOW.n_steps // 2))
    assert np.isfinite(half).all()
    assert not np.allclose(half, default, rtol=1e-3)
    # Most of the gradient comes from the last steps.
    assert np.linalg.norm(half - default) < 2 * np.linalg.norm(default)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (gradients.truncated_backpropagation(n_steps=7), "7.*multiple"),
        (gradients.forward(max_inputs=1), "max_inputs = 1"),
        (reweighting(), r"state_points\(reuse=\)"),
    ],
)
def test_methods_that_cannot_serve_are_refused(replicas, method, message):
    # Without the checks of types that only tests have.
    build = getattr(state_points, "__wrapped__", state_points)
    with pytest.raises(InputError, match=message):
        build(POTENTIAL, PARAMS, [TARGET], sampling=SAMPLING, replicas=[replicas], gradient=method)


@pytest.mark.slow
def test_fitted_parameters_agree(replicas):
    """Two iterations; a truncated gradient changes the steps, but within the largest step."""
    methods = {"default": None, "reversible": gradients.reversible(), **EXACT}
    fitted = {
        name: fit_diffusivity(
            POTENTIAL, PARAMS, [TARGET], sampling=SAMPLING, replicas=[replicas], gradient=method,
            n_iterations=2, key=jax.random.key(2), progress=False,
        ).params
        for name, method in methods.items()
    }  # fmt: skip
    for name, params in fitted.items():
        for leaf, expected in zip(jax.tree.leaves(params), jax.tree.leaves(fitted["default"]), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-3, err_msg=name)
    assert not jnp.array_equal(fitted["default"]["sigma"], PARAMS["sigma"])
