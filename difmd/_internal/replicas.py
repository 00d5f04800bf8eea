"""Replicas: a conditional that remains one under `vmap`, and runs distributed over devices or cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from difmd._internal import cpu_layout

# Least number of atoms in a share of replicas on a core; with fewer the overhead exceeds the gain.
_SHARE = 2048


def cond_any(
    predicate: Bool[Array, ""], if_true: Callable[..., Any], if_false: Callable[..., Any], *operands: Any
) -> Any:
    """`lax.cond`; under `vmap` one branch for all: `if_true`, always valid, if any predicate is True."""

    @jax.custom_batching.custom_vmap
    def choose(predicate: Any, operands: Any) -> Any:
        return lax.cond(predicate, if_true, if_false, *operands)

    @choose.def_vmap
    def _(axis_size: int, in_batched: Any, predicate: Any, operands: Any) -> tuple[Any, Any]:
        def full(x: Array, batched: bool) -> Array:
            return x if batched else jnp.broadcast_to(x, (axis_size, *jnp.shape(x)))

        # Both branches must return the same batched structure, so every operand is batched.
        operands = jax.tree.map(full, operands, in_batched[1])
        out = cond_any(jnp.any(predicate), jax.vmap(if_true), jax.vmap(if_false), *operands)
        return out, jax.tree.map(lambda _: True, out)

    return choose(predicate, operands)


@jax.custom_batching.custom_vmap
def of_all_replicas(number: Int[Array, ""]) -> Int[Array, ""]:
    """The number itself; under `vmap` the maximum over replicas, unbatched, as a common bound of loops."""
    return number


@of_all_replicas.def_vmap
def _(axis_size: int, in_batched: list[bool], number: Array) -> tuple[Array, bool]:
    return of_all_replicas(jnp.max(number)), False


def n_shares(n_replicas: int, n_atoms: int) -> int:
    """Number of equal shares of replicas: one per device, or several per core that fit its cache."""
    devices = jax.local_devices()
    if len(devices) > 1 or devices[0].platform != "cpu":
        return _divisor(n_replicas, len(devices))
    together = _divisor(n_replicas, cpu_layout.n_cores())
    each = n_replicas // together
    return together * _divisor(each, max(1, each * n_atoms // _SHARE))


def _divisor(n_replicas: int, most: int) -> int:
    """The largest divisor of `n_replicas` up to `most`."""
    return max(n for n in range(1, most + 1) if n_replicas % n == 0)


def map_replicas(function: Callable[..., Any], n_replicas: int) -> Callable[..., Any]:
    """`vmap` over the leading axis of every argument, in equal shares on the devices; under jit."""
    devices = jax.local_devices()
    mapped = jax.vmap(function)
    used = _divisor(n_replicas, len(devices))
    if used == 1:
        return mapped
    mesh = jax.sharding.Mesh(np.asarray(devices[:used]), ("replicas",))
    spec = jax.sharding.PartitionSpec("replicas")
    return jax.shard_map(mapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def run_replicas(
    function: Any, static: tuple[Any, ...], shared: tuple[Any, ...], batched: tuple[Any, ...], *, n_atoms: int
) -> Any:
    """`function(*static, *shared, *batched)`, jitted, on all devices, or on all cores of a CPU (host).

    XLA would synchronise the cores of a CPU after every operation, and rebuild the lists of all replicas as
    soon as one is stale. Here each core runs some of the replicas independently, with one compiled function.
    Arrays of `batched` and of the result have a leading axis of replicas; the function uses `map_replicas`.
    """
    n_replicas = len(jax.tree.leaves(batched)[0])
    shares = n_shares(n_replicas, n_atoms)
    if len(jax.local_devices()) > 1:
        # Slicing an array that is distributed over devices is a collective operation, which can deadlock on a
        # CPU with fewer free cores than devices.
        spread = function(*static, *shared, *batched)
        return jax.tree.map(lambda x: _from_host(_to_host(x), x), spread)
    if shares == 1:
        return function(*static, *shared, *batched)
    size = n_replicas // shares
    host = jax.tree.map(_to_host, batched)
    parts = [
        jax.tree.map(lambda x, like, k=k: _from_host(x[k * size : (k + 1) * size], like), host, batched)
        for k in range(shares)
    ]
    # Converted and compiled here, as `with jax.enable_x64():` does not apply to other threads.
    shared = jax.tree.map(jnp.asarray, shared)
    compiled = function.lower(*static, *shared, *parts[0]).compile()
    with ThreadPoolExecutor(min(shares, cpu_layout.n_cores())) as pool:
        done = list(pool.map(lambda part: jax.block_until_ready(compiled(*shared, *part)), parts))
    return jax.tree.map(lambda *x: _from_host(np.concatenate([_to_host(y) for y in x]), x[0]), *done)


def _to_host(x: Array) -> np.ndarray:
    """A NumPy array; of PRNG keys, their data."""
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.device_get(jax.random.key_data(x) if is_key else x))


def _from_host(x: np.ndarray, like: Array) -> Array:
    """An array on the default device, or PRNG keys of the type of `like`."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return jnp.asarray(x)
