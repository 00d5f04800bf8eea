"""The maximum of long arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd.reductions import largest


@pytest.mark.parametrize("n", [1, 17, 4096, 4097, 70_001])
def test_every_place_is_seen(n):
    find = jax.jit(largest)
    for place in {0, 1, n // 3, n // 2, n - 2, n - 1} & set(range(n)):
        x = np.linspace(-2, -1, n)
        x[place] = 3.0
        assert find(jnp.asarray(x)) == 3.0
        x[place] = np.nan
        assert np.isnan(find(jnp.asarray(x)))
        x[place] = np.inf
        assert np.isposinf(find(jnp.asarray(x)))


def test_replicas_and_gradients_are_those_of_a_plain_maximum():
    x = jax.random.normal(jax.random.key(0), (3, 5000))
    np.testing.assert_array_equal(jax.vmap(largest)(x), x.max(axis=1))
    np.testing.assert_array_equal(jax.grad(largest)(x[0]), jax.grad(jnp.max)(x[0]))
