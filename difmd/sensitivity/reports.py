"""`gradient_report`: how far back gradients through the dynamics are useful, and the costs of methods."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from difmd._internal.progress import progress_bar
from difmd._internal.replicas import map_replicas, run_replicas
from difmd.errors import DifmdError, InputError, SimulationError, Status, check_positive, describe, flags_of
from difmd.forces import plain_forces
from difmd.gradients.base import GradientMethod
from difmd.gradients.checkpointed import checkpointed
from difmd.gradients.direct import direct
from difmd.gradients.reversible import reversible
from difmd.gradients.segment import Carry, Inputs, Plan, segment
from difmd.integrators import Integrator, MDState, draw_momenta
from difmd.integrators.base import check_integrator
from difmd.neighbors import Neighbors, rebuild
from difmd.observables.statistics import over_replicas
from difmd.potentials import Params, Potential
from difmd.sensitivity.arguments import check_rebuildable
from difmd.sensitivity.lyapunov import lyapunov_exponents, tangent_growth
from difmd.sensitivity.report import Cost, GradientReport
from difmd.simulation.replay import replay_on_overflow
from difmd.simulation.rollouts import initialize, rollout
from difmd.system import System

# Up to so many parameters are differentiated individually; of more, so many random directions.
_MOST, _DIRECTIONS = 8, 4

Observable = Callable[[System, MDState], Array]
"""`observable(initial, state) -> number` of the initial system and a later state."""


def squared_displacement(initial: System, state: MDState) -> Float[Array, ""]:
    """Mean over atoms of |r(t) − r(0)|² [Å²]."""
    return jnp.mean(jnp.sum((state.system.positions - initial.positions) ** 2, axis=-1))


def gradient_report(
    potential: Potential,
    params: Params,
    systems: System,
    integrator: Integrator,
    neighbors: Neighbors,
    *,
    initial_temperature: float,
    n_steps: int,
    save_every: int,
    key: Key[Array, ""],
    observable: Observable = squared_displacement,
    methods: Mapping[str, GradientMethod] | None = None,
    tolerance: float = 0.1,
    progress: bool = True,
) -> GradientReport:
    """Measure how the gradient through trajectories grows with the horizon, before a fit relies on it.

    Every replica starts with new momenta. Derivatives of A(t) at all horizons come from one run in forward
    mode; they are the term along the trajectory, without the change of the distribution of initial states.
    The Lyapunov exponent is that of Newtonian motion.

    Args:
        potential: the energy model.
        params: its parameters; up to 8 numbers are differentiated one by one, more along 4 random directions.
        systems: replicas, equilibrated at this temperature; [replicas, ...].
        integrator: the time stepping.
        neighbors: their neighbour lists, with skin; [replicas, ...].
        initial_temperature: at which the initial momenta are drawn [K].
        n_steps: the longest horizon, a multiple of `save_every`.
        save_every: steps between horizons; the list is rebuilt after each.
        key: seed of momenta, noise and directions.
        observable: A(initial system, state), a number; default: the mean squared displacement [Å²].
        methods: gradient methods to be measured, by name; default: direct, checkpointed and reversible.
        tolerance: relative error that suffices.
        progress: show a progress bar.

    Returns:
        `GradientReport`.

    Raises:
        InputError: a single replica, numbers of steps that do not divide, a tolerance or temperature that is
            not positive, or systems or lists that do not fit the potential.
        SimulationError: a run failed.

    References:
        Metz et al., arXiv:2111.05803 (gradients through chaotic dynamics); for λ see `tangent_growth`.
    """
    _check(potential, params, systems, integrator, neighbors, n_steps, save_every)
    check_positive("initial_temperature", initial_temperature, "K")
    check_positive("tolerance", tolerance, "")
    if methods is None:
        methods = {"direct": direct(), "checkpointed": checkpointed(), "reversible": reversible()}
    names, directions = _directions(params, key)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(systems.positions))
    kelvin = jnp.asarray(initial_temperature, systems.positions.dtype)
    static = (potential, observable, n_steps, save_every)
    shared = (params, integrator, kelvin, directions)
    with progress_bar("gradients", 1 + len(methods), enabled=progress) as advance:
        advance(0, "horizons")

        def run(neighbors: Neighbors) -> _Horizons:
            batched = (systems, neighbors, keys)
            return run_replicas(_run_horizons, static, shared, batched, n_atoms=systems.n_atoms)

        horizons, neighbors, _ = replay_on_overflow(run, systems, neighbors)
        advance(1)
        first = jax.tree.map(lambda x: x[0], (systems, neighbors, keys))
        costs = _costs(static, (params, integrator, kelvin), first, methods, advance)
    return _report(names, horizons, costs, tolerance, integrator, save_every)


def _check(
    potential: Potential, params: Params, systems: System, integrator: Integrator, neighbors: Neighbors,
    n_steps: int, save_every: int,
) -> None:  # fmt: skip
    """Raise `InputError` for arguments that do not fit together."""
    check_integrator(integrator)
    if not isinstance(systems, System) or systems.positions.ndim != 3:
        raise InputError("systems must be replicas with positions [replicas, atoms, 3]")
    if len(systems.positions) < 2:
        raise InputError(f"{len(systems.positions)} replica gives no error bar: use two or more")
    if min(n_steps, save_every) < 1 or n_steps % save_every:
        raise InputError(f"n_steps = {n_steps} must be a positive multiple of save_every = {save_every}")
    if not isinstance(neighbors, Neighbors) or neighbors.reference_positions.ndim != 3:
        raise InputError("neighbors must be the lists of all replicas: neighbor_list(systems, ...)")
    check_rebuildable(potential, params, *jax.tree.map(lambda x: x[0], (systems, neighbors)))


class _Horizons(NamedTuple):
    """A and its derivatives at all horizons, and ln|δ(t)|, of each replica."""

    values: Array
    slopes: Array
    growth: Array
    status: Status


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run_horizons(
    potential: Potential, observable: Observable, n_steps: int, save_every: int, params: Params,
    integrator: Integrator, temperature: Array, directions: Array, systems: System, neighbors: Neighbors,
    keys: Array,
) -> _Horizons:  # fmt: skip
    flat, restore = ravel_pytree(params)

    def of_replica(system: System, neighbors: Neighbors, key: Array) -> _Horizons:
        momentum_key, noise_key, tangent_key = jax.random.split(key, 3)
        momenta = draw_momenta(momentum_key, system, temperature)
        fresh = rebuild(system, neighbors)

        def along(x: Array) -> tuple[Array, Status]:
            moved = restore(flat + x @ directions)
            plan = Plan(
                potential=potential, force=plain_forces, save=lambda state, _: observable(system, state),
                save_every=save_every, n_frames=1, n_segments=n_steps // save_every, rebuilds=True,
            )  # fmt: skip
            state = integrator.init(
                system, momenta, noise_key, lambda system: plain_forces(potential, moved, system, fresh)
            )
            inputs = Inputs(moved, integrator, neighbors)
            begin = Carry(state, None, Status.ok())
            end, values = lax.scan(lambda c, _: segment(plan, inputs, c), begin, None, length=plan.n_segments)
            return values.reshape(-1), end.status

        def derivative(direction: Array) -> Any:
            return jax.jvp(along, (jnp.zeros_like(direction),), (direction,), has_aux=True)

        basis = jnp.eye(len(directions), dtype=flat.dtype)
        values, slopes, status = jax.vmap(derivative, out_axes=(None, 0, None))(basis)
        grown = tangent_growth(
            potential, params, system, momenta, neighbors,
            dt=integrator.dt, n_steps=n_steps, rebuild_every=save_every, key=tangent_key,
        )  # fmt: skip
        both = Status(
            flags=status.flags | grown.status.flags,
            first_bad_step=jnp.where(status.flags > 0, status.first_bad_step, grown.status.first_bad_step),
        )
        return _Horizons(values, slopes, grown.log_growth, both)

    return map_replicas(of_replica, len(keys))(systems, neighbors, keys)


def _directions(params: Params, key: Array) -> tuple[tuple[str, ...], Array]:
    """Names, and a row for each direction in the space of all parameters."""
    flat, _ = ravel_pytree(params)
    if flat.size <= _MOST:
        names = [
            jax.tree_util.keystr(path, simple=True, separator=".") + (f"[{k}]" if leaf.size > 1 else "")
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            for k in range(leaf.size)
        ]
        return tuple(names), jnp.diag(jnp.where(flat == 0, 1, flat))
    noise = jax.random.normal(jax.random.fold_in(key, 0), (_DIRECTIONS, flat.size), flat.dtype)
    # Of the same norm as the parameters.
    rows = noise * jnp.linalg.norm(flat) / jnp.sqrt(jnp.asarray(flat.size, flat.dtype))
    return tuple(f"direction {k + 1}" for k in range(_DIRECTIONS)), rows


def _costs(
    static: tuple[Any, ...], shared: tuple[Any, ...], first: Any, methods: Mapping[str, GradientMethod],
    advance: Callable[..., None],
) -> tuple[Cost, ...]:  # fmt: skip
    """Time and memory of value and gradient for one replica, the rollout alone first."""
    potential, observable, n_steps, save_every = static
    (params, integrator, temperature), (system, capacity, key) = shared, first
    momentum_key, noise_key = jax.random.split(key)
    momenta = draw_momenta(momentum_key, system, temperature)
    neighbors = rebuild(system, capacity)

    def value(
        method: GradientMethod | None, params: Params, system: System, neighbors: Neighbors
    ) -> tuple[Array, Status]:
        state = initialize(potential, params, system, integrator, neighbors, momenta=momenta, key=noise_key)
        run = rollout(
            potential, params, state, integrator, neighbors,
            n_steps=n_steps, save_every=save_every, rebuild_every=save_every, gradient=method,
            save=lambda state, _: observable(system, state),
        )  # fmt: skip
        return run.frames[-1], run.status

    alone, memory = _measured(functools.partial(value, None), params, system, neighbors)
    costs = [Cost("the rollout alone", alone, 1.0, memory)]
    for name, method in methods.items():
        advance(0, name)
        differentiated = jax.value_and_grad(functools.partial(value, method), has_aux=True)
        try:
            seconds, memory = _measured(differentiated, params, system, neighbors)
            costs.append(Cost(name, seconds, seconds / alone, memory))
        except DifmdError as refusal:
            costs.append(Cost(name, np.nan, np.nan, np.nan, str(refusal)))
        advance(1)
    return tuple(costs)


def _measured(function: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Seconds, the best of three, and bytes of intermediate results, NaN if the compiler does not say."""
    compiled = jax.jit(function).lower(*arguments).compile()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - begun)
    for part in jax.tree.leaves(result, is_leaf=lambda x: isinstance(x, Status)):
        # For instance OFF_GRID of `reversible`.
        if isinstance(part, Status) and flags_of(part):
            raise SimulationError(describe(part))
    analysis = compiled.memory_analysis()
    return min(times), float(analysis.temp_size_in_bytes) if analysis is not None else np.nan


