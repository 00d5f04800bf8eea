"""A term of a fit: measured quantities of a liquid at its state points, through simulations of these."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from difmd import units
from difmd.errors import InputError
from difmd.fitting.liquids.dynamics import equilibrate
from difmd.fitting.liquids.melting import crystal, crystals, keep_liquid, melt
from difmd.fitting.liquids.replicas import Replicas, check_replicas, first_replica, liquid_neighbors
from difmd.fitting.liquids.sampling import Sampling
from difmd.fitting.liquids.states import Stored, n_stored, reweighted_states, states_like, store
from difmd.fitting.measurements import check_gradient, check_targets, run_state_point
from difmd.fitting.targets.residuals import relative_residual
from difmd.fitting.targets.target import Residual, Setup, StatePointRun, Target
from difmd.fitting.terms import Evaluation, Residuals, Term, Weight, concatenated, name_of, sum_of_squares
from difmd.gradients.base import GradientMethod
from difmd.neighbors import neighbor_list
from difmd.potentials import Params, Potential, validate_inputs
from difmd.sensitivity.reweighting import Reweighting
from difmd.system import System


def state_points(
    potential: Potential,
    params: Params,
    targets: Sequence[Target],
    *,
    sampling: Sampling,
    residual: Residual | None = None,
    replicas: Sequence[Replicas] | None = None,
    initial_state_term: bool = True,
    gradient: GradientMethod | None = None,
    reuse: Reweighting | None = None,
    weight: Weight = 1.0,
    name: str = "state_points",
) -> Term:
    """The mean over targets of squared residuals; those of one temperature and density share simulations.

    Each iteration relaxes the replicas of every state point at the new parameters, integrates Newton's
    equations, and differentiates: diffusivities through the trajectories and the distribution of their
    initial states, averages over configurations through that distribution alone.

    Args:
        potential: the energy model.
        params: initial parameters of the fit.
        targets: measured quantities, such as `DiffusivityTarget` and `StructureTarget`.
        sampling: how the liquid is simulated.
        residual: `residual(D, D_measured)` of arrays [diffusivities], differentiable, each element a
            function of one D; default `relative_residual`, ln(D/D_measured). It also applies to other
            targets of one number; that of a structure is the deviation of g in each bin.
        replicas: equilibrated liquids, one for each state point in the order of the targets; default: melted
            here, which requires a liquid of one species.
        initial_state_term: include the change of the distribution of initial states in ∂D/∂θ.
        gradient: how trajectories are differentiated (`difmd.gradients`); default `checkpointed()`.
        reuse: `sensitivity.reweighting()`: state points whose targets depend on configurations alone are not
            simulated again as long as stored states represent the new parameters well enough; None: simulate
            in every iteration.
        weight: of the loss.
        name: of its record in the history.

    Returns:
        `Term`; its record holds, for diffusivities, `D_1e-9_m2_s`, `D_stderr_1e-9_m2_s`, and the gradient of
        D by parameter name and target, `gradient`, `gradient_stderr`, `along` and `initial` [1e-9 m²/s per
        unit of the parameter], of many parameters `norm_of_gradient` and so on instead; for structures `g`,
        `g_stderr`, `g_deviation`, the root mean square over bins, and `effective`, n_eff/n of the states, 1
        where they are new; and `replaced`, replicas that had crystallised.

    Raises:
        InputError: no targets, a target that cannot be measured in the liquid, a different number of
            replicas, replicas of another density, a gradient method that does not suit
            `sampling.gradient_window`, or params that do not fit the potential.
    """
    check_targets(targets)
    setup = Setup(potential, sampling, True, initial_state_term, check_gradient(gradient))
    points = _points(targets)
    example = _check(setup, params, targets, points, replicas)
    liquid = _Liquid(setup, tuple(targets), points, residual or relative_residual, replicas, reuse, example)
    return Term(
        name=name, begin=liquid.begin, evaluate=liquid.evaluate, stored=liquid.stored,
        restored=liquid.restored, example=liquid.example_of_stored, settings=liquid.settings, weight=weight,
        n_visits=len(points),
    )  # fmt: skip


class _Point(NamedTuple):
    """Targets of one temperature and density, and their positions among all."""

    temperature: float
    density: float
    targets: list[Target]
    places: list[int]

    @property
    def is_static(self) -> bool:
        """Whether configurations alone determine all targets."""
        return all(target.is_static for target in self.targets)


class _Visited(NamedTuple):
    """Replicas of a state point, and states that may be reused."""

    replicas: Replicas
    stored: Stored | None


@dataclasses.dataclass(frozen=True)
class _Liquid:
    """The functions of the term."""

    setup: Setup
    targets: tuple[Target, ...]
    points: list[_Point]
    residual: Residual
    replicas: Sequence[Replicas] | None
    reuse: Reweighting | None
    example: System

    def begin(self, params: Params, key: Any, advance: Callable[..., None]) -> list[_Visited]:
        if self.replicas is not None:
            return [_Visited(given, None) for given in self.replicas]
        replicas: list[Replicas] = []
        for n, point in enumerate(self.points):
            advance(0, f"melting at {point.temperature:g} K")
            like = replicas[-1] if replicas else None
            melted = melt(
                self.setup.potential, params, temperature=point.temperature, density=point.density,
                sampling=self.setup.sampling, key=jax.random.fold_in(key, n), like=like,
            )  # fmt: skip
            replicas.append(melted)
        return [_Visited(r, None) for r in replicas]

    def evaluate(
        self, params: Params, state: list[_Visited], key: Any, advance: Callable[..., None]
    ) -> tuple[Evaluation, list[_Visited]]:
        by_place: dict[int, Any] = {}
        after, replaced = [], 0
        for n, (point, old) in enumerate(zip(self.points, state, strict=True)):
            results, new = self._reused(params, point, old), old
            if results is None:
                results, new = self._visit(params, point, old.replicas, jax.random.fold_in(key, n))
            by_place.update(zip(point.places, results, strict=True))
            replaced += new.replicas.n_refrozen - old.replicas.n_refrozen
            after.append(new)
            advance(1)
        residuals, record = self._compared([by_place[k] for k in range(len(self.targets))])
        return sum_of_squares(residuals, {**record, "replaced": replaced}), after

    def _compared(self, results: Sequence[Any]) -> tuple[Residuals, dict[str, Any]]:
        """Residuals by target, whose squares add up to a mean over targets, and the record."""
        share = 1 / math.sqrt(len(results))
        by_place: dict[int, Residuals] = {}
        record: dict[str, Any] = {}
        for kind in dict.fromkeys(type(target) for target in self.targets):
            places = [k for k, target in enumerate(self.targets) if type(target) is kind]
            of_kind, measured = [self.targets[k] for k in places], [results[k] for k in places]
            parts = kind.residuals(of_kind, measured, self.residual, share)
            by_place.update(zip(places, parts, strict=True))
            record |= kind.record(of_kind, measured)
        return concatenated([by_place[k] for k in range(len(results))]), record

    def _stores(self, point: _Point) -> bool:
        """Whether states of a point are stored for reuse."""
        return self.reuse is not None and self.reuse.least_effective < 1 and point.is_static

    def _visit(self, params: Params, point: _Point, old: Replicas, key: Any) -> tuple[list[Any], _Visited]:
        """Relax the replicas at new parameters, keep the liquid ones, and measure with gradient."""
        sampling = self.setup.sampling
        relax_key, liquid_key, measure_key = jax.random.split(key, 3)
        replicas = equilibrate(
            self.setup.potential, params, old, temperature=point.temperature,
            time=sampling.relaxation_time, sampling=sampling, key=relax_key,
        )  # fmt: skip
        if sampling.is_simple:
            replicas = keep_liquid(replicas, density=point.density, sampling=sampling, key=liquid_key)
        results, run = run_state_point(self.setup, params, point.targets, replicas, measure_key)
        for target, result in zip(point.targets, results, strict=True):
            target.check_result(result, run, jax.random.fold_in(key, 0))
        stored = None
        if self._stores(point):
            assert run.production is not None
            stored = store(run.production, run.replicas.systems)
        return results, _Visited(run.replicas, stored)

    def _reused(self, params: Params, point: _Point, visited: _Visited) -> list[Any] | None:
        """Results from stored states; None where there are none, or too few of them count."""
        if not self._stores(point) or visited.stored is None or self.reuse is None:
            return None
        neighbors = first_replica(visited.replicas.neighbors)
        states = reweighted_states(
            self.setup.potential, params, visited.stored, neighbors, temperature=point.temperature
        )
        if states.effective < self.reuse.least_effective:
            return None
        run = StatePointRun(
            self.setup, params, point.temperature, visited.replicas, states, None, jax.random.key(0)
        )
        return [target.measure(run) for target in point.targets]

    def stored(self, state: list[_Visited]) -> list[Any]:
        return [
            self._arrays(visited.replicas.systems, visited.stored, point)
            for visited, point in zip(state, self.points, strict=True)
        ]

    def example_of_stored(self) -> list[Any]:
        if self.replicas is not None:
            boxes = [replicas.systems for replicas in self.replicas]
        else:
            boxes = [crystals(point.density, self.setup.sampling) for point in self.points]
        return [self._arrays(box, None, point) for box, point in zip(boxes, self.points, strict=True)]

    def _arrays(self, systems: System, stored: Stored | None, point: _Point) -> Any:
        """For a checkpoint; energies are NaN where no states are stored yet."""
        if not self._stores(point):
            return (systems,)
        if stored is not None:
            return systems, stored.systems.positions, stored.energies
        dtype = systems.positions.dtype
        shape = (len(systems.positions), n_stored(self.setup.sampling))
        positions = jnp.zeros((*shape, *systems.positions.shape[1:]), dtype)
        return systems, positions, jnp.full(shape, jnp.nan, dtype)

    def restored(self, arrays: Sequence[Any]) -> list[_Visited]:
        visited: list[_Visited] = []
        for n, (systems, *states) in enumerate(arrays):
            if self.replicas is not None:
                replicas = self.replicas[n]._replace(systems=systems)
            else:
                like = visited[-1].replicas.neighbors if visited else None
                lists = liquid_neighbors(self.setup.potential, systems, self.setup.sampling, like)
                replicas = Replicas(systems, lists)
            stored = None
            if states and bool(jnp.isfinite(states[1]).all()):
                stored = Stored(states_like(systems, states[0]), states[1])
            visited.append(_Visited(replicas, stored))
        return visited

    def settings(self, params: Params) -> Any:
        setup = self.setup
        return (
            _fingerprint_energy(setup.potential, params, self.example),
            [target.settings() for target in self.targets], dataclasses.astuple(setup.sampling),
            setup.initial_state_term, None if setup.gradient is None else name_of(setup.gradient.run),
            name_of(self.residual), self.replicas is None, str(self.reuse),
        )  # fmt: skip


def _points(targets: Sequence[Target]) -> list[_Point]:
    points: dict[tuple[float, float], _Point] = {}
    for place, target in enumerate(targets):
        at = (target.temperature, target.density)
        point = points.setdefault(at, _Point(*at, [], []))
        point.targets.append(target)
        point.places.append(place)
    return list(points.values())


def _check(
    setup: Setup, params: Params, targets: Sequence[Target], points: Sequence[_Point],
    replicas: Sequence[Replicas] | None,
) -> System:  # fmt: skip
    """A box of the liquid, after an `InputError` for what cannot be simulated or measured."""
    sampling = setup.sampling
    if replicas is not None and len(replicas) != len(points):
        raise InputError(f"{len(replicas)} sets of replicas for {len(points)} state points")
    example = first_replica(replicas[0].systems) if replicas else crystal(targets[0].density, sampling)
    validate_inputs(setup.potential, params, example)
    for target in targets:
        target.check(setup, params, example)
    for given, point in zip(replicas or (), points if replicas else (), strict=True):
        if given.systems.positions.shape[:2] != (sampling.n_replicas, sampling.n_atoms):
            raise InputError(
                f"replicas of shape {list(given.systems.positions.shape[:2])}, but the sampling has "
                f"{sampling.n_replicas} of {sampling.n_atoms} atoms: melt them with this sampling"
            )
        check_replicas(setup.potential, params, given)
        actual = float(jnp.sum(given.systems.masses[0]) / given.systems.volume[0])
        if abs(actual / point.density - 1) > 0.01:
            raise InputError(
                f"replicas of {actual / units.KG_PER_M3:.5g} kg/m³ for a state point at "
                f"{point.density / units.KG_PER_M3:.5g} kg/m³: give boxes of that density"
            )
    return example


def _fingerprint_energy(potential: Potential, params: Params, system: System) -> str:
    """The energy of a perturbed structure to four digits, which distinguishes potentials."""
    noise = jax.random.normal(jax.random.key(0), system.positions.shape, system.positions.dtype)
    perturbed = system.replace(positions=system.positions + 0.2 * noise)
    neighbors = neighbor_list(perturbed, cutoff=potential.cutoff, reverse_edges=potential.uses_reverse_edges)
    return f"{float(jax.jit(potential.apply)(params, perturbed, neighbors)):.3e}"
