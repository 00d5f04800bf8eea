"""Terms of the objective of a fit, each with its loss and the derivative of the loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.summaries import brief_repr
from difmd.errors import InputError, check_positive
from difmd.potentials import Params

Weight = float | Callable[[int], float]
"""A number, or a function of the iteration, counted from 0, such as an optax schedule."""


@brief_repr
class Residuals(NamedTuple):
    """Dimensionless numbers whose squares add up to the loss of a term.

    Attributes:
        values: r; [residuals].
        jacobian: ∂r/∂θ; like the params with a leading axis [residuals].
        jacobian_stderr: its statistical error; as above.
        noise: standard deviation of r due to errors of data and sampling, NaN where unknown; [residuals].
    """

    values: Float[Array, "residuals"]
    jacobian: Any
    jacobian_stderr: Any
    noise: Float[Array, "residuals"]


@brief_repr
class Evaluation(NamedTuple):
    """The value of a term at the parameters of an iteration.

    Attributes:
        loss: a number.
        gradient: of the loss; like the params.
        residuals: None for a loss that is not a sum of a few squares.
        record: for the history; `json.dumps` must accept it.
    """

    loss: Float[Array, ""]
    gradient: Any
    residuals: Residuals | None
    record: dict[str, Any]


@brief_repr
class Term(NamedTuple):
    """A part of an objective, with a state that passes from one iteration to the next (host).

    Attributes:
        name: of its record in the history.
        begin: `begin(params, key, advance) -> state`, before the first iteration.
        evaluate: `evaluate(params, state, key, advance) -> Evaluation, state`; `advance(steps, note)` moves
            the progress bar.
        stored: `stored(state)`, the arrays from which a fit can continue.
        restored: `restored(arrays) -> state`.
        example: `example()`, arrays of the shape of those stored.
        settings: `settings(params)` of the initial parameters; distinguishes it from other terms, so that a
            fit resumes only from its own checkpoint.
        weight: of its loss.
        n_visits: steps of the progress bar for an evaluation.
    """

    name: str
    begin: Callable[[Params, Any, Callable[..., None]], Any]
    evaluate: Callable[[Params, Any, Any, Callable[..., None]], tuple[Evaluation, Any]]
    stored: Callable[[Any], Any]
    restored: Callable[[Any], Any]
    example: Callable[[], Any]
    settings: Callable[[Params], Any]
    weight: Weight = 1.0
    n_visits: int = 1


def sum_of_squares(residuals: Residuals, record: dict[str, Any]) -> Evaluation:
    """The evaluation of a term that is Σ r²."""
    gradient = jax.tree.map(lambda j: 2 * jnp.tensordot(residuals.values, j, 1), residuals.jacobian)
    return Evaluation(jnp.sum(residuals.values**2), gradient, residuals, record)


def concatenated(parts: Sequence[Residuals]) -> Residuals:
    """Residuals of several parts in their order."""
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def least_squares(
    function: Callable[[Params], Float[Array, "residuals"]],
    *,
    noise: float | Float[Array, "residuals"] | None = None,
    weight: Weight = 1.0,
    name: str = "least_squares",
) -> Term:
    """Σ r(θ)² of any differentiable function, such as elastic constants or relaxed energies.

    Args:
        function: `function(params)`, a few residuals; it is compiled, and differentiated in reverse.
        noise: standard deviations due to errors of the data; None: estimated from the remaining residuals.
        weight: of the loss.
        name: of its record in the history.

    Returns:
        `Term`.

    Raises:
        InputError: noise that is not positive.
    """
    if noise is not None:
        check_positive(f"{name}: noise", noise, "")

    def twice(params: Params) -> tuple[Array, Array]:
        values = function(params)
        if values.ndim != 1:
            raise InputError(f"{name}: the function returns shape {list(values.shape)}, not [residuals]")
        return values, values

    both = jax.jit(jax.jacrev(twice, has_aux=True))

    def evaluate(params: Params, key: Any) -> Evaluation:
        del key
        jacobian, values = both(params)
        if noise is not None and np.shape(noise) not in ((), values.shape):
            raise InputError(f"{name}: noise has shape {list(np.shape(noise))}, not {list(values.shape)}")
        spread = jnp.broadcast_to(jnp.nan if noise is None else jnp.asarray(noise), values.shape)
        exact = jax.tree.map(jnp.zeros_like, jacobian)
        residuals = Residuals(values, jacobian, exact, spread.astype(values.dtype))
        return sum_of_squares(residuals, {"residuals": np.asarray(values).tolist()})

    def settings(params: Params) -> Any:
        # The closure of a function shows in its values.
        return name_of(function), noise, _digits(both(params)[1])

    return stateless(evaluate, name=name, settings=settings, weight=weight)


def scalar_loss(
    function: Callable[[Params], Float[Array, ""]], *, weight: Weight = 1.0, name: str = "scalar_loss"
) -> Term:
    """A loss that is not a sum of a few squares, such as that of a network on first-principles data.

    Args:
        function: `function(params)`, a number; it is compiled, and differentiated in reverse.
        weight: of the loss.
        name: of its record in the history.

    Returns:
        `Term`; it gives no residuals, so that `gauss_newton` cannot be used with it.
    """

    @jax.jit
    def both(params: Params) -> tuple[Array, Any]:
        shape = jax.eval_shape(function, params).shape
        if shape:
            raise InputError(f"{name}: the function returns shape {list(shape)}, not a number")
        return jax.value_and_grad(function)(params)

    def evaluate(params: Params, key: Any) -> Evaluation:
        del key
        value, gradient = both(params)
        return Evaluation(value, gradient, None, {"value": float(value)})

    def settings(params: Params) -> Any:
        return name_of(function), _digits(both(params)[0])

    return stateless(evaluate, name=name, settings=settings, weight=weight)


def prior(
    center: Mapping[str, Any],
    width: Mapping[str, Any],
    *,
    relative: bool = False,
    weight: Weight = 1.0,
    name: str = "prior",
) -> Term:
    """Σ ((θ − θ₀)/w)², prior knowledge of some parameters.

    Args:
        center: θ₀ of those parameters, by name; shapes as in the params.
        width: w, their standard deviations.
        relative: use (ln θ − ln θ₀)/w instead.
        weight: of the loss.
        name: of its record in the history.

    Returns:
        `Term`.

    Raises:
        InputError: names that differ, or widths that are not positive; in a fit, names not in the params.
    """
    if set(center) != set(width):
        raise InputError(f"prior: center has {sorted(center)} and width {sorted(width)}: give both of each")
    for which in width:
        if not (np.asarray(width[which]) > 0).all():
            raise InputError(f"prior: width of {which} = {width[which]} must be positive")

    def distance(params: Any) -> Array:
        missing = sorted(set(center) - set(params))
        if missing:
            raise InputError(f"prior: no parameter {', '.join(missing)}; there are {', '.join(params)}")
        parts = []
        for which, middle in center.items():
            theta = params[which]
            middle, wide = (jnp.asarray(x, theta.dtype) for x in (middle, width[which]))
            apart = jnp.log(theta / middle) if relative else theta - middle
            parts.append(jnp.ravel(apart / wide))
        return jnp.concatenate(parts)

    term = least_squares(distance, noise=1.0, weight=weight, name=name)
    numbers = [(which, np.asarray(center[which]), np.asarray(width[which])) for which in sorted(center)]
    return term._replace(settings=lambda params: (relative, numbers))


def stateless(
    function: Callable[[Params, Any], Evaluation], *, name: str, settings: Callable[..., Any], weight: Weight
) -> Term:
    """A term without a state, from `function(params, key)`."""

    def evaluate(params: Params, state: Any, key: Any, advance: Any) -> tuple[Evaluation, Any]:
        advance(0, name)
        evaluation = function(params, key)
        advance(1, name)
        return evaluation, state

    return Term(
        name=name, begin=lambda params, key, advance: (), evaluate=evaluate, stored=lambda state: (),
        restored=lambda arrays: (), example=lambda: (), settings=settings, weight=weight,
    )  # fmt: skip


def name_of(function: Callable[..., Any]) -> str:
    """Module and name of a function, with the arguments of a `functools.partial`; not its closure."""
    if isinstance(function, functools.partial):
        return f"{name_of(function.func)}{function.args}{function.keywords}"
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def flat_names(tree: Any, scale: float = 1.0) -> dict[str, Any]:
    """Leaves as nested lists, by name."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named]
    return {
        n: (scale * np.asarray(leaf, np.float64)).tolist() for n, (_, leaf) in zip(names, named, strict=True)
    }


def _digits(values: Array) -> list[str]:
    """Numbers, rounded to the digits that another machine reproduces."""
    return [f"{float(x):.4e}" for x in np.ravel(values)]
