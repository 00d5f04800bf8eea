"""`fit`: parameters of a potential from any differentiable objectives at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from difmd._internal.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd._internal.progress import progress_bar
from difmd.errors import DifmdError, InputError
from difmd.fitting.gauss_newton import averages, gauss_newton
from difmd.fitting.objective import covariance_of, objective, weights_of
from difmd.fitting.result import FitError, FitInterrupted, FitResult
from difmd.fitting.terms import Term, flat_names, name_of
from difmd.fitting.transforms import Transform, logarithmic
from difmd.potentials import Params

CHECKPOINT = "fit.npz"

# Offset of the numbers folded into the keys of terms; the terms fold in smaller numbers themselves.
_TERMS = 1 << 16


class _State(NamedTuple):
    """Everything that an iteration changes."""

    free: Any
    opt_state: Any
    of_terms: list[Any]
    history: list[dict[str, Any]]
    covariance: list[list[float]] | None


class _Fit(NamedTuple):
    """Everything that stays the same during a fit."""

    terms: Sequence[Term]
    transform: Transform
    optimizer: optax.GradientTransformationExtraArgs
    n_iterations: int
    n_visits: int
    path: Path | None
    settings: str


def fit(
    params: Params,
    terms: Sequence[Term],
    *,
    n_iterations: int,
    key: Key[Array, ""],
    optimizer: optax.GradientTransformation | None = None,
    transform: Transform | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    on_iteration: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Minimise Σ w L over terms, each with its weight w and its loss L.

    Terms: `state_points`, measured quantities of liquids through their simulation; `least_squares` and
    `scalar_loss` of any differentiable function; `prior`s. If all of them give residuals, the default
    optimiser makes Gauss–Newton steps, and the errors of the parameters follow from the curvature and the
    noise of the data:

        C = A⁻¹ (Jᵀ S J) A⁻¹,    A = JᵀJ,

    with the weighted Jacobian J of the residuals and their variances S. Unknown variances are estimated from
    the remaining residuals of the same term: Σr² over their number less the degrees of freedom that the
    parameters take up. C belongs to the last evaluated parameters, with the sampling noise of one iteration;
    it assumes independent errors of the residuals and an exact J, and is NaN if the data determine some
    combination of parameters no better than the noise of J does.

    Args:
        params: initial parameters.
        terms: the objective.
        n_iterations: steps of the optimiser.
        key: seed of everything random, `jax.random.key(0)`.
        optimizer: any optax transformation, on the coordinates of `transform`, schedules included; default
            `gauss_newton()`, for many parameters rather `optax.adam(...)`.
        transform: coordinates of the optimiser, possibly with bounds; default `logarithmic()`.
        folder: write a checkpoint there after every iteration and resume from it; default: none.
        progress: show a progress bar.
        on_iteration: called with each entry of the history.

    Returns:
        `FitResult`.

    Raises:
        InputError: bad arguments, a checkpoint of a different fit, or a folder that cannot be written.
        DifmdError: an error of a term before the first iteration.
        FitError: a non-finite loss or gradient, a failed simulation, or a checkpoint that cannot be written;
            `partial_result` and the last checkpoint hold the completed iterations.
        FitInterrupted: Ctrl-C; resumes to the same result as an uninterrupted fit.

    References:
        Press et al., Numerical Recipes, 3rd ed. 2007, §15.6 (errors of estimated parameters).
    """
    _check(terms, n_iterations)
    optimizer = gauss_newton() if optimizer is None else optimizer
    if not isinstance(optimizer, optax.GradientTransformation):
        kind = type(optimizer).__name__
        raise InputError(f"optimizer is of type {kind}: use an optax transformation, as optax.adam(1e-2)")
    transform = logarithmic() if transform is None else transform
    free = transform.to_free(params)
    path, settings = None, ""
    if folder is not None:
        ensure_writable(Path(folder))
        path = Path(folder) / CHECKPOINT
        settings = fingerprint(
            str(jax.tree.structure(params)), params, free,
            [(term.name, term.settings(params)) for term in terms], jax.random.key_data(key),
            [name_of(function) for function in (transform.from_free, optimizer.update)],
        )  # fmt: skip
    optimizer, n_visits = optax.with_extra_args_support(optimizer), sum(term.n_visits for term in terms)
    plan = _Fit(terms, transform, optimizer, n_iterations, n_visits, path, settings)
    begin_key, run_key = jax.random.split(key)
    with progress_bar("fit", n_iterations * n_visits, enabled=progress) as advance:
        initial = _State(free, plan.optimizer.init(free), [], [], None)
        state = _begin(plan, params, initial, begin_key, advance)
        try:
            for iteration in range(len(state.history), n_iterations):
                state = _iterate(plan, state, iteration, jax.random.fold_in(run_key, iteration), advance)
                _save(plan, state)
                if on_iteration is not None:
                    on_iteration(state.history[-1])
        except KeyboardInterrupt:
            where = f"; run again with folder={str(folder)!r} to continue" if folder else ""
            message = f"interrupted after {len(state.history)} of {n_iterations} iterations{where}"
            raise FitInterrupted(message, _result(plan, state)) from None
        except DifmdError as error:
            raise FitError(f"iteration {iteration + 1}: {error}", _result(plan, state)) from error
    return _result(plan, state)


def _check(terms: Sequence[Term], n_iterations: int) -> None:
    """Raise `InputError` for terms that cannot make an objective."""
    if n_iterations < 1:
        raise InputError(f"n_iterations = {n_iterations} must be at least 1")
    names = [term.name for term in terms]
    if not names or len(set(names)) < len(names):
        raise InputError(f"terms {names}: give at least one, each with a different name")
    for name in names:
        if name in ("loss", "losses", "params", "weights"):
            raise InputError(f"a term cannot have the name {name!r}: the history has an entry of that name")
    for k in range(n_iterations):
        weights_of(terms, k)


