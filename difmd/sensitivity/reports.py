"""`gradient_report`: how far back a gradient through the dynamics is worth it, and what each method costs."""

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

from difmd import units
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
from difmd.neighbors import Neighbors, rebuild
from difmd.observables.statistics import over_replicas
from difmd.potentials import Params, Potential
from difmd.sensitivity.lyapunov import lyapunov_exponents, tangent_growth
from difmd.simulation.replay import replay_on_overflow
from difmd.simulation.rollouts import initialize, rollout
from difmd.system import System

# Parameters that are looked at one by one; of more, so many random directions.
_MOST, _DIRECTIONS = 8, 4

Observable = Callable[[System, MDState], Array]
"""`observable(start, state) -> number`."""


class Cost(NamedTuple):
    """What a method takes for one replica over the longest horizon.

    Attributes:
        method: its name.
        seconds: of value and gradient.
        over_forward: that over the time of the rollout alone.
        peak_bytes: memory for intermediate results, as the compiler plans it.
        refusal: why the method cannot be used; else empty, and otherwise the numbers are NaN.
    """

    method: str
    seconds: float
    over_forward: float
    peak_bytes: float
    refusal: str = ""


class GradientReport(NamedTuple):
    """What `gradient_report` found; `print` shows it as a table, `plots.plot_gradient_report` as a plot.

    Derivatives are θ ∂A/∂θ of each number (1 · ∂A/∂θ where θ is 0), or along random directions.

    Attributes:
        names: of parameters, or of directions; [numbers].
        times: horizons t [Å√(amu/eV)]; [lags].
        value: ⟨A(t)⟩ over replicas; [lags].
        value_stderr: its standard error; [lags].
        gradient: mean over replicas; [numbers, lags].
        gradient_stderr: its standard error; [numbers, lags].
        effective: (Σ|g|)²/(n Σ|g|²) over replicas, the share of them that makes the mean; [lags].
        relative_error: ‖stderr‖/‖mean‖ over numbers; [lags].
        lyapunov: λ [1/time].
        lyapunov_stderr: its standard error over replicas [1/time].
        horizon: the longest with a relative error below `tolerance`, whatever those of shorter ones are; NaN
            if none [Å√(amu/eV)].
        tolerance: as given.
        n_replicas: looked at.
        costs: of each method.
    """

    names: tuple[str, ...]
    times: np.ndarray
    value: np.ndarray
    value_stderr: np.ndarray
    gradient: np.ndarray
    gradient_stderr: np.ndarray
    effective: np.ndarray
    relative_error: np.ndarray
    lyapunov: float
    lyapunov_stderr: float
    horizon: float
    tolerance: float
    n_replicas: int
    costs: tuple[Cost, ...]

    @property
    def replicas_needed(self) -> np.ndarray:
        """Replicas that bring the relative error to `tolerance`, for each horizon."""
        return self.n_replicas * (self.relative_error / self.tolerance) ** 2

    def __str__(self) -> str:
        """Horizons, ten of them, and methods."""
        rate = f"{self.lyapunov * units.PS:.2f} ± {self.lyapunov_stderr * units.PS:.2f} /ps"
        lines = [
            f"{self.n_replicas} replicas, Lyapunov exponent {rate}",
            "",
            f"{'horizon':>9} {'A':>11} {'|gradient|':>11} {'error':>7} {'n_eff':>6} {'replicas for':>13}",
            f"{'ps':>9} {'':>11} {'':>11} {'%':>7} {'%':>6} {f'{100 * self.tolerance:g} %':>13}",
        ]
        n = len(self.times)
        for k in sorted({round(x) for x in np.linspace(0, n - 1, min(n, 10))}):
            size = np.linalg.norm(self.gradient[:, k])
            lines.append(
                f"{self.times[k] / units.PS:9.3f} {self.value[k]:11.4g} {size:11.4g} "
                f"{100 * self.relative_error[k]:7.1f} {100 * self.effective[k]:6.0f} "
                f"{self.replicas_needed[k]:13.3g}"
            )
        if np.isfinite(self.horizon):
            advice = f"go back {self.horizon / units.PS:.3g} ps at most"
        else:
            best = int(np.argmin(self.relative_error))
            advice = (
                f"with so few replicas no horizon: {self.replicas_needed[best]:.3g} are needed at "
                f"{self.times[best] / units.PS:.3g} ps"
            )
        lines += ["", f"For an error of {100 * self.tolerance:g} % {advice}.", ""]
        lines += [f"{'method':<22} {'s/replica':>10} {'/ forward':>10} {'memory, MB':>11}"]
        for cost in self.costs:
            if cost.refusal:
                lines.append(f"{cost.method:<22} {cost.refusal}")
            else:
                lines.append(
                    f"{cost.method:<22} {cost.seconds:10.3g} {cost.over_forward:10.2f} "
                    f"{cost.peak_bytes / 1e6:11.1f}"
                )
        return "\n".join(lines)


