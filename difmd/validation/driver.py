"""`validate`: static checks of a potential, then checks with dynamics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd._internal.argument_checks import check_integer, check_key, real_numbers, warn_of_pressure
from difmd._internal.progress import Advance, progress_bar
from difmd.errors import (
    REMEDIES,
    Flag,
    InputError,
    SimulationError,
    SimulationInterrupted,
    check_positive,
    flags_of,
)
from difmd.integrators import MDState
from difmd.potentials import Params, Potential, validate_inputs
from difmd.simulation.limits import DEFAULT_LIMITS, Limits, check_limits, nearest_pair
from difmd.system import System, as_system, to_ase, validate_system
from difmd.validation import ensembles, sampling
from difmd.validation.certificate import Certificate
from difmd.validation.checks import DYNAMIC, GROUPS, LEAST_REPLICAS, STATIC, Check, without_value
from difmd.validation.configuration import check_finite, displaced
from difmd.validation.cutoff import CutoffScan, check_cutoff
from difmd.validation.derivatives import check_derivatives
from difmd.validation.energy_conservation import check_energy_conservation
from difmd.validation.symmetry import check_symmetry

if TYPE_CHECKING:
    import ase


# Steps of a run are a multiple of this, so that its blocks and their halves hold complete frames.
_MULTIPLE = 100

_LIST = (
    "the neighbour list kept overflowing, or atoms left it: look for a time step that is too large, or atoms "
    "that collapse onto each other"
)

# Remedies that apply to `validate`; the others name arguments of neighbour lists, integrators and `simulate`.
_REMEDIES = REMEDIES | {
    Flag.NEIGHBOR_OVERFLOW: _LIST,
    Flag.NEIGHBOR_STALE: _LIST,
    Flag.CELL_TOO_SMALL: "the cell shrank too far: look at the pressure (`1 * units.BAR`) and at the "
    "checks of the stress",
    Flag.ENERGY_JUMP: "the energy changed by more than its limit between two frames: look for a time step "
    "that is too large, or discontinuities of the potential; the limit is "
    "`validate(limits=difmd.Limits(energy_jump=))`",
    Flag.TOO_CLOSE: "two atoms are closer than the limit: look for a potential that is not repulsive there, "
    "such as a network (add `difmd.zbl`), or an initial density that is too high; the limit is "
    "`validate(limits=difmd.Limits(closest=))`",
    Flag.CELL_COLLAPSE: "the cell changed by more than a tenth in one step, or is smaller than its atoms: "
    "look at the pressure (`1 * units.BAR`), or for a potential that is not repulsive",
}


_Rows: TypeAlias = dict[str, list[Check]]
"""The checks of each group."""


class _Request(NamedTuple):
    """Arguments of `validate`."""

    potential: Potential
    params: Params
    system: System
    groups: tuple[str, ...]
    temperature: float | None
    pressure: float | None
    dt: float
    n_steps: int
    n_replicas: int
    limits: Limits
    key: Array


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
    limits: Limits = DEFAULT_LIMITS,
    key: Key[Array, ""] | None = None,
    progress: bool = True,
) -> Certificate:
    """Check whether a potential is fit for molecular dynamics.

    Static checks: symmetries of the energy, forces and stress as its derivatives, and continuity at the
    cut-off. With a temperature: energy conservation as a function of the time step, the distribution of
    kinetic energies with a thermostat, and equipartition. With a pressure: volumes at three pressures.
    Statistical checks allow 5 standard errors, from replicas and blocks, and are inconclusive where these are
    too large. If a run fails, its checks fail and the others continue. Ctrl-C discards all results.

    In float32, rounding hides small fluctuations of the energy and most errors of forces below 2 %.

    Args:
        potential: the energy model, from difmd or a `Potential` of your own.
        params: its parameters.
        system: a typical system of tens to hundreds of atoms, near equilibrium, with finite energy and
            forces. Static checks displace its atoms by 0.05 Å.
        temperature: of checks with dynamics [K]; None: no dynamics.
        pressure: of the check of volumes [eV/Å³], `1 * units.BAR`; None: no such check.
        dt: time step [Å√(amu/eV)]; half and a quarter of it are run, too.
        n_steps: of the run with a thermostat, a multiple of 100 after rounding up; runs without it are half
            as long, those with a barostat twice as long.
        n_replicas: independent runs for error bars, at least 8.
        only: groups to check, from `difmd.validation.GROUPS`; default: all.
        limits: what ends a run although all its numbers are finite.
        key: of random displacements, momenta and noise; default `jax.random.key(0)`.
        progress: show a progress bar.

    Returns:
        `Certificate`; print it.

    Raises:
        InputError: a system or parameters that cannot be evaluated, an unknown group, a number that is not
            positive, or dynamics selected by `only` without a temperature or pressure; energy or forces of
            the displaced system that are not finite, or all zero.
        SimulationInterrupted: Ctrl-C in a run.
    """
    began = time.perf_counter()
    request = _checked(_Request(
        potential, params, jax.tree.map(jnp.asarray, as_system(system)), _groups(only, temperature, pressure),
        temperature, pressure, dt, n_steps, n_replicas, limits, jax.random.key(0) if key is None else key,
    ))  # fmt: skip
    with progress_bar("validate", len(request.groups), enabled=progress) as advance:
        rows: _Rows = {}
        scans = _static_checks(request, rows, advance)
        data = _dynamic_checks(request, rows, advance)
    return Certificate(
        checks=tuple(check for group in GROUPS for check in rows.get(group, ())),
        potential=repr(potential), composition=to_ase(request.system).get_chemical_formula(),
        precision=str(request.system.positions.dtype), temperature=request.temperature,
        pressure=request.pressure, dt=request.dt, seed=_seed(request.key),
        seconds=time.perf_counter() - began, scans=scans, **data,
    )  # fmt: skip


def _seed(key: Array) -> tuple[int, ...]:
    return tuple(int(x) for x in np.asarray(jax.random.key_data(key)).ravel())


def _checked(request: _Request) -> _Request:
    """The request after validation, with `n_steps` rounded up."""
    system, temperature, pressure = request.system, request.temperature, request.pressure
    if system.positions.ndim != 2:
        raise InputError("system must be a single system, without replicas")
    validate_system(system)
    validate_inputs(request.potential, request.params, system)
    check_positive("potential.cutoff", request.potential.cutoff, "Å")
    for name, value, unit in (("temperature", temperature, "K"), ("dt", request.dt, "Å√(amu/eV)")):
        if value is not None or name == "dt":
            _check_scalar(name, value)
            check_positive(name, value, unit)
    if pressure is not None:
        _check_scalar("pressure", pressure)
        if not np.isfinite(pressure):
            raise InputError(f"pressure = {pressure} eV/Å³ must be finite; write 1 * units.BAR")
        warn_of_pressure(pressure)
    check_integer("n_steps", request.n_steps, least=_MULTIPLE)
    check_integer("n_replicas", request.n_replicas, least=LEAST_REPLICAS)
    check_limits(request.limits)
    close = nearest_pair(system)
    if close is not None and close.relative < request.limits.closest:
        raise InputError(f"{close}: give a structure near equilibrium, or limits=difmd.Limits(closest=0)")
    check_key(request.key)
    n_steps = -(-request.n_steps // _MULTIPLE) * _MULTIPLE
    temperature, pressure = (None if x is None else float(x) for x in (temperature, pressure))
    return request._replace(temperature=temperature, pressure=pressure, dt=float(request.dt), n_steps=n_steps)


def _check_scalar(name: str, value: Any) -> None:
    if real_numbers(name, value).ndim:
        raise InputError(f"{name} = {value!r} must be one number, for all replicas")


def _groups(only: Any, temperature: float | None, pressure: float | None) -> tuple[str, ...]:
    """Groups to check."""
    if isinstance(only, str) or not (only is None or isinstance(only, Iterable)):
        raise InputError(f"only = {only!r} must be a sequence of groups: write only=({GROUPS[0]!r},)")
    groups = tuple(GROUPS if only is None else only)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups:
        raise InputError(f"only = {groups} must name some of {', '.join(GROUPS)}")
    selected = [group for group in groups if group in DYNAMIC] if only is not None else []
    if selected and temperature is None:
        raise InputError(f"{selected[0]} needs dynamics: give a temperature")
    if "volume" in selected and pressure is None:
        raise InputError("volume needs a pressure: write pressure=1 * units.BAR")
    return groups


def _static_checks(request: _Request, rows: _Rows, advance: Advance) -> tuple[CutoffScan, ...]:
    """Add the static checks, and return the scans through the cut-off."""
    scans: tuple[CutoffScan, ...] = ()
    model = (request.potential, request.params)
    at = displaced(*model, request.system, jax.random.fold_in(request.key, 0))
    finite = check_finite(at)
    # A system that cannot be evaluated is reported, whatever groups were requested.
    rows["derivatives"] = [finite] if "derivatives" in request.groups or finite.outcome == "failed" else []
    for group in (group for group in STATIC if group in request.groups):
        advance(0, group)
        # The numbers of a group do not depend on which others are checked.
        rng = np.random.default_rng([*_seed(request.key), STATIC.index(group)])
        if group == "symmetry":
            rows[group] = check_symmetry(*model, at, rng)
        elif group == "derivatives":
            rows[group] += check_derivatives(*model, at, rng)
        else:
            rows[group], scans = check_cutoff(*model, at)
        advance(1)
    return scans


def _omitted(request: _Request) -> dict[str, tuple[str, str]]:
    """Dynamic groups that are not checked, with outcome and reason."""
    if request.temperature is None:
        return dict.fromkeys(DYNAMIC, ("not requested", "give a temperature"))
    omitted, system = {}, request.system
    if len(sampling.kinds(system)[0]) < 2:
        omitted["equipartition"] = ("not applicable", "all atoms are of the same kind")
    if not np.asarray(system.pbc).all():
        omitted["volume"] = ("not applicable", "not all directions are periodic")
    elif system.fixed is not None and np.asarray(system.fixed).any():
        omitted["volume"] = ("not applicable", "some atoms are fixed")
    elif request.pressure is None:
        omitted["volume"] = ("not requested", "give a pressure")
    return omitted


def _dynamic_checks(request: _Request, rows: _Rows, advance: Advance) -> dict[str, Any]:
    """Add the checks with dynamics, and return further fields of the certificate."""
    data: dict[str, Any] = {}
    omitted = {group: why for group, why in _omitted(request).items() if group in request.groups}
    rows.update({group: [without_value(group, *why)] for group, why in omitted.items()})
    advance(len(omitted))
    groups = [group for group in DYNAMIC if group in request.groups and group not in omitted]
    if not groups:
        return data
    keys = jax.random.split(request.key, 4)
    model = (request.potential, request.params)
    names = ("temperature", "dt", "n_steps", "limits")
    settings: dict[str, Any] = {name: getattr(request, name) for name in names}

    def conserve_energy(start: MDState) -> None:
        half = settings | {"n_steps": request.n_steps // 2, "key": keys[1]}
        rows["energy_conservation"], data["time_steps"] = check_energy_conservation(*model, start, **half)

    def sample_momenta(start: MDState) -> None:
        samples = data["kinetic"] = sampling.kinetic_energies(*model, start, **settings)
        if "kinetic_energy" in groups:
            rows["kinetic_energy"] = ensembles.check_kinetic_energy(samples)
        if "equipartition" in groups:
            rows["equipartition"] = ensembles.check_equipartition(samples)

    def sample_volumes(start: MDState) -> None:
        more = settings | {"pressure": request.pressure, "key": keys[2]}
        data["volumes"] = sampling.volumes(*model, start, **more)
        rows["volume"] = ensembles.check_volume(data["volumes"])

    advance(0, "equilibration")
    try:
        more = settings | {"n_replicas": request.n_replicas, "key": keys[0]}
        start = sampling.equilibrated(*model, request.system, **more)
    except SimulationInterrupted:
        raise
    except (SimulationError, InputError) as error:
        note = f"equilibration failed: {reason(error)}"
        rows.update({group: [without_value(group, "failed", note)] for group in groups})
        return data
    for run, served in (
        (conserve_energy, ("energy_conservation",)),
        (sample_momenta, ("kinetic_energy", "equipartition")),
        (sample_volumes, ("volume",)),
    ):
        requested = [group for group in served if group in groups]
        if not requested:
            continue
        advance(0, requested[0].replace("_", " "))
        try:
            run(start)
        except SimulationInterrupted:
            raise
        except (SimulationError, InputError) as error:
            # As arguments are valid, an InputError is due to initial forces that are not finite.
            rows.update({group: [without_value(group, "failed", reason(error))] for group in requested})
        advance(len(requested))
    return data


def reason(error: SimulationError | InputError) -> str:
    """The note of a check for an error of `simulate`: causes, remedies and the first step."""
    status = error.status if isinstance(error, SimulationError) else None
    if status is None:
        return str(error)
    flags, steps = np.asarray(status.flags).reshape(-1), np.asarray(status.first_bad_step).reshape(-1)
    is_bad, union = flags != 0, flags_of(status)
    text = "; ".join(_REMEDIES[flag] for flag in Flag if union & flag)
    return f"{text} (first at step {steps[is_bad].min()}, in {is_bad.sum()} of {len(flags)} replicas)"