def _report(
    names: tuple[str, ...], horizons: _Horizons, costs: tuple[Cost, ...], tolerance: float,
    integrator: Integrator, save_every: int,
) -> GradientReport:  # fmt: skip
    if flags_of(horizons.status):
        raise SimulationError(f"gradient_report: {describe(horizons.status)}")
    values, slopes, growth = (np.asarray(x, np.float64) for x in horizons[:3])
    n, _, n_lags = slopes.shape
    times = float(integrator.dt) * save_every * np.arange(1, n_lags + 1)
    value, (mean, stderr) = over_replicas(values), over_replicas(slopes)
    sizes = np.linalg.norm(slopes, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.linalg.norm(stderr, axis=0) / np.linalg.norm(mean, axis=0)
        effective = sizes.sum(axis=0) ** 2 / (n * (sizes**2).sum(axis=0))
    rate = over_replicas(lyapunov_exponents(times, growth))
    good = np.flatnonzero(relative <= tolerance)
    return GradientReport(
        names=names, times=times, value=value.value, value_stderr=value.stderr, gradient=mean,
        gradient_stderr=stderr, effective=effective, relative_error=relative, lyapunov=float(rate.value),
        lyapunov_stderr=float(rate.stderr), horizon=float(times[good[-1]]) if len(good) else np.nan,
        tolerance=tolerance, n_replicas=n, costs=costs,
    )  # fmt: skip
