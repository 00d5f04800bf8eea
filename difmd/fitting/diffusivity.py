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

    This is `fit` with `state_points` as its only term, named "diffusivity". The loss is the mean over targets
    of the squared residual; D includes the finite-size correction of each target.

    Args:
        potential: the energy model.
        params: initial parameters.
        targets: measured values at all temperatures.
        sampling: how the liquid is simulated.
        n_iterations: steps of the optimiser.
        key: seed of everything random, `jax.random.key(0)`.
        optimizer: as in `fit`.
        transform: as in `fit`.
        residual: as in `state_points`; `absolute_residual` is plain least squares in D.
        replicas: as in `state_points`.
        initial_state_term: as in `state_points`.
        gradient: as in `state_points`.
        folder: as in `fit`.
        progress: show a progress bar.
        on_iteration: called with each entry of the history.

    Returns:
        `FitResult`; an entry of its history has, in addition to those of `fit`, the record of `state_points`
        under "diffusivity".

    Raises:
        InputError: bad arguments, or a checkpoint of a different fit.
        DifmdError: melting failed.
        FitError: as in `fit`.
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
