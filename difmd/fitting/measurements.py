"""Measure targets of a state point in equilibrated replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Key

from difmd.errors import InputError
from difmd.fitting.liquids.dynamics import Production, produce
from difmd.fitting.liquids.replicas import Replicas, check_replicas, first_replica
from difmd.fitting.liquids.sampling import Sampling
from difmd.fitting.liquids.states import states_of
from difmd.fitting.targets.diffusivity import DiffusivityTarget, StatePoint
from difmd.fitting.targets.target import Setup, StatePointRun, Target
from difmd.gradients.base import GradientMethod
from difmd.potentials import Params, Potential


def measure_diffusivity(
    potential: Potential,
    params: Params,
    target: DiffusivityTarget,
    replicas: Replicas,
    *,
    sampling: Sampling,
    key: Key[Array, ""],
    with_gradient: bool = False,
    initial_state_term: bool = True,
    gradient: GradientMethod | None = None,
) -> tuple[StatePoint, Replicas]:
    """Measure the diffusivity of a state point in equilibrated replicas, and optionally its gradient.

    Args:
        potential: the energy model.
        params: its parameters.
        target: the state point; its measured value is not used.
        replicas: equilibrated at these parameters and this temperature.
        sampling: how the liquid is simulated.
        key: seed.
        with_gradient: also differentiate.
        initial_state_term: as in `measure`.
        gradient: as in `measure`.

    Returns:
        The diffusivity, and the replicas at the end of their trajectories.

    Raises:
        InputError: replicas that do not fit the potential, a species that is not in them, or a gradient
            method that does not suit `sampling.gradient_window`.
        SimulationError: a run failed.
    """
    results, after, _ = measure(
        potential, params, [target], replicas, sampling=sampling, key=key, with_gradient=with_gradient,
        initial_state_term=initial_state_term, gradient=gradient,
    )  # fmt: skip
    return results[0], after


def measure(
    potential: Potential,
    params: Params,
    targets: Sequence[Target],
    replicas: Replicas,
    *,
    sampling: Sampling,
    key: Key[Array, ""],
    with_gradient: bool = False,
    initial_state_term: bool = True,
    gradient: GradientMethod | None = None,
) -> tuple[list[Any], Replicas, Production | None]:
    """Measure all targets of one state point in the same trajectories.

    Args:
        potential: the energy model.
        params: its parameters.
        targets: of one temperature and density; their measured values are not used.
        replicas: equilibrated at these.
        sampling: how the liquid is simulated.
        key: seed.
        with_gradient: also differentiate.
        initial_state_term: include the change of the distribution of initial states in ∂D/∂θ.
        gradient: how trajectories are differentiated; default `difmd.gradients.checkpointed()`.

    Returns:
        The result for each target, a `StatePoint` for a diffusivity and a `Structure` for a g(r); the
        replicas at the end of their trajectories; and these, or None where no target needs them.

    Raises:
        InputError: targets of several state points, replicas that do not fit the potential, or a target that
            cannot be measured in them.
        SimulationError: a run failed.
    """
    check_targets(targets)
    points = {(target.temperature, target.density) for target in targets}
    if len(points) > 1:
        raise InputError(f"targets of {len(points)} state points: measure those of one at a time")
    check_replicas(potential, params, replicas)
    setup = Setup(potential, sampling, with_gradient, initial_state_term, check_gradient(gradient))
    for target in targets:
        target.check(setup, params, first_replica(replicas.systems))
    results, run = run_state_point(setup, params, targets, replicas, key)
    return results, run.replicas, run.production


def run_state_point(
    setup: Setup, params: Params, targets: Sequence[Target], replicas: Replicas, key: Key[Array, ""]
) -> tuple[list[Any], StatePointRun]:
    """Simulate a state point and measure its targets, without checks of the input."""
    produce_key, gradient_key = jax.random.split(key)
    temperature = targets[0].temperature
    production = states = None
    if any(target.uses_production for target in targets):
        production, replicas = produce(
            setup.potential, params, replicas, temperature=temperature, sampling=setup.sampling,
            key=produce_key, with_energy_gradients=setup.with_gradient,
        )  # fmt: skip
        states = states_of(production)
    run = StatePointRun(setup, params, temperature, replicas, states, production, gradient_key)
    return [target.measure(run) for target in targets], run


def check_targets(targets: Sequence[Target]) -> None:
    """Raise `InputError` unless there are targets, and nothing else."""
    if not targets:
        raise InputError("no targets to fit to")
    for target in targets:
        if not isinstance(target, Target):
            raise InputError(
                f"target {target!r} must be a Target, such as DiffusivityTarget(...) or StructureTarget(...)"
            )


def check_gradient(gradient: Any) -> GradientMethod | None:
    """Raise `InputError` unless it is a gradient method."""
    if gradient is not None and not isinstance(gradient, GradientMethod):
        raise InputError(
            f"gradient = {type(gradient).__name__} must be a gradient method of difmd.gradients, such as "
            "checkpointed() or reversible(); reweighting(...) goes to state_points(reuse=)"
        )
    return gradient
