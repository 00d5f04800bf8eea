"""`fit_diffusivity`: parameters of a potential from measured diffusivities, through the trajectory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from difmd import units
from difmd.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd.errors import DifmdError, InputError
from difmd.fitting.estimate import StatePoint, measure_diffusivity
from difmd.fitting.gauss_newton import gauss_newton
from difmd.fitting.liquid import Replicas, Sampling, crystal, equilibrate, keep_liquid, list_of, melt
from difmd.fitting.targets import DiffusivityTarget
from difmd.fitting.transforms import Transform, logarithmic
from difmd.neighbors import neighbor_list
from difmd.potentials import Params, Potential, validate_inputs
from difmd.progress import progress_bar
from difmd.system import System

CHECKPOINT = "fit.npz"


class FitError(DifmdError, RuntimeError):
    """A fit had to stop; `result` holds what it had, the best parameters among them."""

    def __init__(self, message: str, result: FitResult) -> None:
        """Keep what the fit had."""
        super().__init__(message)
        self.result = result


class FitInterrupted(FitError, KeyboardInterrupt):
    """Ctrl-C during a fit; run it again with the same folder to go on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """The outcome of `fit_diffusivity`.

    Attributes:
        params: after the last step.
        best_params: those whose measured loss was lowest; the loss is noisy, so `params` of an
            averaging optimiser are usually the better ones.
        best_loss: their loss.
        history: a dict per iteration: `loss`, `params` (flat, by name), `D_1e-9_m2_s`,
            `D_stderr_1e-9_m2_s`, `replaced` (replicas that had crystallised), and the gradient of D by
            parameter name and target, `gradient`, `gradient_stderr`, and its two terms `along` and
            `initial` [1e-9 m²/s per unit of the parameter].
    """

    params: Params
    best_params: Params
    best_loss: float
    history: list[dict[str, Any]]


class _State(NamedTuple):
    free: Any
    opt_state: Any
    best: Any
    systems: list[System]


