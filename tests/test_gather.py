"""The flat gather: values, derivatives and batches are those of plain indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd._internal.gather import add_at, spread, take, take_runs
from difmd.errors import InputError

VALUES = jnp.asarray(np.random.default_rng(0).normal(size=10))
INDEX = jnp.asarray([[1, 2, 3], [9, 9, 0]], jnp.int32)
BATCH = jnp.stack([VALUES, 2 * VALUES, VALUES + 1])
INDICES = jnp.stack([INDEX, INDEX[::-1], INDEX.at[0, 0].set(7)])


def through(gather):
    return lambda values, index: jnp.sum(jnp.sin(gather(values, index)) * jnp.arange(1.0, 4.0)[None])


ours, plain = through(take), through(lambda values, index: values[index])


@pytest.mark.parametrize("order", [jax.grad, jax.hessian, jax.jacfwd], ids=["reverse", "hessian", "forward"])
def test_derivatives_are_those_of_indexing(order):
    np.testing.assert_allclose(order(ours)(VALUES, INDEX), order(plain)(VALUES, INDEX), atol=1e-14)


@pytest.mark.parametrize(
    ("axes", "arguments"),
    [((0, 0), (BATCH, INDICES)), ((0, None), (BATCH, INDEX)), ((None, 0), (VALUES, INDICES))],
    ids=["both", "values", "index"],
)
@pytest.mark.parametrize("function", ["value", "gradient", "hessian"])
def test_batches_are_those_of_indexing(axes, arguments, function):
    wrap = {"value": lambda f: f, "gradient": jax.grad, "hessian": jax.hessian}[function]
    found = jax.jit(jax.vmap(wrap(ours), axes))(*arguments)
    np.testing.assert_allclose(found, jax.vmap(wrap(plain), axes)(*arguments), atol=1e-14)


def test_batches_of_batches_and_other_axes():
    values, indices = jnp.stack([BATCH, -BATCH], 2), jnp.stack([INDICES, INDICES], 1)
    found = jax.vmap(jax.vmap(jax.grad(ours), (1, 0)), (0, 0))(values, indices)
    expected = jax.vmap(jax.vmap(jax.grad(plain), (1, 0)), (0, 0))(values, indices)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_add_at_is_the_transpose():
    weights = jnp.asarray(np.random.default_rng(1).normal(size=INDEX.shape))
    expected = jnp.zeros(10).at[INDEX].add(weights)
    np.testing.assert_allclose(add_at(10, INDEX, weights), expected, atol=1e-14)
    weigh = lambda w: jnp.sum(add_at(10, INDEX, w) * VALUES)  # noqa: E731
    np.testing.assert_allclose(jax.grad(weigh)(weights), VALUES[INDEX], atol=1e-14)
    both = jax.vmap(add_at, (None, 0, None))(10, INDICES, weights)
    np.testing.assert_allclose(both[2], jnp.zeros(10).at[INDICES[2]].add(weights), atol=1e-14)


def test_runs():
    start = jnp.asarray([0, 4, 7], jnp.int32)
    np.testing.assert_array_equal(
        take_runs(VALUES, start, 3), VALUES[start[:, None] + jnp.arange(3, dtype=jnp.int32)[None]]
    )
    found = jax.vmap(take_runs, (0, None, None))(BATCH, start, 3)
    np.testing.assert_array_equal(found, BATCH[:, start[:, None] + jnp.arange(3, dtype=jnp.int32)[None]])
    found = jax.vmap(lambda s: take_runs(VALUES, s, 3))(jnp.stack([start, start[::-1]]))
    np.testing.assert_array_equal(found[1], VALUES[start[::-1, None] + jnp.arange(3, dtype=jnp.int32)[None]])


def test_unsupported_use_is_refused():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("r",))
    spread = jax.sharding.PartitionSpec("r")
    gather = jax.shard_map(take, mesh=mesh, in_specs=(jax.sharding.PartitionSpec(), spread), out_specs=spread)
    with pytest.raises(InputError, match="check_vma=False"):
        gather(VALUES, INDEX)
    huge = jax.ShapeDtypeStruct((4, 2**30), jnp.float32)
    index = jax.ShapeDtypeStruct((4, 3), jnp.int32)
    with pytest.raises(InputError, match="fewer replicas"):
        jax.eval_shape(jax.vmap(take), huge, index)


ROWS = jnp.asarray(np.random.default_rng(2).normal(size=(10, 3)))


def through_rows(gather):
    return lambda values, index: jnp.sum(jnp.sin(gather(values, index)) * jnp.arange(1.0, 4.0)[None, None])


@pytest.mark.quick("value", "gradient")
@pytest.mark.parametrize("order", [lambda f: f, jax.grad, jax.hessian], ids=["value", "gradient", "hessian"])
def test_rows_are_those_of_indexing(order):
    ours, plain = (order(through_rows(g)) for g in (take, lambda values, index: values[index]))
    np.testing.assert_allclose(ours(ROWS, INDEX), plain(ROWS, INDEX), atol=1e-14)
    batch = jnp.stack([ROWS, 2 * ROWS, ROWS + 1])
    np.testing.assert_allclose(jax.vmap(ours)(batch, INDICES), jax.vmap(plain)(batch, INDICES), atol=1e-14)


def test_rows_add_up():
    found = add_at(10, INDEX, ROWS[:6].reshape(2, 3, 3))
    np.testing.assert_allclose(found, jnp.zeros((10, 3)).at[INDEX].add(ROWS[:6].reshape(2, 3, 3)), atol=1e-14)


# Three pairs over eight entries, two of them unused; the last row stands for those.
PAIR = jnp.asarray([[0, 2, 3, 1], [1, 0, 2, 3]], jnp.int32)
ENTRIES = jnp.asarray([[0, 3, 1, 0], [5, 4, 6, 0]], jnp.int32)


def spread_by(gather):
    def total(values, pair, entries):
        # The last row is not differentiated, as unused entries are out of reach.
        rows = jnp.concatenate([values, jnp.zeros((1, values.shape[1]))])
        found = gather(rows, pair, entries)
        return jnp.sum(jnp.sin(found) * jnp.arange(1.0, 9.0).reshape(2, 4, 1))

    return total


@pytest.mark.quick("value", "gradient")
@pytest.mark.parametrize("order", [lambda f: f, jax.grad, jax.hessian], ids=["value", "gradient", "hessian"])
def test_spread_is_indexing_with_a_transpose_of_its_own(order):
    ours, plain = (order(spread_by(g)) for g in (spread, lambda values, pair, entries: values[pair]))
    values = ROWS[:3]
    np.testing.assert_allclose(ours(values, PAIR, ENTRIES), plain(values, PAIR, ENTRIES), atol=1e-14)
    batch = (jnp.stack([values, -2 * values]), jnp.stack([PAIR, PAIR]), jnp.stack([ENTRIES, ENTRIES]))
    np.testing.assert_allclose(jax.vmap(ours)(*batch), jax.vmap(plain)(*batch), atol=1e-14)
    axes = (0, None, None)
    found = jax.vmap(ours, axes)(batch[0], PAIR, ENTRIES)
    np.testing.assert_allclose(found, jax.vmap(plain, axes)(batch[0], PAIR, ENTRIES), atol=1e-14)
    if order is jax.grad:
        assert "difmd_collect" in str(jax.make_jaxpr(ours)(values, PAIR, ENTRIES))
        assert "difmd_add_at" not in str(jax.make_jaxpr(ours)(values, PAIR, ENTRIES))
