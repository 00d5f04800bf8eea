"""A term of a fit: measured quantities of a liquid at its state points, through simulations of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd.errors import DifmdError, InputError
from difmd.fitting.liquids.estimate import StatePoint, measure, parting_rate
from difmd.fitting.liquids.liquid import Replicas, Sampling, crystal, equilibrate, keep_liquid, list_of, melt
from difmd.fitting.targets.residuals import record_of, relative_residual, residuals_of
from difmd.fitting.targets.structure import (
    Stored,
    Structure,
    check_reach,
    n_stored,
    reweighted_structures,
    states_like,
    store,
)
from difmd.fitting.targets.target import DiffusivityTarget, StructureTarget, Target
from difmd.fitting.terms import Evaluation, Term, Weight, name_of, sum_of_squares
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials import Params, Potential, validate_inputs
from difmd.sensitivity.reweighting import Reweighting
from difmd.system import System

# Statistical error of ∂lnD/∂lnθ at which a gradient through a trajectory has exploded.
_EXPLODED = 100.0


def state_points(
    potential: Potential,
    params: Params,
    targets: Sequence[Target],
    *,
    sampling: Sampling,
    residual: Callable[[Any, Any], Any] | None = None,
    replicas: Sequence[Replicas] | None = None,
    initial_state_term: bool = True,
    reuse: Reweighting | None = None,
    weight: Weight = 1.0,
    name: str = "state_points",
) -> Term:
    """The mean over targets of squared residuals; those of one temperature and density share simulations.

    Each iteration relaxes the replicas of every state point at the new parameters, follows Newton's
    equations, and differentiates: diffusivities through the trajectories and the distribution of their
    starts, structures through that distribution, as they need no more.

    Args:
        potential: the energy model.
        params: where the fit starts.
        targets: measured diffusivities and structures.
        sampling: how the liquid is simulated.
        residual: `residual(D, D_measured)` of arrays [diffusivities], differentiable, each of its numbers a
            function of one D; default `relative_residual`, ln(D/D_measured). That of a structure is the
            deviation of g in each bin.
        replicas: equilibrated liquids, one a state point in the order of the targets; default: melted here,
            which liquids of one species can be.
        initial_state_term: include the change of the distribution of the starts in gradients of
            diffusivities.
        reuse: `sensitivity.reweighting()`: state points without diffusivities are not simulated again as long
            as stored states say enough about the new parameters; None: in every iteration.
        weight: of the loss.
        name: of its record in the history.

    Returns:
        `Term`; its record holds, for diffusivities, `D_1e-9_m2_s`, `D_stderr_1e-9_m2_s`, and the gradient of
        D by parameter name and target, `gradient`, `gradient_stderr`, `along` and `initial` [1e-9 m²/s per
        unit of the parameter], of many parameters `norm_of_gradient` and so on instead; for structures `g`,
        `g_stderr`, `g_deviation`, the root mean square over bins, and `effective`, n_eff/n of the states, 1
        where they are new; and `replaced`, replicas that had crystallised.

    Raises:
        InputError: no targets, another number of replicas, replicas of another density, structures of a
            liquid that is given, or params that do not fit the potential.
    """
    if not targets:
        raise InputError("no targets to fit to")
    points = _points(targets)
    if replicas is not None and len(replicas) != len(points):
        raise InputError(f"{len(replicas)} sets of replicas for {len(points)} state points")
    if replicas is None:
        example = crystal(targets[0].density, sampling)
    else:
        example = jax.tree.map(lambda x: x[0], replicas[0].systems)
    validate_inputs(potential, params, example)
    residual = relative_residual if residual is None else residual
    for target in targets:
        if isinstance(target, StructureTarget):
            check_reach(target, sampling)
        elif target.species is not None and not bool(jnp.any(example.atomic_numbers == target.species)):
            raise InputError(f"target species {target.species}: no such atoms in the liquid")
    for given in replicas or ():
        if given.systems.positions.shape[:2] != (sampling.n_replicas, sampling.n_atoms):
            raise InputError(
                f"replicas of shape {list(given.systems.positions.shape[:2])}, but the sampling has "
                f"{sampling.n_replicas} of {sampling.n_atoms} atoms: melt them with this sampling"
            )
    for given, point in zip(replicas or (), points if replicas else (), strict=True):
        _check_density(given.systems, point.density)

    def keeps(point: _Point) -> bool:
        """Whether states of a point are kept, to serve again."""
        return reuse is not None and reuse.least_effective < 1 and point.is_static

    def begin(params: Params, key: Any, advance: Callable[..., None]) -> list[_Visited]:
        given = replicas
        if given is None:
            given = _melted(potential, params, points, sampling, key, advance)
        return [_Visited(r, None) for r in given]

    def evaluate(
        params: Params, state: list[_Visited], key: Any, advance: Callable[..., None]
    ) -> tuple[Evaluation, list[_Visited]]:
        found: dict[int, Any] = {}
        after, replaced = [], 0
        for n, (point, old) in enumerate(zip(points, state, strict=True)):
            at = jax.random.fold_in(key, n)
            again = _reused(potential, params, point, old, sampling, reuse) if keeps(point) else None
            if again is not None:
                results, new = again, old
            else:
                results, new = _visit(
                    potential, params, point, old.replicas, sampling, at, initial_state_term, keeps(point)
                )
            found.update(zip(point.places, results, strict=True))
            replaced += new.replicas.n_refrozen - old.replicas.n_refrozen
            after.append(new)
            advance(1)
        results = [found[k] for k in range(len(targets))]
        record = {**record_of(targets, results), "replaced": replaced}
        return sum_of_squares(residuals_of(targets, results, residual), record), after

    return Term(
        name=name,
        begin=begin,
        evaluate=evaluate,
        stored=lambda state: [
            _arrays(old, sampling, keeps(point)) for old, point in zip(state, points, strict=True)
        ],
        restored=lambda arrays: _restored(potential, arrays, sampling, replicas),
        example=lambda: [
            _arrays(_of_shape(point, sampling, n, replicas), sampling, keeps(point))
            for n, point in enumerate(points)
        ],
        settings=lambda params: (
            _fingerprint_energy(potential, params, example),
            [_as_tuple(target) for target in targets],
            dataclasses.astuple(sampling),
            initial_state_term,
            name_of(residual),
            replicas is None,
            str(reuse),
        ),
        weight=weight,
        n_visits=len(points),
    )


class _Point(NamedTuple):
    """Targets of one temperature and density, and their places among all."""

    temperature: float
    density: float
    targets: list[Target]
    places: list[int]

    @property
    def is_static(self) -> bool:
        """Whether configurations alone tell all that is asked for."""
        return all(isinstance(target, StructureTarget) for target in self.targets)


class _Visited(NamedTuple):
    """Replicas of a state point, and states that may serve again."""

    replicas: Replicas
    stored: Stored | None


def _points(targets: Sequence[Target]) -> list[_Point]:
    found: dict[tuple[float, float], _Point] = {}
    for place, target in enumerate(targets):
        at = (target.temperature, target.density)
        point = found.setdefault(at, _Point(*at, [], []))
        point.targets.append(target)
        point.places.append(place)
    return list(found.values())


def _as_tuple(target: Target) -> tuple[Any, ...]:
    return tuple(
        np.asarray(value) if isinstance(value, list | np.ndarray) else value
        for value in (getattr(target, field.name) for field in dataclasses.fields(target))
    )


def _melted(
    potential: Potential,
    params: Params,
    points: Sequence[_Point],
    sampling: Sampling,
    key: Key[Array, ""],
    advance: Callable[[int, str], None],
) -> list[Replicas]:
    """Liquids for all state points."""
    replicas: list[Replicas] = []
    for n, point in enumerate(points):
        advance(0, f"melting at {point.temperature:g} K")
        replicas.append(
            melt(
                potential,
                params,
                temperature=point.temperature,
                density=point.density,
                sampling=sampling,
                key=jax.random.fold_in(key, n),
                like=replicas[-1] if replicas else None,
            )
        )
    return replicas


def _check_density(systems: System, density: float) -> None:
    """Refuse boxes that are not those of their state point.

    Raises:
        InputError: they differ by more than one in a hundred.
    """
    found = float(jnp.sum(systems.masses[0]) / systems.volume[0])
    if abs(found / density - 1) > 0.01:
        raise InputError(
            f"replicas of {found / units.KG_PER_M3:.5g} kg/m³ for a state point at "
            f"{density / units.KG_PER_M3:.5g} kg/m³: give boxes of that density"
        )


def _of_shape(
    point: _Point, sampling: Sampling, number: int, replicas: Sequence[Replicas] | None
) -> _Visited:
    """Of the shape that the liquids of a state point have, but for lists."""
    if replicas is not None:
        return _Visited(replicas[number], None)
    one = crystal(point.density, sampling)
    systems = jax.tree.map(lambda x: jnp.broadcast_to(x, (sampling.n_replicas, *x.shape)), one)
    nothing: Any = None
    return _Visited(Replicas(systems, nothing), None)


def _arrays(visited: _Visited, sampling: Sampling, keeps: bool) -> Any:
    """For a checkpoint; energies are NaN where there are no stored states yet."""
    systems, stored = visited.replicas.systems, visited.stored
    if not keeps:
        return (systems,)
    if stored is not None:
        return systems, stored.systems.positions, stored.energies
    dtype = systems.positions.dtype
    shape = (len(systems.positions), n_stored(sampling))
    return systems, jnp.zeros((*shape, *systems.positions.shape[1:]), dtype), jnp.full(shape, jnp.nan, dtype)


def _restored(
    potential: Potential, arrays: Sequence[Any], sampling: Sampling, replicas: Sequence[Replicas] | None
) -> list[_Visited]:
    lists = _with_lists(potential, [systems for systems, *_ in arrays], sampling, replicas)
    found = []
    for liquid, (_, *states) in zip(lists, arrays, strict=True):
        stored = None
        if states and bool(jnp.isfinite(states[1]).all()):
            stored = Stored(states_like(liquid.systems, states[0]), states[1])
        found.append(_Visited(liquid, stored))
    return found


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
    neighbors = neighbor_list(shaken, cutoff=potential.cutoff, reverse_edges=potential.uses_reverse_edges)
    return f"{float(jax.jit(potential.apply)(params, shaken, neighbors)):.3e}"


def _visit(
    potential: Potential,
    params: Params,
    point: _Point,
    replicas: Replicas,
    sampling: Sampling,
    key: Any,
    initial_state_term: bool,
    keeps: bool,
) -> tuple[list[Any], _Visited]:
    """Relax the replicas at new parameters, keep the liquid ones, and measure with gradient."""
    relax_key, liquid_key, measure_key = jax.random.split(key, 3)
    growth_key = jax.random.fold_in(key, 0)
    replicas = equilibrate(
        potential,
        params,
        replicas,
        temperature=point.temperature,
        time=sampling.relaxation_time,
        sampling=sampling,
        key=relax_key,
    )
    if sampling.is_simple:
        replicas = keep_liquid(replicas, density=point.density, sampling=sampling, key=liquid_key)
    found, after, done = measure(
        potential,
        params,
        point.targets,
        replicas,
        sampling=sampling,
        key=measure_key,
        with_gradient=True,
        initial_state_term=initial_state_term,
    )
    for target, result in zip(point.targets, found, strict=True):
        if isinstance(target, DiffusivityTarget):
            _check_explosion(potential, params, target, result, after, sampling, growth_key)
    stored = store(done, after.systems) if keeps else None
    return found, _Visited(after, stored)


def _reused(
    potential: Potential,
    params: Params,
    point: _Point,
    visited: _Visited,
    sampling: Sampling,
    reuse: Reweighting | None,
) -> list[Structure] | None:
    """Structures from stored states; None where there are none, or too few of them count."""
    if visited.stored is None or reuse is None:
        return None
    targets = [target for target in point.targets if isinstance(target, StructureTarget)]
    found = reweighted_structures(
        targets, potential, params, visited.stored, _first(visited.replicas), sampling
    )
    return found if all(each.effective >= reuse.least_effective for each in found) else None


def _first(replicas: Replicas) -> Neighbors:
    return jax.tree.map(lambda x: x[0], replicas.neighbors)


def _check_explosion(
    potential: Potential,
    params: Params,
    target: DiffusivityTarget,
    found: StatePoint,
    replicas: Replicas,
    sampling: Sampling,
    key: Key[Array, ""],
) -> None:
    """Refuse a gradient that is nothing but noise, and say how far back one may go.

    Raises:
        DifmdError: it is.
    """
    assert found.gradient is not None
    relative = jax.tree.map(
        lambda g, theta: jnp.max(jnp.abs(g * theta)), found.gradient.gradient_stderr, params
    )
    worst = float(np.max([float(x) for x in jax.tree.leaves(relative)])) / abs(found.value)
    if np.isfinite(worst) and worst < _EXPLODED or not np.isfinite(found.value):
        # A diffusivity that is no number is told as such.
        return
    rate = parting_rate(potential, params, replicas, target.temperature, sampling, key)
    end = sampling.gradient_window[1]
    advice = "Use a gradient_window that ends earlier"
    if np.isfinite(rate) and rate > 0:
        # Where the error would be 1, or trajectories are ten times as far apart as at the start.
        horizon = (end - np.log(worst) / rate) if np.isfinite(worst) else np.log(10) / rate
        horizon = max(horizon, 2 * sampling.dt * sampling.save_every)
        advice = (
            f"Trajectories part with {rate * units.PS:.2f}/ps: use a gradient_window that ends at "
            f"{horizon / units.PS:.2g} ps"
        )
    raise DifmdError(
        f"the gradient through {end / units.PS:.3g} ps at {target.temperature:g} K has exploded: the error "
        f"of ∂lnD/∂lnθ is {worst:.3g}. The parameters before it are kept. {advice}"
    )