def squared_displacement(start: System, state: MDState) -> Float[Array, ""]:
    """Mean over atoms of |r(t) − r(0)|² [Å²]."""
    return jnp.mean(jnp.sum((state.system.positions - start.positions) ** 2, axis=-1))


def gradient_report(
    potential: Potential,
    params: Params,
    integrator: Integrator,
    systems: System,
    neighbors: Neighbors,
    *,
    temperature: float,
    n_steps: int,
    save_every: int,
    key: Key[Array, ""],
    observable: Observable = squared_displacement,
    methods: Mapping[str, GradientMethod] | None = None,
    tolerance: float = 0.1,
    progress: bool = True,
) -> GradientReport:
    """Measure how a gradient through trajectories behaves as it goes farther back, before you fit with it.

    Every replica begins with new momenta. Derivatives of A(t) at all horizons come from one run in forward
    mode; they are the term along the trajectory, without the change of the distribution of its start. The
    Lyapunov exponent is that of Newtonian motion.

    Args:
        potential: the energy model.
        params: its parameters; derivatives are in these, up to 8 numbers one by one, of more along 4 random
            directions.
        integrator: how to step.
        systems: replicas, equilibrated at this temperature; [replicas, ...].
        neighbors: their lists, with skin; [replicas, ...].
        temperature: of the momenta [K].
        n_steps: the longest horizon, a multiple of `save_every`.
        save_every: steps between horizons, after which the list is built anew.
        key: seed of momenta, noise and directions.
        observable: A(start, state), a number; default: the mean squared displacement [Å²].
        methods: whose cost to measure, by name; default: direct, checkpointed, reversible.
        tolerance: relative error that is good enough.
        progress: show a progress bar.

    Returns:
        `GradientReport`.

    Raises:
        InputError: one replica only, steps that do not divide, or a tolerance or temperature that is not
            positive.
        SimulationError: non-finite values, or a list that would not stop growing.

    References:
        Metz et al., arXiv:2111.05803 (gradients through chaotic dynamics); for λ see `tangent_growth`.
    """
    n_replicas = len(systems.positions)
    if n_replicas < 2:
        raise InputError(f"{n_replicas} replica gives no error bar: use two or more")
    if min(n_steps, save_every) < 1 or n_steps % save_every:
        raise InputError(f"n_steps = {n_steps} must be a positive multiple of save_every = {save_every}")
    check_positive("temperature", temperature, "K")
    check_positive("tolerance", tolerance, "")
    if methods is None:
        methods = {"direct": direct(), "checkpointed": checkpointed(), "reversible": reversible()}
    names, directions = _directions(params, key)
    keys = jax.random.split(jax.random.fold_in(key, 1), n_replicas)
    kelvin = jnp.asarray(temperature, systems.positions.dtype)
    static = (potential, observable, n_steps, save_every)
    shared = (params, integrator, kelvin, directions)
    with progress_bar("gradients", 1 + len(methods), enabled=progress) as advance:
        advance(0, "horizons")

        def run(neighbors: Neighbors) -> _Followed:
            batched = (systems, neighbors, keys)
            return run_replicas(_follow, static, shared, batched, n_atoms=systems.n_atoms)

        found, neighbors, _ = replay_on_overflow(run, systems, neighbors)
        advance(1)
        first = jax.tree.map(lambda x: x[0], (systems, neighbors, keys))
        costs = _costs(static, (params, integrator, kelvin), first, methods, advance)
    return _summarised(names, found, costs, tolerance, integrator, save_every)


