"""The learned pair potential against its formula, and invalid arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.potentials import pair_prior

RNG = np.random.default_rng(1)


def basis(r, cutoff, n_radial, p):
    """The functions themselves; [functions, points]."""
    x = r / cutoff
    n = np.arange(1, n_radial + 1)[:, None]
    end = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    return np.sqrt(2) * np.sin(np.pi * n * x) / x * end


def molecule(species):
    positions = np.array([[0.0, 0.0, 0.0], [1.1, 0.2, 0.0], [0.1, 2.3, 1.0], [6.5, 0.0, 0.0]])
    return difmd.make_system(positions, species)


@pytest.mark.parametrize("n_radial", [1, 8])
@pytest.mark.parametrize("species", [(1, 1, 1, 1), (1, 8, 1, 8)], ids=["one", "two"])
def test_energy_is_the_sum_of_functions_and_linear_in_its_params(n_radial, species):
    kinds = sorted(set(species))
    c = RNG.normal(size=(len(kinds), len(kinds), n_radial))
    c = 0.5 * (c + c.swapaxes(0, 1))
    potential = pair_prior(kinds, cutoff=4.0, n_radial=n_radial, p=5, coefficients=c)
    system = molecule(species)
    neighbors = difmd.neighbor_list(system, cutoff=6.0)
    params = potential.init(jax.random.key(0))
    found, slopes = jax.jit(jax.value_and_grad(lambda p: potential.apply(p, system, neighbors)))(params)
    functions, expected = np.zeros_like(c), 0.0
    r = np.asarray(system.positions)
    for i in range(4):
        for j in range(i):
            distance = np.linalg.norm(r[i] - r[j])
            if distance < 4.0:
                a, b = kinds.index(species[i]), kinds.index(species[j])
                values = basis(distance, 4.0, n_radial, 5)[:, 0]
                expected += c[a, b] @ values
                functions[a, b] += 0.5 * values
                functions[b, a] += 0.5 * values
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    np.testing.assert_allclose(slopes["coefficients"], functions, rtol=1e-10, atol=1e-12)


def test_energy_is_zero_before_training():
    potential, system = pair_prior(["H"], cutoff=3.0), molecule([1] * 4)
    params = potential.init(jax.random.key(0))
    neighbors = difmd.neighbor_list(system, cutoff=3.0)
    assert params["coefficients"].shape == (1, 1, 8)
    slope = jax.jit(jax.grad(lambda p: potential.apply(p, system, neighbors)))(params)
    assert jax.jit(potential.apply)(params, system, neighbors) == 0
    assert np.all(np.asarray(slope["coefficients"]) != 0)


def test_functions_are_orthonormal():
    """With the weight x², without the envelope."""
    x, w = np.polynomial.legendre.leggauss(40)
    x, w = 0.5 * (x + 1), 0.5 * w
    values = basis(x, 1.0, 5, 10**6)
    np.testing.assert_allclose((values * w * x**2) @ values.T, np.eye(5), atol=1e-8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"species": ["Xx"]}, "neither a chemical symbol"),
        ({"cutoff": -1.0}, "cutoff = -1.0"),
        ({"n_radial": 0}, "n_radial = 0"),
        ({"p": 0}, "p = 0"),
        ({"coefficients": [1.0, 2.0]}, "give 8 finite numbers"),
        ({"coefficients": [float("nan")] * 8}, "give 8 finite numbers"),
        ({"coefficients": np.arange(32.0).reshape(2, 2, 8)}, "symmetric table"),
    ],
)
def test_invalid_arguments_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        pair_prior(**{"species": ["H", "O"], **settings})


def test_params_of_another_potential_are_refused():
    potential, system = pair_prior(["H"], cutoff=3.0), molecule([1] * 4)
    neighbors = difmd.neighbor_list(system, cutoff=3.0)
    for params in ({}, {"epsilon": jnp.ones(1)}, jnp.ones((1, 1, 8))):
        with pytest.raises(InputError, match=r"lack \['coefficients'\]"):
            difmd.evaluate(potential, params, system, neighbors)
    with pytest.raises(InputError, match=r"expected \[1, 1, 8\]"):
        difmd.evaluate(potential, {"coefficients": jnp.ones((1, 1, 7))}, system, neighbors)
    with pytest.raises(InputError, match=r"list reaches 2.0 Å, the potential 3.0 Å"):
        short = difmd.neighbor_list(system, cutoff=2.0)
        difmd.evaluate(potential, potential.init(jax.random.key(0)), system, short)
