"""Maxima and cumulative sums of long arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd._internal.reductions import cumulative, full_rows, largest


def test_nan_propagates_in_many_replicas():
    x = np.zeros((64, 300), np.float32)
    x[np.arange(64), np.arange(64) * 4] = np.nan
    assert np.isnan(jax.jit(jax.vmap(largest))(jnp.asarray(x))).all()


@pytest.mark.parametrize("n", [1, 2, 16, 17, 4096, 4097, 70_001])
def test_the_maximum_may_be_anywhere(n):
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


@pytest.mark.parametrize("n", [1, 128, 129, 128 * 256, 128 * 256 + 1, 128 * 700])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_cumulative_sums_are_exact(n, dtype):
    x = np.random.default_rng(0).integers(0, 9, full_rows(n)).astype(dtype)
    assert n <= len(x) < n + 128
    found = jax.jit(cumulative)(jnp.asarray(x))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.cumsum(x, dtype=np.int64))