class _Followed(NamedTuple):
    """Of each replica: A and its derivatives at all horizons, and ln|δ(t)|."""

    values: Array
    slopes: Array
    growth: Array
    status: Status


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _follow(
    potential: Potential,
    observable: Observable,
    n_steps: int,
    save_every: int,
    params: Params,
    integrator: Integrator,
    temperature: Array,
    directions: Array,
    systems: System,
    neighbors: Neighbors,
    keys: Array,
) -> _Followed:
    flat, restore = ravel_pytree(params)

    def one(system: System, neighbors: Neighbors, key: Array) -> _Followed:
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

        def derivative(direction: Array) -> tuple[Array, Array, Status]:
            values, slopes, status = jax.jvp(along, (jnp.zeros_like(direction),), (direction,), has_aux=True)
            return values, slopes, status

        units_ = jnp.eye(len(directions), dtype=flat.dtype)
        values, slopes, status = jax.vmap(derivative, out_axes=(None, 0, None))(units_)
        grown = tangent_growth(
            potential, params, system, momenta, neighbors,
            dt=integrator.dt, n_steps=n_steps, rebuild_every=save_every, key=tangent_key,
        )  # fmt: skip
        both = Status(
            flags=status.flags | grown.status.flags,
            first_bad_step=jnp.where(status.flags > 0, status.first_bad_step, grown.status.first_bad_step),
        )
        return _Followed(values, slopes, grown.log_growth, both)

    return map_replicas(one, len(keys))(systems, neighbors, keys)


def _directions(params: Params, key: Array) -> tuple[tuple[str, ...], Array]:
    """Names, and a row for each direction in the vector of all parameters."""
    flat, _ = ravel_pytree(params)
    if flat.size <= _MOST:
        names = [
            jax.tree_util.keystr(path, simple=True, separator=".") + (f"[{k}]" if leaf.size > 1 else "")
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            for k in range(leaf.size)
        ]
        return tuple(names), jnp.diag(jnp.where(flat == 0, 1, flat))
    noise = jax.random.normal(jax.random.fold_in(key, 0), (_DIRECTIONS, flat.size), flat.dtype)
    # As large as the parameters themselves.
    rows = noise * jnp.linalg.norm(flat) / jnp.sqrt(jnp.asarray(flat.size, flat.dtype))
    return tuple(f"direction {k + 1}" for k in range(_DIRECTIONS)), rows


def _costs(
    static: tuple[Any, ...],
    shared: tuple[Any, ...],
    first: Any,
    methods: Mapping[str, GradientMethod],
    advance: Callable[..., None],
) -> tuple[Cost, ...]:
    """Time and memory of value and gradient for one replica, the rollout alone first."""
    potential, observable, n_steps, save_every = static
    params, integrator, temperature = shared
    system, room, key = first
    momentum_key, noise_key = jax.random.split(key)
    momenta = draw_momenta(momentum_key, system, temperature)
    neighbors = rebuild(system, room)

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
    found = [Cost("the rollout alone", alone, 1.0, memory)]
    for name, method in methods.items():
        advance(0, name)
        differentiated = jax.value_and_grad(functools.partial(value, method), has_aux=True)
        try:
            seconds, memory = _measured(differentiated, params, system, neighbors)
            found.append(Cost(name, seconds, seconds / alone, memory))
        except DifmdError as refusal:
            found.append(Cost(name, np.nan, np.nan, np.nan, str(refusal)))
        advance(1)
    return tuple(found)


def _measured(function: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Seconds, the best of three, and bytes of intermediate results; NaN where the compiler does not say."""
    compiled = jax.jit(function).lower(*arguments).compile()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        found = jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - begun)
    for part in jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, Status)):
        # Such as coordinates beyond the grid of a method.
        if isinstance(part, Status) and flags_of(part):
            raise SimulationError(describe(part))
    analysis = compiled.memory_analysis()
    return min(times), float(analysis.temp_size_in_bytes) if analysis is not None else np.nan


def _summarised(
    names: tuple[str, ...],
    found: _Followed,
    costs: tuple[Cost, ...],
    tolerance: float,
    integrator: Integrator,
    save_every: int,
) -> GradientReport:
    if flags_of(found.status):
        raise SimulationError(f"gradient_report: {describe(found.status)}")
    values, slopes, growth = (np.asarray(x, np.float64) for x in found[:3])
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
        names=names,
        times=times,
        value=value.value,
        value_stderr=value.stderr,
        gradient=mean,
        gradient_stderr=stderr,
        effective=effective,
        relative_error=relative,
        lyapunov=float(rate.value),
        lyapunov_stderr=float(rate.stderr),
        horizon=float(times[good[-1]]) if len(good) else np.nan,
        tolerance=tolerance,
        n_replicas=n,
        costs=costs,
    )
