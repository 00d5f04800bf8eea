"""Replicas: a conditional that stays one under `vmap`, and a `vmap` over all devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool


def cond_any(
    predicate: Bool[Array, ""],
    if_true: Callable[..., Any],
    if_false: Callable[..., Any],
    *operands: Any,
) -> Any:
    """`lax.cond`, but under `vmap` one branch for all replicas: `if_true` if any of them asks for it.

    Plain `lax.cond` becomes a `select` under `vmap`, which computes both branches each time.

    Args:
        predicate: bool [].
        if_true: a function of the operands that is also right, if unneeded, where the predicate is False.
        if_false: a function of the operands.
        *operands: pytrees of arrays.

    Returns:
        What the chosen branch returns.
    """

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


def map_replicas(function: Callable[..., Any], n_replicas: int) -> Callable[..., Any]:
    """`vmap` over the leading axis of every argument, in equal shares on all devices of the host.

    Each device runs its share by itself, with no communication; a CPU counts as several after
    `jax.config.update("jax_num_cpu_devices", n)` at the start of a program. The result is that of plain
    `vmap` up to rounding. As many devices are used as divide the replicas.

    Args:
        function: of arguments without the leading axis.
        n_replicas: length of that axis.

    Returns:
        The mapped function; call it under jit.
    """
    devices = jax.local_devices()
    mapped = jax.vmap(function)
    n_devices = max(n for n in range(1, len(devices) + 1) if n_replicas % n == 0)
    if n_devices == 1:
        return mapped
    devices = devices[:n_devices]
    mesh = jax.sharding.Mesh(np.asarray(devices), ("replicas",))
    spec = jax.sharding.PartitionSpec("replicas")
    return jax.shard_map(mapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def gathered(tree: Any) -> Any:
    """Bring what `map_replicas` returned together on the default device, through the host.

    Slicing an array that is spread over devices is a collective operation, and those of the CPU may wait
    for each other for ever when there are fewer free cores than devices.
    """
    if len(jax.local_devices()) == 1:
        return tree

    def one(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = jnp.asarray(jax.device_get(jax.random.key_data(x)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return jnp.asarray(jax.device_get(x))

    return jax.tree.map(one, tree)