def _begin(plan: _Fit, params: Params, state: _State, key: Array, advance: Callable[..., None]) -> _State:
    """The state after the checkpoint, or before the first iteration."""
    if plan.path is not None and plan.path.exists():
        state = _resumed(plan, plan.path, state)
        advance(min(len(state.history), plan.n_iterations) * plan.n_visits, "resumed")
        return state
    try:
        of_terms = [term.begin(params, _key_of(key, k), advance) for k, term in enumerate(plan.terms)]
    except KeyboardInterrupt:
        message = "interrupted before the first iteration; the same call starts again"
        raise FitInterrupted(message, _result(plan, state)) from None
    state = state._replace(of_terms=of_terms)
    _save(plan, state)
    return state


def _save(plan: _Fit, state: _State) -> None:
    if plan.path is not None:
        stored = [term.stored(s) for term, s in zip(plan.terms, state.of_terms, strict=True)]
        meta = {"settings": plan.settings, "history": state.history, "covariance": state.covariance}
        save_checkpoint(plan.path, (state.free, state.opt_state, stored), meta)


def _result(plan: _Fit, state: _State) -> FitResult:
    last = plan.transform.from_free(state.free)
    best, loss = _best(plan, state.history, last)
    covariance = None if state.covariance is None else np.asarray(state.covariance, np.float64)
    return FitResult(
        params=last if averages(state.opt_state) else best, best_params=best, last_params=last,
        best_loss=loss, history=state.history, covariance=covariance,
    )  # fmt: skip


def _resumed(plan: _Fit, path: Path, state: _State) -> _State:
    """The state of the checkpoint; an `InputError` if it belongs to another fit."""
    terms = plan.terms
    like = (state.free, state.opt_state, [term.example() for term in terms])
    (free, opt_state, stored), meta = load_checkpoint(path, like)
    same_weights = all(
        entry["weights"] == _named(terms, weights_of(terms, k)) for k, entry in enumerate(meta["history"])
    )
    if meta["settings"] != plan.settings or not same_weights:
        raise InputError(
            f"{path} is the checkpoint of a fit with other terms, weights, initial parameters, coordinates, "
            "optimiser, gradient method or seed: delete it, or choose another folder"
        )
    of_terms = [term.restored(arrays) for term, arrays in zip(terms, stored, strict=True)]
    return _State(free, opt_state, of_terms, meta["history"], meta["covariance"])


def _iterate(plan: _Fit, state: _State, iteration: int, key: Array, advance: Callable[..., None]) -> _State:
    """Evaluate all terms and make a step; raises `DifmdError` for numbers that are not finite."""
    params = plan.transform.from_free(state.free)

    def noted(steps: int, of_term: str = "") -> None:
        advance(steps, f"iteration {iteration + 1}" + (f", {of_term}" if of_term else ""))

    evaluated = [
        term.evaluate(params, old, _key_of(key, k), noted)
        for k, (term, old) in enumerate(zip(plan.terms, state.of_terms, strict=True))
    ]
    evaluations = [evaluation for evaluation, _ in evaluated]
    weights = weights_of(plan.terms, iteration)
    total = objective(evaluations, weights, plan.transform, state.free)
    if not _is_finite((total.loss, total.gradient)):
        raise DifmdError(
            f"loss {total.loss} or its gradient is not finite; the parameters of the previous iteration are "
            "kept. Shorten the window, use smaller steps, or check the targets"
        )
    extra = {name: getattr(total, name) for name in ("residuals", "jacobian", "jacobian_stderr")}
    updates, opt_state = plan.optimizer.update(total.gradient, state.opt_state, state.free, **extra)
    moved = optax.apply_updates(state.free, updates)
    if not _is_finite(moved):
        raise DifmdError(
            "the step of the optimiser is not finite; the parameters of the previous iteration are kept. Use "
            "a smaller learning rate"
        )
    entry = {
        "loss": total.loss,
        "params": flat_names(params),
        "losses": _named(plan.terms, [float(e.loss) for e in evaluations]),
        "weights": _named(plan.terms, weights),
        **_named(plan.terms, [e.record for e in evaluations]),
    }
    covariance = covariance_of(total, plan.transform, state.free)
    return _State(moved, opt_state, [new for _, new in evaluated], [*state.history, entry], covariance)


def _named(terms: Sequence[Term], values: Sequence[Any]) -> dict[str, Any]:
    return {term.name: value for term, value in zip(terms, values, strict=True)}


def _best(plan: _Fit, history: list[dict[str, Any]], last: Params) -> tuple[Params, float]:
    """Parameters with the lowest loss, by the weights of the last iteration."""
    if not history:
        return last, np.inf
    final = _named(plan.terms, weights_of(plan.terms, plan.n_iterations - 1))
    losses = [sum(final[name] * loss for name, loss in entry["losses"].items()) for entry in history]
    best = int(np.argmin(losses))
    leaves, tree = jax.tree.flatten(last)
    values = history[best]["params"].values()
    arrays = [jnp.asarray(value, leaf.dtype) for value, leaf in zip(values, leaves, strict=True)]
    return jax.tree.unflatten(tree, arrays), losses[best]


def _key_of(key: Array, number: int) -> Array:
    """The key of a term; the first term uses that of the fit."""
    return key if number == 0 else jax.random.fold_in(key, _TERMS + number)


def _is_finite(tree: Any) -> bool:
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))
