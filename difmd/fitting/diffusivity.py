"""`fit_diffusivity`: parameters of a potential from measured diffusivities, through the trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optax
from jaxtyping import Array, Key

from difmd.fitting.driver import fit
from difmd.fitting.liquids.replicas import Replicas
from difmd.fitting.liquids.sampling import Sampling
from difmd.fitting.result import FitResult
from difmd.fitting.state_points_term import state_points
from difmd.fitting.targets.diffusivity import DiffusivityTarget
from difmd.fitting.transforms import Transform
from difmd.gradients.base import GradientMethod
from difmd.potentials import Params, Potential


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
    gradient: GradientMethod | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
    on_iteration: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Fit parameters so that the simulated diffusivities match measured ones.

    The loss is the mean over targets of the squared residual; D includes the finite-size correction of each
    target. Its gradient goes through the trajectories and through the distribution of their initial states.
    Each iteration relaxes the replicas at the new parameters, integrates Newton's equations, and makes one
    step of the optimiser.

    Args:
        potential: the energy model.
        params: initial parameters.
        targets: measured values at all temperatures.
        sampling: how the liquid is simulated.
        n_iterations: steps of the optimiser.
        key: seed of everything random, `jax.random.key(0)`.
        optimizer: any optax transformation, on the coordinates of `transform`; default
            `gauss_newton()`, for many parameters rather `optax.adam(...)`.
        transform: coordinates of the optimiser; default `logarithmic()`.
        residual: `residual(D, D_measured)` of arrays [targets], differentiable; default
            `relative_residual`, ln(D/D_measured). `absolute_residual` is plain least squares in D.
        replicas: equilibrated liquids, one for each state point; default: melted here.
        initial_state_term: include the change of the distribution of initial states in the gradient.
        gradient: how trajectories are differentiated: any method of `difmd.gradients`, such as
            `reversible()`; default `checkpointed()`.
        folder: write a checkpoint there after every iteration and resume from it; default: none.
        progress: show a progress bar.
        on_iteration: called with each entry of the history.

    Returns:
        `FitResult`; an entry of its history has, in addition to those of `fit`, under "diffusivity":
        `D_1e-9_m2_s`, `D_stderr_1e-9_m2_s`, `replaced` (replicas that had crystallised), and the gradient of
        D by parameter name and target, `gradient`, `gradient_stderr`, and its two terms `along` and `initial`
        [1e-9 m²/s per unit of the parameter].

    Raises:
        InputError: bad arguments, or a checkpoint of a different fit.
        DifmdError: melting failed.
        FitError: a non-finite loss or gradient, a failed simulation, or a checkpoint that cannot be written;
            `partial_result` and the last checkpoint hold the completed iterations.
        FitInterrupted: Ctrl-C; resumes to the same result as an uninterrupted fit.
    """
    term = state_points(
        potential, params, targets, sampling=sampling, residual=residual, replicas=replicas,
        initial_state_term=initial_state_term, gradient=gradient, name="diffusivity",
    )  # fmt: skip
    return fit(
        params, [term], n_iterations=n_iterations, key=key, optimizer=optimizer, transform=transform,
        folder=folder, progress=progress, on_iteration=on_iteration,
    )  # fmt: skip
