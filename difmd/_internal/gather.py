"""A gather of numbers or rows without a batch axis under `vmap`.

XLA on CPU compiles a gather from one long array to much faster code than a batched gather. Here the arrays of
a batch are joined end to end and the indices shifted, so that the cost per atom does not depend on batching.
"""

from __future__ import annotations

import functools
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


def take(values: Shaped[Array, "points *row"], index: Int[Array, "*shape"]) -> Shaped[Array, "*shape *row"]:
    """`values[index]` for indices in bounds; differentiable any number of times."""
    return _take.bind(values, index)


def add_at(
    size: int, index: Int[Array, "*shape"], values: Shaped[Array, "*shape *row"]
) -> Shaped[Array, "size *row"]:
    """An array of `size` rows of zeros with `values` added at `index`, the transpose of `take`."""
    _check_size(size)
    return _add_at.bind(values, index, size=size)


def spread(
    values: Shaped[Array, "pairs *row"], pair: Int[Array, "*shape"], entries: Int[Array, "2 pairs"]
) -> Shaped[Array, "*shape *row"]:
    """`values[pair]` where each row is used by the two `entries` of its pair; the transpose is two gathers.

    Rows that are not used exactly twice, such as the one for unused entries, must not be differentiated.
    """
    return _spread.bind(values, pair, entries)


def _gather_pairs(values: Array, pair: Array, entries: Array) -> Array:
    return _gather(values, pair)


def _collect_pairs(values: Array, pair: Array, entries: Array) -> Array:
    flat = values.reshape(-1, *values.shape[pair.ndim :])
    return _gather(flat, entries[0]) + _gather(flat, entries[1])


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
        values, start = _shifted(axis_size, in_batched, values, start)
        runs = take_runs(values.reshape(-1), start.reshape(-1), width)
        return runs.reshape(axis_size, -1, width), True

    return gather(values, start)


def _shifted(
    axis_size: int, is_batched: Any, values: Array, index: Array, size: int | None = None
) -> tuple[Array, Array]:
    """Batches, with their axis in front, and indices into batches of `size` joined end to end."""
    values, index = (
        x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
        for x, batched in zip((values, index), is_batched, strict=True)
    )
    size = values.shape[1] if size is None else size
    _check_size(axis_size * size)
    offset = size * jnp.arange(axis_size, dtype=index.dtype)
    return values, index + offset.reshape(axis_size, *[1] * (index.ndim - 1))


def _check_size(size: int) -> None:
    if size >= 2**31:
        raise InputError(f"{size} values in one batch are too many for 32-bit indices: use fewer replicas")


_take = Primitive("difmd_take")
_add_at = Primitive("difmd_add_at")


def _gather(values: Array, index: Array) -> Array:
    row = values.shape[1:]
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(range(1, values.ndim)), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    result = lax.gather(values, index.reshape(-1, 1), numbers, (1, *row), mode=_BOUNDS)
    return result.reshape(index.shape + row)


def _scatter(values: Array, index: Array, *, size: int) -> Array:
    row = values.shape[index.ndim :]
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(1, 1 + len(row))),
        inserted_window_dims=(0,),
        scatter_dims_to_operand_dims=(0,),
    )
    zeros = jnp.zeros((size, *row), values.dtype)
    flat = values.reshape(-1, *row)
    return lax.scatter_add(zeros, index.reshape(-1, 1), flat, numbers, mode=_BOUNDS)


def _moved(args: tuple[Array, Array], dims: tuple[Any, Any]) -> tuple[tuple[Array, Array], int, list[bool]]:
    """Arguments with the batch axis in front, its length, and which arguments have it."""
    is_batched = [dim is not None for dim in dims]
    moved = [jnp.moveaxis(x, dim, 0) if b else x for x, dim, b in zip(args, dims, is_batched, strict=True)]
    size = next(len(x) for x, b in zip(moved, is_batched, strict=True) if b)
    return (moved[0], moved[1]), size, is_batched


def _take_batched(args: tuple[Array, Array], dims: tuple[Any, Any]) -> tuple[Array, int]:
    (values, index), size, is_batched = _moved(args, dims)
    if not is_batched[0]:
        return take(values, index), 0
    values, index = _shifted(size, is_batched, values, index)
    return take(values.reshape(-1, *values.shape[2:]), index), 0


def _add_at_batched(args: tuple[Array, Array], dims: tuple[Any, Any], *, size: int) -> tuple[Array, int]:
    (values, index), axis_size, is_batched = _moved(args, dims)
    values, index = _shifted(axis_size, is_batched, values, index, size)
    result = add_at(size * axis_size, index, values)
    return result.reshape(axis_size, size, *result.shape[1:]), 0


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
    return jax.core.ShapedArray(index.shape + values.shape[1:], values.dtype)


def _add_at_shape(values: Any, index: Any, *, size: int) -> Any:
    _refuse_varying(values, index)
    return jax.core.ShapedArray((size, *values.shape[index.ndim :]), values.dtype)


def _refuse_varying(*operands: Any) -> None:
    """Refuse values that vary over devices: JAX would not track them through these primitives."""
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


def _spread_batched(args: Any, dims: Any, *, primitive: Primitive, is_forward: bool) -> tuple[Array, int]:
    size = next(x.shape[dim] for x, dim in zip(args, dims, strict=True) if dim is not None)
    values, pair, entries = (
        jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)
        for x, dim in zip(args, dims, strict=True)
    )
    n_pairs, n_entries = entries.shape[-1], pair[0].size
    _check_size(size * max(n_pairs, n_entries))
    number = jnp.arange(size, dtype=pair.dtype)
    joined_pair = pair + n_pairs * number.reshape(-1, *[1] * (pair.ndim - 1))
    joined_entries = jnp.moveaxis(entries + n_entries * number[:, None, None], 0, 1).reshape(2, -1)
    if is_forward:
        return primitive.bind(values.reshape(-1, *values.shape[2:]), joined_pair, joined_entries), 0
    result = primitive.bind(values, joined_pair, joined_entries)
    return result.reshape(size, n_pairs, *values.shape[pair.ndim :]), 0


_spread = Primitive("difmd_spread")
_collect = Primitive("difmd_collect")


def _spread_shape(values: Any, pair: Any, entries: Any) -> Any:
    _refuse_varying(values, pair, entries)
    return jax.core.ShapedArray(pair.shape + values.shape[1:], values.dtype)


def _collect_shape(values: Any, pair: Any, entries: Any) -> Any:
    _refuse_varying(values, pair, entries)
    return jax.core.ShapedArray((entries.shape[1], *values.shape[pair.ndim :]), values.dtype)


for _primitive, _other, _rule, _shape, _is_forward in (
    (_spread, _collect, _gather_pairs, _spread_shape, True),
    (_collect, _spread, _collect_pairs, _collect_shape, False),
):
    _primitive.def_impl(jax.jit(_rule))
    _primitive.def_abstract_eval(_shape)
    mlir.register_lowering(_primitive, mlir.lower_fun(_rule, multiple_results=False))
    ad.defjvp(_primitive, lambda t, v, p, e, primitive=_primitive: primitive.bind(t, p, e), None, None)
    ad.primitive_transposes[_primitive] = lambda ct, v, p, e, primitive=_other: [
        ad.Zero(v.aval) if type(ct) is ad.Zero else primitive.bind(ct, p, e),
        None,
        None,
    ]
    _batched = functools.partial(_spread_batched, primitive=_primitive, is_forward=_is_forward)
    batching.primitive_batchers[_primitive] = _batched
