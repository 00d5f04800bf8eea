"""`fit`: parameters of a potential from anything that can be differentiated, all of it at once."""

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
from difmd.fitting.gauss_newton import gauss_newton
from difmd.fitting.objective import covariance_of, objective, weights_of
from difmd.fitting.result import FitError, FitInterrupted, FitResult
from difmd.fitting.terms import Term, flat_names, name_of
from difmd.fitting.transforms import Transform, logarithmic
from difmd.potentials import Params

CHECKPOINT = "fit.npz"

# Of keys of terms, which have numbers of their own for what they fold in.
_TERMS = 1 << 16


class _State(NamedTuple):
    """All that an iteration changes; it is replaced as a whole or not at all."""

    free: Any
    opt_state: Any
    of_terms: list[Any]
    history: list[dict[str, Any]]
    covariance: list[list[float]] | None


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
    `scalar_loss` of any differentiable function; `prior`s. Where all of them give residuals the default
    optimiser takes Gauss–Newton steps, and the errors of the parameters come from the curvature and the noise
    of the data:

        C = A⁻¹ (Jᵀ S J) A⁻¹,    A = JᵀJ,

    with the weighted Jacobian J of the residuals and their variances S. Residuals whose noise is not known
    have that which remains of those of their term: Σr² over their number less what of it the parameters
    follow. C belongs to the last parameters that were evaluated, with the noise of sampling of one iteration;
    it takes errors of residuals as independent, and J as exact, and is NaN where the data determine some
    combination of parameters no better than the noise of J does.

    Args:
        params: where to start.
        terms: the objective.
        n_iterations: steps of the optimiser.
        key: seed of everything random, `jax.random.key(0)`.
        optimizer: any optax transformation, on the coordinates of `transform`, schedules included; default
            `gauss_newton()`, for many parameters rather `optax.adam(...)`.
        transform: coordinates of the optimiser, bounds among them; default `logarithmic()`.
        folder: write a checkpoint there after every iteration and resume from it; default: none.
        progress: show a progress bar.
        on_iteration: called with each entry of the history.

    Returns:
        `FitResult`.

    Raises:
        InputError: bad arguments, a checkpoint of a different fit, or a folder that cannot be written.
        DifmdError: what a term raises before the first iteration.
        FitError: a non-finite loss, gradient or trajectory, or a checkpoint that cannot be written;
            `result.best_params` and the last checkpoint hold the last good ones.
        FitInterrupted: Ctrl-C; resumes to the same result as an uninterrupted fit.

    References:
        Press et al., Numerical Recipes, 3rd ed. 2007, §15.6 (errors of estimated parameters).
    """
    if n_iterations < 1:
        raise InputError(f"n_iterations = {n_iterations} must be at least 1")
    names = [term.name for term in terms]
    if not names or len(set(names)) < len(names):
        raise InputError(f"terms {names}: give at least one, each with a name of its own")
    for name in names:
        if name in ("loss", "losses", "params", "weights"):
            raise InputError(f"a term cannot have the name {name!r}: the history has an entry of that name")
    for k in range(n_iterations):
        weights_of(terms, k)
    optimizer = gauss_newton() if optimizer is None else optimizer
    transform = logarithmic() if transform is None else transform
    free = transform.to_free(params)
    path = None if folder is None else Path(folder) / CHECKPOINT
    settings = ""
    if path is not None:
        ensure_writable(path.parent)
        settings = fingerprint(
            str(jax.tree.structure(params)),
            params,
            free,
            [(term.name, term.settings(params)) for term in terms],
            jax.random.key_data(key),
            [name_of(function) for function in (transform.from_free, optimizer.update)],
        )
    optimizer = optax.with_extra_args_support(optimizer)
    begin_key, run_key = jax.random.split(key)
    n_visits = sum(term.n_visits for term in terms)
    state = _State(free, optimizer.init(free), [], [], None)

    def result() -> FitResult:
        now = transform.from_free(state.free)
        best, loss = _best(state.history, terms, n_iterations, now)
        covariance = None if state.covariance is None else np.asarray(state.covariance, np.float64)
        return FitResult(
            params=now, best_params=best, best_loss=loss, history=state.history, covariance=covariance
        )

    def save() -> None:
        if path is not None:
            stored = [term.stored(s) for term, s in zip(terms, state.of_terms, strict=True)]
            meta = {"settings": settings, "history": state.history, "covariance": state.covariance}
            save_checkpoint(path, (state.free, state.opt_state, stored), meta)

    with progress_bar("fit", n_iterations * n_visits, enabled=progress) as advance:
        if path is not None and path.exists():
            # Before anything begins: a checkpoint has the states of terms.
            state = _resumed(path, state, terms, settings)
            advance(min(len(state.history), n_iterations) * n_visits, "resumed")
        else:
            try:
                begun = [term.begin(params, _key_of(begin_key, k), advance) for k, term in enumerate(terms)]
            except KeyboardInterrupt:
                raise FitInterrupted(
                    "interrupted before the first iteration; the same call starts again", result()
                ) from None
            state = state._replace(of_terms=begun)
            save()
        try:
            for iteration in range(len(state.history), n_iterations):
                state = _iterated(
                    state,
                    iteration,
                    jax.random.fold_in(run_key, iteration),
                    terms,
                    transform,
                    optimizer,
                    advance,
                )
                save()
                if on_iteration is not None:
                    on_iteration(state.history[-1])
        except KeyboardInterrupt:
            where = f"; run again with folder={str(folder)!r} to go on" if folder else ""
            raise FitInterrupted(
                f"interrupted after {len(state.history)} of {n_iterations} iterations{where}", result()
            ) from None
        except DifmdError as error:
            raise FitError(f"iteration {iteration + 1}: {error}", result()) from error
    return result()


def _resumed(path: Path, state: _State, terms: Sequence[Term], settings: str) -> _State:
    """What the checkpoint holds.

    Raises:
        InputError: it is that of another fit.
    """
    like = (state.free, state.opt_state, [term.example() for term in terms])
    (free, opt_state, stored), meta = load_checkpoint(path, like)
    same_weights = all(
        entry["weights"] == _named(terms, weights_of(terms, k)) for k, entry in enumerate(meta["history"])
    )
    if meta["settings"] != settings or not same_weights:
        raise InputError(
            f"{path} is the checkpoint of a fit with other terms, weights, start, coordinates, optimiser or "
            "seed: delete it, or choose another folder"
        )
    of_terms = [term.restored(arrays) for term, arrays in zip(terms, stored, strict=True)]
    return _State(free, opt_state, of_terms, meta["history"], meta["covariance"])


def _iterated(
    state: _State,
    iteration: int,
    key: Array,
    terms: Sequence[Term],
    transform: Transform,
    optimizer: optax.GradientTransformationExtraArgs,
    advance: Callable[..., None],
) -> _State:
    """Evaluate all terms and take a step.

    Raises:
        DifmdError: what a term raises; numbers that are not finite.
    """
    now = transform.from_free(state.free)
    moving = _noted(advance, f"iteration {iteration + 1}")
    evaluated = [
        term.evaluate(now, old, _key_of(key, k), moving)
        for k, (term, old) in enumerate(zip(terms, state.of_terms, strict=True))
    ]
    found = [evaluation for evaluation, _ in evaluated]
    weights = weights_of(terms, iteration)
    whole = objective(found, weights, transform, state.free)
    if not _is_finite((whole.loss, whole.gradient)):
        raise DifmdError(
            f"loss {whole.loss} or its gradient is not finite; the parameters before it are kept. Shorten "
            "the window, lower the step, or check the targets"
        )
    updates, opt_state = optimizer.update(
        whole.gradient,
        state.opt_state,
        state.free,
        residuals=whole.residuals,
        jacobian=whole.jacobian,
        jacobian_stderr=whole.jacobian_stderr,
    )
    moved = optax.apply_updates(state.free, updates)
    if not _is_finite(moved):
        raise DifmdError(
            "the step of the optimiser is not finite; the parameters before it are kept. Lower its learning "
            "rate"
        )
    entry = {
        "loss": whole.loss,
        "params": flat_names(now),
        "losses": _named(terms, [float(e.loss) for e in found]),
        "weights": _named(terms, weights),
        **_named(terms, [e.record for e in found]),
    }
    return _State(
        moved,
        opt_state,
        [new for _, new in evaluated],
        [*state.history, entry],
        covariance_of(whole, transform, state.free),
    )


def _named(terms: Sequence[Term], values: Sequence[Any]) -> dict[str, Any]:
    return {term.name: value for term, value in zip(terms, values, strict=True)}


def _best(
    history: list[dict[str, Any]], terms: Sequence[Term], n_iterations: int, now: Params
) -> tuple[Params, float]:
    """Parameters with the lowest loss, by the weights of the last iteration."""
    if not history:
        return now, np.inf
    final = _named(terms, weights_of(terms, n_iterations - 1))
    losses = [sum(final[name] * loss for name, loss in entry["losses"].items()) for entry in history]
    best = int(np.argmin(losses))
    leaves, tree = jax.tree.flatten(now)
    values = history[best]["params"].values()
    kept = [jnp.asarray(value, leaf.dtype) for value, leaf in zip(values, leaves, strict=True)]
    return jax.tree.unflatten(tree, kept), losses[best]


def _key_of(key: Array, number: int) -> Array:
    """The key of a term; the first has that of the fit."""
    return key if number == 0 else jax.random.fold_in(key, _TERMS + number)


def _noted(advance: Callable[..., None], note: str) -> Callable[..., None]:
    def moving(steps: int, of_term: str = "") -> None:
        advance(steps, f"{note}, {of_term}" if of_term else note)

    return moving


def _is_finite(tree: Any) -> bool:
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))
