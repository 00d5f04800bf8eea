"""`validate`: one check after the other, each with its reasons for not being made."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd._internal.argument_checks import check_integer, check_key, real_numbers, warn_of_pressure
from difmd._internal.progress import progress_bar
from difmd.errors import InputError, SimulationError, SimulationInterrupted, check_positive
from difmd.integrators import MDState
from difmd.potentials import Params, Potential, validate_inputs
from difmd.simulation.limits import Limits, check_limits, nearest_pair
from difmd.system import System, as_system, to_ase, validate_system
from difmd.validation import ensembles, sampling
from difmd.validation.certificate import Certificate
from difmd.validation.checks import GROUPS, LEAST_REPLICAS, Check, without
from difmd.validation.cutoff import check_cutoff
from difmd.validation.derivatives import check_derivatives
from difmd.validation.energy_conservation import check_energy_conservation
from difmd.validation.failures import reason
from difmd.validation.rest import at_rest, check_given
from difmd.validation.symmetry import check_symmetry

if TYPE_CHECKING:
    import ase

_AT_REST, _DYNAMIC = GROUPS[:3], GROUPS[3:]

# Frames of whole blocks, and of halves of them.
_MULTIPLE = 100

_LIMITS = Limits()


def validate(
    potential: Potential,
    params: Params,
    system: System | ase.Atoms,
    *,
    temperature: float | None = None,
    pressure: float | None = None,
    dt: float = units.FS,
    n_steps: int = 4000,
    n_replicas: int = 16,
    only: Sequence[str] | None = None,
    limits: Limits = _LIMITS,
    key: Key[Array, ""] | None = None,
    progress: bool = True,
) -> Certificate:
    """Find out whether a potential is fit for dynamics.

    At rest: the symmetries of the energy, forces and stress as its derivatives, and how it ends at the
    cut-off. With a temperature: conservation of energy against the time step, the distribution of kinetic
    energies under a thermostat, and equipartition between species. With a pressure: volumes at three
    pressures. Statistical rows allow 5 standard errors, taken over replicas and blocks, and are inconclusive
    where those are too large to tell anything. A run that fails is a row that fails; the others go on. After
    Ctrl-C nothing is kept.

    Bounds follow the precision of the system. In float32 rounding hides small fluctuations of the energy, and
    most errors of forces below 2 %: use float64 where the potential allows it.

    Args:
        potential: the energy model, one of difmd's or a function of your own in a `Potential`.
        params: its parameters.
        system: what it is to be used for, of some tens to hundreds of atoms, near equilibrium. Checks at rest
            shake it by 0.05 Å; as it is, it must have finite energy and forces, too.
        temperature: of the checks with dynamics [K]; None: they are not asked for.
        pressure: of the check of volumes [eV/Å³], `1 * units.BAR`; None: it is not asked for.
        dt: time step to be used [Å√(amu/eV)]; half and a quarter of it are run, too.
        n_steps: of the run with a thermostat; those without have half as many of this time step, those with a
            barostat twice as many. Rounded up to a multiple of 100.
        n_replicas: independent runs, which give the error bars; at least 8, as fewer say too little of
            them.
        only: groups to check, of `difmd.validation.GROUPS`; default: all.
        limits: what is taken for a broken run though all its numbers are finite, see `Limits`.
        key: seed of displacements, momenta and noise; default `jax.random.key(0)`.
        progress: show a progress bar.

    Returns:
        `Certificate`; print it.

    Raises:
        InputError: a system or parameters that cannot be evaluated, an unknown group, a number that is not
            positive, or dynamics asked for by name without a temperature or pressure; before anything is
            compiled. Energy or forces of the shaken system that are not finite, or all zero.
        SimulationInterrupted: Ctrl-C in a run.
    """
    began = time.perf_counter()
    system = as_system(system)
    groups = _checked(
        potential, params, system, temperature, pressure, dt, n_steps, n_replicas, only, limits
    )  # fmt: skip
    key = jax.random.key(0) if key is None else key
    check_key(key)
    temperature = None if temperature is None else float(temperature)
    pressure, dt = None if pressure is None else float(pressure), float(dt)
    seed = tuple(int(x) for x in np.asarray(jax.random.key_data(key)).ravel())
    n_steps = -(-n_steps // _MULTIPLE) * _MULTIPLE
    rows: dict[str, list[Check]] = {}
    extras: dict[str, Any] = {}
    with progress_bar("validate", len(groups), enabled=progress) as advance:
        at = at_rest(potential, params, system, jax.random.fold_in(key, 0))
        given = check_given(at)
        # What cannot be evaluated fails, whatever was asked for.
        rows["derivatives"] = [given] if "derivatives" in groups or given.outcome == "failed" else []
        for group in (g for g in _AT_REST if g in groups):
            advance(0, group)
            # A group by itself gives the numbers that it gives among others.
            rng = np.random.default_rng([*seed, _AT_REST.index(group)])
            if group == "symmetry":
                rows[group] = check_symmetry(potential, params, at, rng)
            elif group == "derivatives":
                rows[group] += check_derivatives(potential, params, at, rng)
            else:
                rows[group], extras["scans"] = check_cutoff(potential, params, at)
            advance(1)
        dynamic = [g for g in _DYNAMIC if g in groups]
        excuses = _excuses(system, temperature, pressure)
        rows |= {g: [without(g, *excuses[g])] for g in dynamic if g in excuses}
        advance(sum(g in excuses for g in dynamic))
        wanted = [g for g in dynamic if g not in excuses]
        # All are excused without a temperature.
        if wanted and temperature is not None:
            found, more = _with_dynamics(
                potential, params, system, wanted, advance, temperature=temperature, pressure=pressure,
                dt=dt, n_steps=n_steps, n_replicas=n_replicas, limits=limits, key=key,
            )  # fmt: skip
            rows |= found
            extras |= more
    return Certificate(
        checks=tuple(check for group in GROUPS if group in rows for check in rows[group]),
        potential=repr(potential),
        composition=to_ase(system).get_chemical_formula(),
        precision=str(system.positions.dtype),
        temperature=temperature,
        pressure=pressure,
        dt=dt,
        seed=seed,
        seconds=time.perf_counter() - began,
        **extras,
    )


def _checked(
    potential: Potential, params: Params, system: System, temperature: float | None, pressure: float | None,
    dt: float, n_steps: int, n_replicas: int, only: Sequence[str] | None, limits: Limits,
) -> tuple[str, ...]:  # fmt: skip
    """The groups to check, after an `InputError` for what cannot work."""
    if not isinstance(potential, Potential):
        raise InputError(
            f"potential is of type {type(potential).__name__}: give a difmd.potentials.Potential"
        )
    if system.positions.ndim != 2:
        raise InputError("system must be a single system, without replicas")
    check_positive("potential.cutoff", potential.cutoff, "Å")
    validate_system(system)
    validate_inputs(potential, params, system)
    if temperature is not None:
        _check_scalar("temperature", temperature)
        check_positive("temperature", temperature, "K")
    if pressure is not None:
        _check_scalar("pressure", pressure)
        if not np.isfinite(pressure):
            raise InputError(f"pressure = {pressure} eV/Å³ must be finite; write 1 * units.BAR")
        warn_of_pressure(pressure)
    _check_scalar("dt", dt)
    check_positive("dt", dt, "Å√(amu/eV)")
    for name, number, least in (("n_steps", n_steps, _MULTIPLE), ("n_replicas", n_replicas, LEAST_REPLICAS)):
        check_integer(name, number, least=least)
    check_limits(limits)
    near = nearest_pair(system)
    if near is not None and near.relative < limits.closest:
        raise InputError(
            f"{near}: give a structure that is near equilibrium, or limits=difmd.Limits(closest=0)"
        )
    if isinstance(only, str) or not (only is None or isinstance(only, Iterable)):
        raise InputError(f"only = {only!r} must be a sequence of groups: write only=({GROUPS[0]!r},)")
    groups = tuple(GROUPS if only is None else only)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups:
        raise InputError(f"only = {groups} must name some of {', '.join(GROUPS)}")
    asked = [group for group in groups if group in _DYNAMIC] if only is not None else []
    if asked and temperature is None:
        raise InputError(f"{asked[0]} needs dynamics: give a temperature")
    if "volume" in asked and pressure is None:
        raise InputError("volume needs a pressure: write pressure=1 * units.BAR")
    return groups


def _check_scalar(name: str, value: Any) -> None:
    if real_numbers(name, value).ndim:
        raise InputError(f"{name} = {value!r} must be one number, for all replicas")


def _excuses(system: System, temperature: float | None, pressure: float | None) -> dict[str, tuple[str, str]]:
    """Groups that are not checked, with outcome and reason."""
    if temperature is None:
        return dict.fromkeys(_DYNAMIC, ("not asked for", "give a temperature"))
    excuses = {}
    if len(sampling.kinds(system)[0]) < 2:
        excuses["equipartition"] = ("not applicable", "all atoms are alike")
    if not np.asarray(system.pbc).all():
        excuses["volume"] = ("not applicable", "not all directions are periodic")
    elif system.fixed is not None and np.asarray(system.fixed).any():
        excuses["volume"] = ("not applicable", "some atoms are fixed")
    elif pressure is None:
        excuses["volume"] = ("not asked for", "give a pressure")
    return excuses


def _with_dynamics(
    potential: Potential, params: Params, system: System, groups: Sequence[str],
    advance: Callable[..., None], *, temperature: float, pressure: float | None, dt: float, n_steps: int,
    n_replicas: int, limits: Limits, key: Array,
) -> tuple[dict[str, list[Check]], dict[str, Any]]:  # fmt: skip
    """Rows, and what the certificate keeps beside them."""
    rows: dict[str, list[Check]] = {}
    extras: dict[str, Any] = {}
    at: dict[str, Any] = {"temperature": temperature, "dt": dt, "n_steps": n_steps, "limits": limits}
    keys = jax.random.split(key, 4)

    def conserved(start: MDState) -> None:
        rows["energy_conservation"], extras["time_steps"] = check_energy_conservation(
            potential, params, start, **(at | {"n_steps": n_steps // 2}), key=keys[1]
        )

    def kinetic(start: MDState) -> None:
        found = extras["kinetic"] = sampling.kinetic_energies(potential, params, start, **at)
        if "kinetic_energy" in groups:
            rows["kinetic_energy"] = ensembles.check_kinetic_energy(found)
        if "equipartition" in groups:
            rows["equipartition"] = ensembles.check_equipartition(found)

    def volume(pressure: float, start: MDState) -> None:
        found = sampling.volumes(potential, params, start, **at, pressure=pressure, key=keys[2])
        extras["volumes"] = found
        rows["volume"] = ensembles.check_volume(found)

    works: list[tuple[Callable[[MDState], None], tuple[str, ...]]] = [
        (conserved, ("energy_conservation",)),
        (kinetic, ("kinetic_energy", "equipartition")),
    ]
    if pressure is not None:
        works.append((functools.partial(volume, pressure), ("volume",)))
    advance(0, "equilibration")
    try:
        start = sampling.equilibrated(potential, params, system, **at, n_replicas=n_replicas, key=keys[0])
    except SimulationInterrupted:
        raise
    except (SimulationError, InputError) as error:
        why = f"the start cannot be equilibrated: {reason(error)}"
        return {group: [without(group, "failed", why)] for group in groups}, {}
    for work, served in works:
        mine = [group for group in served if group in groups]
        if not mine:
            continue
        advance(0, mine[0].replace("_", " "))
        try:
            work(start)
        except SimulationInterrupted:
            raise
        except (SimulationError, InputError) as error:
            # Arguments were checked before: an InputError is of forces that are not finite at the start.
            rows |= {group: [without(group, "failed", reason(error))] for group in mine}
        advance(len(mine))
    return rows, extras
