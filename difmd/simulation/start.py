"""Validation of the arguments of `simulate`, and the state it begins with."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from difmd._internal.argument_checks import check_integer, check_key
from difmd.errors import InputError, check_positive
from difmd.integrators import Integrator, MDState
from difmd.integrators.base import check_integrator, check_momenta, check_state
from difmd.potentials import Params, Potential, validate_inputs
from difmd.simulation.chunk import draw_state, initial_state, split_keys
from difmd.simulation.limits import Limits, check_limits
from difmd.system import System, as_system, validate_system


def check_steps(n_steps: Any, save_every: Any, chunk_steps: Any, *, done: int) -> None:
    """Check numbers of steps, after `done` steps."""
    for name, number in (("n_steps", n_steps), ("save_every", save_every), ("chunk_steps", chunk_steps)):
        check_integer(name, number)
    if n_steps % save_every:
        raise InputError(f"n_steps = {n_steps} must be a positive multiple of save_every = {save_every}")
    if done + n_steps >= 2**31:
        raise InputError(f"n_steps = {n_steps} after {done}: steps are counted up to {2**31 - 1}")


def checked_system(
    potential: Potential, params: Params, start: Any, integrator: Integrator, limits: Limits
) -> System:
    """The `System` of a `System`, `ase.Atoms` or `MDState`, after validation of all that a run needs."""
    is_state = isinstance(start, MDState)
    system = as_system(start.system if is_state else start)
    check_integrator(integrator)
    check_limits(limits)
    # On the host, where slicing replicas costs nothing.
    host = jax.tree.map(np.asarray, system)
    batched = system.positions.ndim == 3
    for r in range(len(system.positions) if batched else 1):
        replica = jax.tree.map(lambda x, r=r: x[r], host) if batched else host
        if not is_state:
            # The atoms of a state do not coincide, or its forces would not be finite.
            validate_system(replica)
        validate_inputs(potential, params, replica)
    if is_state:
        check_state(integrator, start)
    return system


def state_of(
    start: Any, system: System, integrator: Integrator, temperature: float | None, momenta: Array | None,
    key: Array | None,
) -> MDState:  # fmt: skip
    """The state that a run begins with: a given one, or one with given or drawn momenta."""
    if isinstance(start, MDState):
        if not (temperature is None and momenta is None and key is None):
            raise InputError("a state has momenta and a key: leave out initial_temperature, momenta and key")
        return start
    if (temperature is None) == (momenta is None):
        raise InputError("give either initial_temperature or momenta to start from")
    if key is None:
        raise InputError("give a key, the seed of momenta and noise: key=jax.random.key(0)")
    check_key(key)
    if momenta is None:
        check_positive("initial_temperature", temperature, "K")
        if np.ndim(np.asarray(temperature)):
            raise InputError(f"initial_temperature = {temperature} K must be one number, for all replicas")
        return draw_state(integrator, system, temperature, key)
    check_momenta(momenta, system)
    if not np.isfinite(np.asarray(momenta)).all():
        raise InputError("momenta are not finite")
    if system.fixed is not None and np.any(np.asarray(momenta)[np.asarray(system.fixed)]):
        raise InputError("momenta of fixed atoms must be zero")
    return initial_state(integrator, system, momenta, split_keys(system, key)[0])
