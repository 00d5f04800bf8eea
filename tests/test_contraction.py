"""Contraction of integers that can be undone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from difmd.errors import InputError
from difmd.integrators.contraction import bits_for, contract, expand


@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.03, 0.24])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=["float64", "float32"])
def test_contraction_is_undone(dtype, epsilon):
    n_steps, most = 300, 2.0 ** (jnp.finfo(dtype).nmant - 1)
    rng = np.random.default_rng(0)
    start = jnp.asarray(np.round(rng.uniform(-most, most, (20, 3))), dtype)
    kicks = jnp.asarray(np.round(rng.normal(0, most / 1000, (n_steps, 20, 3))), dtype)
    bits = bits_for(start.shape, np.dtype(dtype), epsilon, n_steps)
    lost = jnp.asarray(epsilon, dtype)

    def forth(carry, step):
        found, bits = contract(carry[0], lost, carry[1], step)
        return (found + kicks[step], bits), None

    def back(carry, step):
        return expand(carry[0] - kicks[step], lost, carry[1], step), None

    numbers = jnp.arange(n_steps, dtype=jnp.int32)
    end, kept = jax.jit(lambda c: lax.scan(forth, c, numbers)[0])((start, bits))
    found, empty = jax.jit(lambda c: lax.scan(back, c, numbers, reverse=True)[0])((end, kept))
    np.testing.assert_array_equal(found, start)
    np.testing.assert_array_equal(empty.now, bits.now)
    assert int(empty.n_full) == 0 and int(kept.n_full) < len(bits.full)
    # Two in 1/ε integers share their image with a neighbour: each number stores 144 bits, or less than one.
    if epsilon > 0.1:
        assert int(kept.n_full) > 0
    if epsilon < 0.01:
        assert int(kept.n_full) == 0


@pytest.mark.parametrize("epsilon", [1e-3, 0.2])
def test_contraction_multiplies(epsilon):
    h = jnp.arange(-5000.0, 5000.0).reshape(-1, 1).repeat(3, axis=1)
    found, _ = contract(h, jnp.asarray(epsilon), bits_for(h.shape, np.dtype(float), epsilon, 1), jnp.int32(0))
    np.testing.assert_allclose(found, (1 - epsilon) * h, atol=0.5)


def test_small_factor_raises():
    with pytest.raises(InputError, match=r"friction · dt\) = 0.3: .* at most 0.25"):
        bits_for((2, 3), np.dtype(float), 0.3, 10)
