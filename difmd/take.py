"""A gather that stays one-dimensional under `vmap`.

XLA on CPU compiles a gather from one long array to much faster code than a batched gather. Here the arrays of
a batch are joined end to end instead, and the indices shifted, so that replicas cost what one system costs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Int, Shaped

from difmd.errors import InputError

_BOUNDS = lax.GatherScatterMode.PROMISE_IN_BOUNDS


def take(values: Shaped[Array, "points"], index: Int[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """`values[index]` for indices in bounds; linear in `values`, differentiable any number of times.

    Raises:
        InputError: a batch of 2³¹ values or more in all; or under `jax.shard_map` with `check_vma`.
    """
    return _take.bind(values, index)


def add_at(size: int, index: Int[Array, "*shape"], values: Shaped[Array, "*shape"]) -> Shaped[Array, "size"]:
    """An array of `size` zeros with `values` added at `index`, the transpose of `take`.

    Raises:
        InputError: as `take`.
    """
    _check_size(size)
    return _add_at.bind(values, index, size=size)


def take_runs(
    values: Shaped[Array, "points"], start: Int[Array, "runs"], width: int
) -> Shaped[Array, "runs width"]:
    """`values[start], values[start + 1], …`, `width` of them for each start; not differentiable."""

    @custom_vmap
    def gather(values: Array, start: Array) -> Array:
        numbers = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(), start_index_map=(0,))
        return lax.gather(values, start[:, None], numbers, (width,), mode=_BOUNDS)

    @gather.def_vmap
    def _(axis_size: int, in_batched: Any, values: Array, start: Array) -> tuple[Array, bool]:
        joined, shifted = _join(axis_size, in_batched, values, start)
        runs = take_runs(joined, shifted.reshape(-1), width)
        return runs.reshape(axis_size, -1, width), True

    return gather(values, start)


def _join(axis_size: int, is_batched: Any, values: Array, index: Array) -> tuple[Array, Array]:
    """Batches, with their axis in front, as one array and indices into it."""
    full_values, full_index = (
        x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
        for x, batched in zip((values, index), is_batched, strict=True)
    )
    _check_size(axis_size * values.shape[-1])
    offset = values.shape[-1] * jnp.arange(axis_size, dtype=index.dtype)
    offset = offset.reshape(axis_size, *[1] * (full_index.ndim - 1))
    return full_values.reshape(-1), full_index + offset


def _check_size(size: int) -> None:
    if size >= 2**31:
        raise InputError(
            f"{size} values in one batch are too many for 32-bit indices: use fewer replicas at a time"
        )


_take = Primitive("difmd_take")
_add_at = Primitive("difmd_add_at")


def _gather(values: Array, index: Array) -> Array:
    numbers = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
    flat = index.reshape(-1, 1)
    return lax.gather(values, flat, numbers, (1,), mode=_BOUNDS).reshape(index.shape)


def _scatter(values: Array, index: Array, *, size: int) -> Array:
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=(), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,)
    )
    zeros = jnp.zeros(size, values.dtype)
    return lax.scatter_add(zeros, index.reshape(-1, 1), values.reshape(-1), numbers, mode=_BOUNDS)


def _moved(args: tuple[Array, Array], dims: tuple[Any, Any]) -> tuple[tuple[Array, Array], int, list[bool]]:
    """Batch axes in front; their length; which arguments have one."""
    is_batched = [dim is not None for dim in dims]
    moved = [jnp.moveaxis(x, dim, 0) if b else x for x, dim, b in zip(args, dims, is_batched, strict=True)]
    size = next(len(x) for x, b in zip(moved, is_batched, strict=True) if b)
    return (moved[0], moved[1]), size, is_batched


def _take_batched(args: tuple[Array, Array], dims: tuple[Any, Any]) -> tuple[Array, int]:
    (values, index), size, is_batched = _moved(args, dims)
    if not is_batched[0]:
        return take(values, index), 0
    return take(*_join(size, is_batched, values, index)), 0


def _add_at_batched(args: tuple[Array, Array], dims: tuple[Any, Any], *, size: int) -> tuple[Array, int]:
    (values, index), axis_size, is_batched = _moved(args, dims)
    values, index = (
        x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
        for x, batched in zip((values, index), is_batched, strict=True)
    )
    _check_size(axis_size * size)
    offset = size * jnp.arange(axis_size, dtype=index.dtype)
    offset = offset.reshape(axis_size, *[1] * (index.ndim - 1))
    return add_at(size * axis_size, index + offset, values).reshape(axis_size, size), 0


def _transposed_take(cotangent: Any, values: Any, index: Array) -> list[Any]:
    if type(cotangent) is ad.Zero:
        return [ad.Zero(values.aval), None]
    return [add_at(values.aval.shape[0], index, cotangent), None]


def _transposed_add_at(cotangent: Any, values: Any, index: Array, *, size: int) -> list[Any]:
    if type(cotangent) is ad.Zero:
        return [ad.Zero(values.aval), None]
    return [take(cotangent, index), None]


def _take_shape(values: Any, index: Any) -> Any:
    _refuse_varying(values, index)
    return jax.core.ShapedArray(index.shape, values.dtype)


def _add_at_shape(values: Any, index: Any, *, size: int) -> Any:
    _refuse_varying(values, index)
    return jax.core.ShapedArray((size,), values.dtype)


def _refuse_varying(*operands: Any) -> None:
    """JAX would lose track of what differs between devices, and with it the sums of a gradient."""
    for operand in operands:
        kind = getattr(operand, "mat", None)  # JAX 0.12; `vma` before
        if getattr(operand, "vma", None) or getattr(kind, "varying", None):
            raise InputError("neighbour lists and potentials need jax.shard_map(..., check_vma=False)")


_take.def_impl(jax.jit(_gather))
_take.def_abstract_eval(_take_shape)
mlir.register_lowering(_take, mlir.lower_fun(_gather, multiple_results=False))
ad.defjvp(_take, lambda tangent, values, index: take(tangent, index), None)
ad.primitive_transposes[_take] = _transposed_take
batching.primitive_batchers[_take] = _take_batched

_add_at.def_impl(jax.jit(_scatter, static_argnames="size"))
_add_at.def_abstract_eval(_add_at_shape)
mlir.register_lowering(_add_at, mlir.lower_fun(_scatter, multiple_results=False))
ad.defjvp(_add_at, lambda tangent, values, index, *, size: add_at(size, index, tangent), None)
ad.primitive_transposes[_add_at] = _transposed_add_at
batching.primitive_batchers[_add_at] = _add_at_batched