def fit_diffusivity(
    potential: Potential,
    params: Params,
    targets: Sequence[DiffusivityTarget],
    *,
    sampling: Sampling,
    n_iterations: int,
    key: Key[Array, ""],
    optimizer: optax.GradientTransformation | None = None,
    transform: Transform | None = None,
    residual: Callable[[Any, Any], Any] | None = None,
    replicas: Sequence[Replicas] | None = None,
    initial_state_term: bool = True,
    folder: str | Path | None = None,
    progress: bool = True,
    on_iteration: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Fit parameters so that the simulated diffusivities match measured ones.

    The loss is the mean over targets of the squared residual, D with the finite-size correction of
    each target. Its gradient goes through the trajectories and through the distribution of their starts.
    Each iteration relaxes the replicas at the new parameters, follows Newton's equations, and takes one
    step of the optimiser.

    Args:
        potential: the energy model.
        params: where to start.
        targets: measured values, all temperatures at once.
        sampling: how the liquid is simulated.
        n_iterations: steps of the optimiser.
        key: seed of everything random, `jax.random.key(0)`.
        optimizer: any optax transformation, on the coordinates of `transform`; default
            `gauss_newton()`, for many parameters rather `optax.adam(...)`.
        transform: coordinates of the optimiser; default `logarithmic()`.
        residual: `residual(D, D_measured)` of arrays [targets], differentiable; default
            `relative_residual`, ln(D/D_measured). `absolute_residual` is plain least squares in D.
        replicas: equilibrated liquids, one a target; default: melted here.
        initial_state_term: include the change of the distribution of the starts in the gradient.
        folder: write a checkpoint there after every iteration and resume from it; default: none.
        progress: show a progress bar.
        on_iteration: called with each entry of the history.

    Returns:
        `FitResult`.

    Raises:
        InputError: bad arguments, or a checkpoint of a different fit.
        FitError: a non-finite loss, gradient or trajectory, or a checkpoint that cannot be written;
            `result.best_params` and the last checkpoint hold the last good ones.
        FitInterrupted: Ctrl-C; resumes to the same result as an uninterrupted fit.
    """
    if not targets:
        raise InputError("no targets to fit to")
    if n_iterations < 1:
        raise InputError(f"n_iterations = {n_iterations} must be at least 1")
    if replicas is not None and len(replicas) != len(targets):
        raise InputError(f"{len(replicas)} sets of replicas for {len(targets)} targets")
    example = crystal(targets[0].density, sampling)
    validate_inputs(potential, params, example)
    optimizer = optax.with_extra_args_support(gauss_newton() if optimizer is None else optimizer)
    transform = logarithmic() if transform is None else transform
    residual = relative_residual if residual is None else residual
    free = transform.to_free(params)
    settings = fingerprint(
        _fingerprint_energy(potential, params, example),
        params,
        [dataclasses.astuple(t) for t in targets],
        dataclasses.astuple(sampling),
        jax.random.key_data(key),
        initial_state_term,
        [_name(function) for function in (residual, transform.from_free, optimizer.update)],
        replicas is None,
    )
    path = None if folder is None else Path(folder) / CHECKPOINT
    if path is not None:
        ensure_writable(path.parent)
    history: list[dict[str, Any]] = []
    melt_key, run_key = jax.random.split(key)
    with progress_bar("fit", n_iterations * len(targets), enabled=progress) as advance:
        best_loss = np.inf
        saved = None
        if path is not None and path.exists():
            # Before anything is melted: a checkpoint has liquids of its own.
            expected = [_crystals(target, sampling) for target in targets]
            saved, meta = load_checkpoint(path, _State(free, optimizer.init(free), free, expected))
            if meta["settings"] != settings:
                raise InputError(
                    f"{path} is the checkpoint of a fit with another potential, targets, sampling, start or "
                    "seed: delete it, or choose another folder"
                )
            history, best_loss = meta["history"], float(meta["best_loss"])
        if saved is not None:
            replicas = _with_lists(potential, saved.systems, sampling, replicas)
            state = saved
            advance(min(len(history), n_iterations) * len(targets), "resumed")
        else:
            if replicas is None:
                replicas = _melted(potential, params, targets, sampling, melt_key, advance)
            replicas = list(replicas)
            state = _State(free, optimizer.init(free), free, [r.systems for r in replicas])
            if path is not None:
                save_checkpoint(path, state, {"settings": settings, "history": [], "best_loss": best_loss})

        def result() -> FitResult:
            return FitResult(
                params=transform.from_free(state.free),
                best_params=transform.from_free(state.best),
                best_loss=best_loss,
                history=history,
            )

        try:
            for iteration in range(len(history), n_iterations):
                now = transform.from_free(state.free)
                points = []
                key_now = jax.random.fold_in(run_key, iteration)
                replaced = 0
                for n, target in enumerate(targets):
                    point, replicas[n], solid = _visit(
                        potential,
                        now,
                        target,
                        replicas[n],
                        sampling,
                        jax.random.fold_in(key_now, n),
                        initial_state_term,
                    )
                    points.append(point)
                    replaced += solid
                    advance(1, f"iteration {iteration + 1}")
                residuals, jacobian, errors = _residuals(points, targets, transform, state.free, residual)
                loss = float(np.mean(np.asarray(residuals) ** 2))
                gradient = _loss_gradient(residuals, jacobian)
                if not _is_finite((residuals, gradient)):
                    raise FitError(
                        f"iteration {iteration + 1}: loss {loss} or its gradient is not finite; the "
                        "parameters before it are kept. Shorten the window, lower the step, or "
                        "check the targets",
                        result(),
                    )
                best = state.best
                if loss < best_loss:
                    best_loss, best = loss, state.free
                updates, opt_state = optimizer.update(
                    gradient,
                    state.opt_state,
                    state.free,
                    residuals=residuals,
                    jacobian=jacobian,
                    jacobian_stderr=errors,
                )
                moved = optax.apply_updates(state.free, updates)
                entry = _entry(loss, now, points, replaced)
                if not _is_finite(moved):
                    raise FitError(
                        f"iteration {iteration + 1}: the step of the optimiser is not finite; the "
                        "parameters before it are kept. Lower its learning rate",
                        result(),
                    )
                history = [*history, entry]
                state = _State(moved, opt_state, best, [r.systems for r in replicas])
                if path is not None:
                    meta = {"settings": settings, "history": history, "best_loss": best_loss}
                    save_checkpoint(path, state, meta)
                if on_iteration is not None:
                    on_iteration(entry)
        except KeyboardInterrupt:
            where = f"; run again with folder={str(folder)!r} to go on" if folder else ""
            raise FitInterrupted(
                f"interrupted after {len(history)} of {n_iterations} iterations{where}", result()
            ) from None
        except FitError:
            raise
        except DifmdError as error:
            raise FitError(f"iteration {iteration + 1}: {error}", result()) from error
    return result()


def _melted(
    potential: Potential,
    params: Params,
    targets: Sequence[DiffusivityTarget],
    sampling: Sampling,
    key: Key[Array, ""],
    advance: Callable[[int, str], None],
) -> list[Replicas]:
    """Liquids for all targets, in the order of the targets."""
    replicas: list[Replicas] = []
    try:
        for n, target in enumerate(targets):
            advance(0, f"melting at {target.temperature:g} K")
            replicas.append(
                melt(
                    potential,
                    params,
                    temperature=target.temperature,
                    density=target.density,
                    sampling=sampling,
                    key=jax.random.fold_in(key, n),
                    like=replicas[-1] if replicas else None,
                )
            )
    except KeyboardInterrupt:
        nothing = FitResult(params=params, best_params=params, best_loss=np.inf, history=[])
        raise FitInterrupted("interrupted while melting; the same call starts again", nothing) from None
    return replicas


def _crystals(target: DiffusivityTarget, sampling: Sampling) -> System:
    """Arrays of the shape that the liquids of a target have."""
    one = crystal(target.density, sampling)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (sampling.n_replicas, *x.shape)), one)


def _with_lists(
    potential: Potential,
    systems: Sequence[System],
    sampling: Sampling,
    replicas: Sequence[Replicas] | None,
) -> list[Replicas]:
    """Liquids of a checkpoint with neighbour lists, those of `replicas` if there are any."""
    if replicas is not None:
        return [r._replace(systems=s) for r, s in zip(replicas, systems, strict=True)]
    found: list[Replicas] = []
    for batch in systems:
        like = found[-1].neighbors if found else None
        found.append(Replicas(batch, list_of(potential, batch, sampling, like)))
    return found


def _fingerprint_energy(potential: Potential, params: Params, system: System) -> str:
    """The energy of a shaken crystal to four digits, by which potentials are told apart."""
    noise = jax.random.normal(jax.random.key(0), system.positions.shape, system.positions.dtype)
    shaken = system.replace(positions=system.positions + 0.2 * noise)
    neighbors = neighbor_list(shaken, cutoff=potential.cutoff, twins=potential.uses_twins)
    return f"{float(jax.jit(potential.apply)(params, shaken, neighbors)):.3e}"


def _visit(
    potential: Potential,
    params: Params,
    target: DiffusivityTarget,
    replicas: Replicas,
    sampling: Sampling,
    key: Any,
    initial_state_term: bool,
) -> tuple[StatePoint, Replicas, int]:
    """Relax the replicas at new parameters, keep the liquid ones, and measure with gradient."""
    relax_key, liquid_key, measure_key = jax.random.split(key, 3)
    before = replicas.n_refrozen
    replicas = equilibrate(
        potential,
        params,
        replicas,
        temperature=target.temperature,
        time=sampling.relaxation_time,
        sampling=sampling,
        key=relax_key,
    )
    replicas = keep_liquid(replicas, density=target.density, sampling=sampling, key=liquid_key)
    point, after = measure_diffusivity(
        potential,
        params,
        target,
        replicas,
        sampling=sampling,
        key=measure_key,
        with_gradient=True,
        initial_state_term=initial_state_term,
    )
    return point, after, after.n_refrozen - before


def relative_residual(value: Array, measured: Array) -> Array:
    """ln(D/D_measured): every target counts by its relative deviation."""
    return jnp.log(value / measured)


def absolute_residual(value: Array, measured: Array) -> Array:
    """(D − D_measured)/rms(D_measured): least squares in D, as for equal absolute errors."""
    return (value - measured) / jnp.sqrt(jnp.mean(measured**2))


def _residuals(
    points: list[StatePoint],
    targets: Sequence[DiffusivityTarget],
    transform: Transform,
    free: Any,
    residual: Callable[[Any, Any], Any],
) -> tuple[Any, Any, Any]:
    """Residuals, their Jacobian in the free coordinates, and the error of that."""
    values = jnp.asarray([point.value for point in points])
    measured = jnp.asarray([target.diffusivity for target in targets])
    residuals, slopes = jax.jvp(lambda v: residual(v, measured), (values,), (jnp.ones_like(values),))
    rows, errors = [], []
    _, pull = jax.vjp(transform.from_free, free)
    for point, slope in zip(points, slopes, strict=True):
        assert point.gradient is not None
        (row,) = pull(jax.tree.map(lambda g, s=slope: g * s, point.gradient.gradient))
        (error,) = pull(jax.tree.map(lambda g, s=slope: g * s, point.gradient.gradient_stderr))
        rows.append(row)
        errors.append(jax.tree.map(jnp.abs, error))

    def stack(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *x: jnp.stack(x), *trees)

    return residuals, stack(rows), stack(errors)


def _loss_gradient(residuals: Array, jacobian: Any) -> Any:
    """Gradient of the mean squared residual."""
    return jax.tree.map(lambda j: 2 * jnp.tensordot(residuals, j, 1) / len(residuals), jacobian)


def _name(function: Callable[..., Any]) -> str:
    """Where a function was defined; what it closes over is not in it."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _is_finite(tree: Any) -> bool:
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def _entry(loss: float, params: Params, points: list[StatePoint], replaced: int) -> dict[str, Any]:
    unit = 1e-9 * units.M2_PER_S
    terms: dict[str, dict[str, list[Any]]] = {}
    for term in ("gradient", "gradient_stderr", "along", "initial"):
        rows = [_flat(getattr(point.gradient, term), 1 / unit) for point in points]
        terms[term] = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "loss": loss,
        "params": _flat(params),
        "D_1e-9_m2_s": [point.value / unit for point in points],
        "D_stderr_1e-9_m2_s": [point.stderr / unit for point in points],
        "replaced": replaced,
        **terms,
    }


def _flat(tree: Any, scale: float = 1.0) -> dict[str, Any]:
    """Leaves as nested lists, by name."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (
            scale * np.asarray(leaf, np.float64)
        ).tolist()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
