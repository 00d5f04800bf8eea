"""Elastic constants of a relaxed crystal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd.errors import InputError
from difmd.forces import prepare_inputs
from difmd.neighbors import Neighbors
from difmd.potentials import Params, Potential
from difmd.relaxation import any_strain, deform
from difmd.relaxation.implicit import solve_symmetric
from difmd.relaxation.strains import tether
from difmd.system import System


def elastic_constants(
    potential: Potential, params: Params, system: System, neighbors: Neighbors | None = None
) -> Float[Array, "6 6"]:
    """Second derivatives of the energy in strain, atoms relaxed within the cell; pure and differentiable.

        C_ij = (∂²U/∂ε_i∂ε_j − ∂²U/∂ε_i∂r · H⁻¹ · ∂²U/∂r∂ε_j) / V,    H = ∂²U/∂r∂r.

    The strain ε deforms positions r and cell h to r(1 + ε) and h(1 + ε); shears are engineering strains,
    γ_yz = 2 ε_yz. Fixed atoms keep their fractional coordinates.

    Args:
        potential: the energy model.
        params: its parameters; differentiable.
        system: a minimum without stress, as from `minimize(…, strains=any_strain())`; differentiable.
        neighbors: a current list for it; default: built here, but not under jit or grad of the system.

    Returns:
        C in Voigt's order xx, yy, zz, yz, xz, xy [eV/Å³]; [6, 6]. NaN for a crystal that is unstable against
        displacements of atoms.

    Raises:
        InputError: as `evaluate`; an open direction.

    References:
        Lutsko, J. Appl. Phys. 65, 2991 (1989), doi:10.1063/1.342716 (internal relaxation).
    """
    system, neighbors = prepare_inputs(potential, params, system, neighbors)
    if not all(neighbors.periodic):
        raise InputError("elastic constants need a system that is periodic in all directions")
    modes = jnp.asarray(any_strain(), system.positions.dtype)
    mobile = system.is_mobile[:, None]

    def slopes(r: Array, strain: Array) -> tuple[Array, Array]:
        """∂U/∂r in the undeformed cell, and ∂U/∂ε."""

        def energy(r: Array, strain: Array) -> Array:
            moved = system.replace(positions=jnp.where(mobile, r, system.positions))
            moved = deform(moved, jnp.tensordot(strain, modes, 1))
            return potential.apply(params, moved, neighbors)

        return jax.grad(energy, (0, 1))(r, strain)

    r, none = system.positions, jnp.zeros(6, system.positions.dtype)
    # All six strains at once.
    along = jax.vmap(lambda mode: jax.jvp(lambda e: slopes(r, e), (none,), (mode,))[1])
    of_positions, of_strains = along(jnp.eye(6, dtype=r.dtype))

    def hessian(v: Array) -> Array:
        return jax.jvp(lambda r: slopes(r, none)[0], (r,), (v,))[1] + tether(system, v)

    moves = jax.vmap(lambda target: solve_symmetric(hessian, target))(of_positions)
    relaxed = of_strains - jnp.einsum("iax,jax->ij", of_positions, moves)
    # Symmetric but for rounding.
    return 0.5 * (relaxed + relaxed.T) / system.volume
