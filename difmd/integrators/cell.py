"""What barostats share: the pressure inside, which strains they allow, and a strain of everything."""

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
"""The shape stays; the three edges change by themselves along x, y and z; or all of the cell does."""

# Terms of the exponential of a strain, far below one a step.
_TERMS = 8


def check_barostat(pressure: Any, coupling: str) -> None:
    """Refuse a pressure or a coupling that no barostat knows.

    Raises:
        InputError: naming the value.
    """
    if coupling not in COUPLINGS:
        raise InputError(f"coupling = {coupling!r} must be one of {', '.join(COUPLINGS)}")
    given = values_of(pressure)
    if isinstance(given, jax.core.Tracer):
        return
    array = real_numbers("pressure", given)
    warn_of_pressure(array)
    if not np.isfinite(array).all():
        raise InputError(f"pressure = {pressure} eV/Å³ must be finite; write 1 * units.BAR")
    shape = array.shape[1:] if isinstance(pressure, Schedule) else array.shape
    if shape not in ((), (3, 3)) or (shape and not np.allclose(array, np.swapaxes(array, -1, -2))):
        raise InputError(f"pressure of shape {list(shape)}: give a number or a symmetric [3, 3] tensor")


def internal_pressure(state: MDState, momenta: Float[Array, "atoms 3"]) -> Float[Array, "3 3"]:
    """(Σ p pᵀ/m + virial)/V of a state whose momenta are these [eV/Å³]."""
    assert state.virial is not None
    return (kinetic_tensor(state, momenta) + state.virial) / state.system.volume


def kinetic_tensor(state: MDState, momenta: Float[Array, "atoms 3"]) -> Float[Array, "3 3"]:
    """Σ p pᵀ/m [eV]."""
    return product(momenta.T, momenta / state.system.masses[:, None])


def allowed(coupling: str, tensor: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """The part of a symmetric tensor that a coupling lets act."""
    if coupling == "triclinic":
        return 0.5 * (tensor + tensor.T)
    diagonal = jnp.diagonal(tensor)
    if coupling == "isotropic":
        diagonal = jnp.broadcast_to(jnp.mean(diagonal), (3,))
    return jnp.diag(diagonal)


def as_tensor(pressure: Any, dtype: Any) -> Float[Array, "3 3"]:
    """A pressure as a tensor."""
    given = jnp.asarray(pressure, dtype)
    return given * jnp.eye(3, dtype=dtype) if given.ndim == 0 else given


def exponential(strain: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """e^ε of a small strain; its series, unlike eigenvectors, has derivatives at equal eigenvalues."""
    one = jnp.eye(3, dtype=strain.dtype)
    found = one
    for k in range(_TERMS, 0, -1):
        found = one + product(strain, found) / k
    return found


def strained(state: MDState, strain: Float[Array, "3 3"]) -> MDState:
    """Positions and cell times e^ε, momenta times e^{−ε}: a canonical transformation with the cell.

    Unwrapped positions are stretched with everything, so that they do not tell how far atoms diffused.
    """
    forth, back = exponential(strain), exponential(-strain)
    system = state.system
    system = system.replace(positions=product(system.positions, forth), cell=product(system.cell, forth))
    return state.replace(system=system, momenta=product(state.momenta, back))
