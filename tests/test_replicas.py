"""Replicas in shares, each on its own core."""

import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd._internal import cpu_layout, replicas
from difmd._internal.replicas import map_replicas, run_replicas

traces = []


@functools.partial(jax.jit, static_argnums=0)
def scaled(power, factor, x, keys):
    traces.append(power)
    mapped = map_replicas(lambda x, key: (factor * x**power, jax.random.fold_in(key, 1)), len(x))
    return mapped(x, keys)


@pytest.fixture(params=[1, 2, 3])
def shares(request, monkeypatch):
    monkeypatch.setattr(replicas, "n_shares", lambda n_replicas, n_atoms: request.param)
    # Some shares wait for others.
    monkeypatch.setattr(cpu_layout, "n_cores", lambda: 2)
    return request.param


def test_any_number_of_shares_gives_the_same_and_compiles_once(shares):
    x, keys = jnp.arange(6.0), jax.random.split(jax.random.key(0), 6)
    traces.clear()
    for factor in (2.0, 3.0):
        found, folded = run_replicas(scaled, (shares + 1,), (factor,), (x, keys), n_atoms=1)
        chex.assert_trees_all_close(found, factor * x ** (shares + 1))
        np.testing.assert_array_equal(
            jax.random.key_data(folded), jax.random.key_data(jax.vmap(jax.random.fold_in, (0, None))(keys, 1))
        )
    assert len(traces) == 1


def test_precision_of_a_context_holds_in_every_share(shares):
    keys = jax.random.split(jax.random.key(0), 6)
    for enabled, dtype in ((True, np.float64), (False, np.float32)):
        with jax.enable_x64(enabled):
            found, _ = run_replicas(scaled, (2,), (1 / 3,), (jnp.arange(6.0), keys), n_atoms=1)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, np.arange(6.0) ** 2 / 3, rtol=1e-15 if enabled else 1e-6)


def test_an_error_in_a_share_is_raised(shares):
    def fails(x):
        raise ValueError("a broken share")

    @jax.jit
    def function(x):
        return jax.pure_callback(fails, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with pytest.raises(Exception, match="a broken share"):
        run_replicas(function, (), (), (jnp.arange(6.0),), n_atoms=1)


@pytest.mark.parametrize(
    "n_cores, n_replicas, n_atoms, expected",
    [
        (4, 8, 32, 4),
        (4, 6, 32, 3),
        (4, 7, 32, 1),
        (2, 10, 32, 2),
        (1, 8, 32, 1),
        # The positions of a share fit into the cache, and the cores have equal work.
        (2, 64, 256, 8),
        (2, 64, 4096, 64),
        (2, 10, 10_000, 10),
        (1, 60, 256, 6),
    ],
)
def test_shares_are_equal(n_cores, n_replicas, n_atoms, expected, monkeypatch):
    monkeypatch.setattr(cpu_layout, "n_cores", lambda: n_cores)
    monkeypatch.setattr(replicas.jax, "local_devices", lambda: [SimpleNamespace(platform="cpu")])
    assert replicas.n_shares(n_replicas, n_atoms) == expected
