"""Reweighted averages of oscillators, whose averages are known, and energies of stored states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from difmd import units
from difmd.errors import Flag, InputError, flags_of
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, switched
from difmd.sensitivity import energies_of, log_mixture, reweighted, reweighting
from difmd.simulation.rollouts import rollout
from difmd.system import make_system

T = 300.0
KT = units.KB * T
N = 20_000


def oscillator(k, n=N):
    """Quantiles of the canonical distribution of U = k x²/2: their means have no noise."""
    return jnp.asarray(norm.ppf((np.arange(n) + 0.5) / n) * np.sqrt(KT / k))


def average(k, x, log_sampled):
    return reweighted({"square": x**2}, 0.5 * k * x**2, log_sampled, temperature=T)


@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.5])
def test_average_and_derivative_of_an_oscillator(ratio):
    """⟨x²⟩ = kT/k from states sampled at another k, and n_eff from the weights exp(−(k − k₀)x²/2kT)."""
    sampled = 2.0
    x = oscillator(sampled)
    log_sampled = -0.5 * sampled * x**2 / KT
    k = ratio * sampled
    found = average(k, x, log_sampled)
    np.testing.assert_allclose(found.value["square"], KT / k, rtol=1e-3)
    slope = jax.grad(lambda k: average(k, x, log_sampled).value["square"])(k)
    np.testing.assert_allclose(slope, -KT / k**2, rtol=5e-3)
    np.testing.assert_allclose(found.effective, np.sqrt(2 * ratio - 1) / ratio, rtol=1e-3)
    np.testing.assert_allclose(jnp.sum(found.weights), 1, rtol=1e-12)


def test_derivative_has_the_explicit_part_too():
    x = oscillator(2.0)
    log_sampled = -0.5 * 2.0 * x**2 / KT

    def energy(k):
        return reweighted(0.5 * k * x**2, 0.5 * k * x**2, log_sampled, temperature=T).value

    # kT/2, whatever k is.
    np.testing.assert_allclose(energy(2.5), 0.5 * KT, rtol=1e-3)
    np.testing.assert_allclose(jax.grad(energy)(2.5), 0, atol=1e-3 * KT)


def test_states_of_several_simulations_are_pooled():
    """The density of the mixture is known, and with it the average in between."""
    ks, counts = np.array([1.0, 6.0]), np.array([8000, 3000])
    x = jnp.concatenate([oscillator(k, n) for k, n in zip(ks, counts, strict=True)])
    reduced = 0.5 * jnp.asarray(ks)[:, None] * x[None] ** 2 / KT
    found = log_mixture(reduced, jnp.asarray(counts))
    # Normalised densities, √(k/2πkT) exp(−u).
    parts = counts[:, None] * np.sqrt(ks)[:, None] * np.exp(-np.asarray(reduced))
    exact = np.log(parts.sum(axis=0))
    np.testing.assert_allclose(found - exact, np.mean(found - exact), atol=2e-3)
    for k in (1.0, 2.5, 6.0):
        np.testing.assert_allclose(average(k, x, found).value["square"], KT / k, rtol=2e-3)
    alone = average(1.0, oscillator(6.0), -0.5 * 6.0 * oscillator(6.0) ** 2 / KT)
    assert alone.effective < 0.05 < average(1.0, x, found).effective


def test_one_simulation_is_a_mixture_too():
    x = oscillator(2.0, 1000)
    reduced = x[None] ** 2 / KT
    single = average(3.0, x, log_mixture(reduced, jnp.asarray([1000])))
    np.testing.assert_allclose(single.weights, average(3.0, x, -reduced[0]).weights, rtol=1e-9)


def test_disconnected_simulations_give_nan():
    x = jnp.concatenate([oscillator(1.0, 500), 50 + oscillator(1.0, 500)])
    reduced = 0.5 * jnp.stack([x**2, (x - 50) ** 2]) / KT
    assert jnp.isnan(log_mixture(reduced, jnp.asarray([500, 500]))).all()


def test_pooling_converges_in_single_precision():
    ks, counts = jnp.asarray([1.0, 6.0]), jnp.asarray([800, 300])
    x = jnp.concatenate([oscillator(1.0, 800), oscillator(6.0, 300)])
    reduced = 0.5 * ks[:, None] * x[None] ** 2 / KT
    found = log_mixture(reduced.astype(jnp.float32), counts)
    np.testing.assert_allclose(found, log_mixture(reduced, counts), atol=1e-4)


def liquid():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3) * 4.0
    frames = [
        make_system(grid + rng.normal(0, 0.3, grid.shape), [18] * 27, cell=[12.0] * 3) for _ in range(3)
    ]
    potential = lennard_jones(["Ar"], sigma=3.4, epsilon=0.0104, cutoff=6.0, truncation=switched(5.0))
    return potential, potential.init(jax.random.key(0)), frames


@pytest.mark.slow
def test_energies_of_stored_states():
    potential, params, frames = liquid()
    systems = jax.tree.map(lambda *x: jnp.stack(x), *frames)
    lists = neighbor_list(systems, cutoff=6.0, slack=1.2)
    one = jax.tree.map(lambda x: x[0], lists)
    energies, status = jax.jit(lambda p: energies_of(potential, p, systems, one))(params)
    assert flags_of(status) == 0

    def alone(params):
        return jnp.stack([potential.apply(params, f, neighbor_list(f, cutoff=6.0)) for f in frames])

    np.testing.assert_allclose(energies, alone(params), rtol=1e-12)
    weights = jnp.asarray([1.0, -2.0, 0.5])
    found = jax.grad(lambda p: weights @ energies_of(potential, p, systems, one)[0])(params)
    expected = jax.grad(lambda p: weights @ alone(p))(params)
    for name in params:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10)
    # A frame that needs more room than there is.
    dense = systems.replace(positions=systems.positions.at[1].multiply(0.5))
    _, status = energies_of(potential, params, dense.replace(cell=0.6 * dense.cell), one)
    assert flags_of(status) & Flag.NEIGHBOR_OVERFLOW


def test_what_it_is_not_for_is_refused():
    with pytest.raises(InputError, match=r"least_effective = 1\.2"):
        reweighting(least_effective=1.2)
    # Without the checks of types that only tests have.
    with pytest.raises(InputError, match="does not differentiate trajectories"):
        rollout.__wrapped__(None, None, None, None, None, n_steps=1, gradient=reweighting())
