"""Common parts of barostats: internal pressure, coupling, and strain of a state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import real_numbers, warn_of_pressure
from difmd._internal.lattice import product
from difmd.errors import InputError
from difmd.integrators.base import MDState
from difmd.integrators.schedule import Schedule, values_of

COUPLINGS = ("isotropic", "anisotropic", "triclinic")
"""The cell keeps its shape; its x, y and z axes scale independently; or it strains freely."""

# Terms of the series for the exponential of a strain, which is small in each step.
_TERMS = 8


def check_barostat(pressure: Any, coupling: str) -> None:
    """Validate pressure and coupling of a barostat, or raise `InputError`."""
    if coupling not in COUPLINGS:
        raise InputError(f"coupling = {coupling!r} must be one of {', '.join(COUPLINGS)}")
    values = values_of(pressure)
    if isinstance(values, jax.core.Tracer):
        return
    array = real_numbers("pressure", values)
    warn_of_pressure(array)
    if not np.isfinite(array).all():
        raise InputError(f"pressure = {pressure} eV/Å³ must be finite; write 1 * units.BAR")
    shape = array.shape[1:] if isinstance(pressure, Schedule) else array.shape
    if shape not in ((), (3, 3)) or (shape and not np.allclose(array, np.swapaxes(array, -1, -2))):
        raise InputError(f"pressure of shape {list(shape)}: give a number or a symmetric [3, 3] tensor")


def internal_pressure(state: MDState, momenta: Float[Array, "atoms 3"]) -> Float[Array, "3 3"]:
    """(Σ p pᵀ/m + virial)/V of a state with these momenta [eV/Å³]; [3, 3]."""
    assert state.virial is not None
    return (kinetic_tensor(state, momenta) + state.virial) / state.system.volume


def kinetic_tensor(state: MDState, momenta: Float[Array, "atoms 3"]) -> Float[Array, "3 3"]:
    """Σ p pᵀ/m [eV]; [3, 3]."""
    return product(momenta.T, momenta / state.system.masses[:, None])


def allowed(coupling: str, tensor: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """The projection of a tensor on the strains of a coupling."""
    if coupling == "triclinic":
        return 0.5 * (tensor + tensor.T)
    diagonal = jnp.diagonal(tensor)
    if coupling == "isotropic":
        diagonal = jnp.broadcast_to(jnp.mean(diagonal), (3,))
    return jnp.diag(diagonal)


def as_tensor(pressure: Any, dtype: Any) -> Float[Array, "3 3"]:
    """A scalar or tensor pressure as a tensor."""
    tensor = jnp.asarray(pressure, dtype)
    return tensor * jnp.eye(3, dtype=dtype) if tensor.ndim == 0 else tensor


def exponential(strain: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """e^ε of a small strain by its series, which is differentiable also at equal eigenvalues."""
    identity = jnp.eye(3, dtype=strain.dtype)
    series = identity
    for k in range(_TERMS, 0, -1):
        series = identity + product(strain, series) / k
    return series


def strained(state: MDState, strain: Float[Array, "3 3"]) -> MDState:
    """Positions and cell times e^ε, momenta times e^{−ε}: a canonical transformation with the cell."""
    forward, backward = exponential(strain), exponential(-strain)
    system = state.system
    system = system.replace(positions=product(system.positions, forward), cell=product(system.cell, forward))
    return state.replace(system=system, momenta=product(state.momenta, backward))
