"""Energy → energy, forces and stress by one differentiation."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import is_traced
from difmd._internal.lattice import product
from difmd._internal.summaries import fields_summary
from difmd.errors import InputError
from difmd.neighbors import Neighbors, neighbor_list
from difmd.potentials.base import Params, Potential, check_arguments, check_model
from difmd.potentials.multipoles import Multipoles, total_dipole
from difmd.system import System, as_system, check_single

if TYPE_CHECKING:
    import ase

__all__ = ["Evaluation", "evaluate", "forces", "forces_and_virial"]


class Evaluation(NamedTuple):
    """Energy, forces and stress of one configuration, and its charges and dipole.

    Attributes:
        energy: [eV].
        forces: [eV/Å].
        stress: ∂U/∂strain / V, positive under tension, as in ASE [eV/Å³]; NaN without three periodic
            directions, where there is no volume.
        charges: [e]; None where the potential has none.
        dipole: μ [e·Å], see `total_dipole`; NaN with a periodic direction, None where the potential has no
            charges.
    """

    energy: Float[Array, ""]
    forces: Float[Array, "atoms 3"]
    stress: Float[Array, "3 3"]
    charges: Float[Array, "atoms"] | None = None
    dipole: Float[Array, "3"] | None = None

    def __repr__(self) -> str:
        """Fields with the shapes of arrays."""
        return fields_summary(self)


def evaluate(
    potential: Potential, params: Params, system: System | ase.Atoms, neighbors: Neighbors | None = None
) -> Evaluation:
    """Energy, forces and stress from one reverse pass over (positions, cell), with charges if there are any.

    Args:
        potential: the energy model.
        params: its parameters.
        system: the configuration.
        neighbors: a current list that reaches at least `potential.cutoff`; default: built here, but not under
            jit, grad or vmap of the system.

    Returns:
        The `Evaluation`, which can be differentiated again.

    Raises:
        InputError: params of another potential, a list of another system or with a shorter reach, or no list
            under jit; outside jit also a stale or overflowed list (under jit use `difmd.neighbors.check`), an
            unknown species, or parameters that are not finite.

    References:
        Knuth et al., Comput. Phys. Commun. 190, 33 (2015), doi:10.1016/j.cpc.2015.01.003 (strain).
    """
    system, neighbors = prepare_inputs(potential, params, system, neighbors)

    def energy_at(positions: Array, cell: Array) -> tuple[Array, Multipoles | None]:
        moved = system.replace(positions=positions, cell=cell)
        if potential.with_multipoles is None:
            return potential.apply(params, moved, neighbors), None
        return potential.with_multipoles(params, moved, neighbors)

    differentiated = jax.value_and_grad(energy_at, (0, 1), has_aux=True)
    (energy, multipoles), (gradient, of_cell) = differentiated(system.positions, system.cell)
    # A strain ε moves positions r and cell h by r·ε and h·ε: ∂U/∂ε = rᵀ ∂U/∂r + hᵀ ∂U/∂h.
    virial = product(system.positions.T, gradient) + product(system.cell.T, of_cell)
    # Symmetrised, as a rotation is not a deformation.
    virial = 0.5 * (virial + virial.T)
    volume = system.volume if all(neighbors.periodic) else jnp.nan
    if multipoles is None:
        return Evaluation(energy, -gradient, virial / volume)
    if any(neighbors.periodic):
        dipole = jnp.full(3, jnp.nan, system.positions.dtype)
    else:
        dipole = total_dipole(multipoles, system, neighbors)
    return Evaluation(energy, -gradient, virial / volume, multipoles.charges, dipole)


def forces_and_virial(
    potential: Potential, params: Params, system: System, neighbors: Neighbors
) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
    """Forces [eV/Å] and the virial −∂U/∂strain [eV] for barostats.

    Args:
        potential: the energy model.
        params: its parameters.
        system: the configuration, periodic in all directions.
        neighbors: a current list for it.

    Returns:
        Forces [atoms, 3] and a symmetric tensor [3, 3].

    Raises:
        InputError: as `evaluate`; a direction that is not periodic.
    """
    if not all(neighbors.periodic):
        raise InputError("a barostat needs three periodic directions: use an integrator without a barostat")
    evaluation = evaluate(potential, params, system, neighbors)
    return evaluation.forces, -evaluation.stress * system.volume


def forces(
    potential: Potential, params: Params, system: System, neighbors: Neighbors
) -> Float[Array, "atoms 3"]:
    """Forces −∂U/∂r [eV/Å], with a reverse rule that uses the symmetry of their Jacobian.

    For F(r, θ) = −∂U/∂r the Jacobian ∂F/∂r is symmetric, therefore

        vjp_r(v) = jvp_r(F; v),    vjp_θ(v) = −∂/∂θ [jvp_r(U; v)],

    and reverse mode through a trajectory neither stores pairs nor scatters. There is no forward rule.

    Args:
        potential: the energy model.
        params: its parameters.
        system: the configuration.
        neighbors: a current list for it, reaching at least `potential.cutoff`.

    Returns:
        Forces; [atoms, 3].

    Raises:
        InputError: as `evaluate`.
    """
    check_arguments(potential, params, system, neighbors)
    return _forces(potential, params, system.positions, system.cell, _constants(system), neighbors)


def plain_forces(
    potential: Potential, params: Params, system: System, neighbors: Neighbors
) -> Float[Array, "atoms 3"]:
    """The same as `forces` without a custom rule: also for forward mode, but slower in reverse mode."""
    check_arguments(potential, params, system, neighbors)
    return -_gradient(potential, params, system.positions, system.cell, _constants(system), neighbors)


def prepare_inputs(
    potential: Potential, params: Params, system: System | ase.Atoms, neighbors: Neighbors | None
) -> tuple[System, Neighbors]:
    """A system from `ase.Atoms`, and a list where none is given; both validated as far as possible."""
    system = as_system(system)
    if neighbors is None:
        check_model(potential, params)
        check_single(system)
        if is_traced(system):
            raise InputError(
                "a neighbour list is needed under jit, grad or vmap: build one outside with "
                "neighbor_list(system, cutoff=potential.cutoff) and give it as neighbors"
            )
        # The system may be a constant of a function that is being traced.
        with jax.ensure_compile_time_eval():
            with_reverse = potential.uses_reverse_edges
            neighbors = neighbor_list(system, cutoff=potential.cutoff, reverse_edges=with_reverse)
    check_arguments(potential, params, system, neighbors)
    return system, neighbors


def _gradient(
    potential: Potential, params: Params, r: Array, cell: Array, constants: Any, neighbors: Neighbors
) -> Array:
    def energy(r: Array) -> Array:
        return potential.apply(params, _system(r, cell, constants), neighbors)

    return jax.grad(energy)(r)


def _constants(system: System) -> tuple[Array, Array, Array]:
    return system.masses, system.atomic_numbers, system.pbc


def _system(r: Array, cell: Array, constants: tuple[Array, Array, Array]) -> System:
    masses, numbers, pbc = constants
    return System(positions=r, atomic_numbers=numbers, masses=masses, cell=cell, pbc=pbc)


# Traced once for all callers.
@functools.partial(jax.jit, static_argnums=0)
def _forces(
    potential: Potential, params: Params, r: Array, cell: Array, constants: Any, neighbors: Neighbors
) -> Array:
    # Constants and neighbours are arguments, as a function with a custom rule must not close over tracers.
    @jax.custom_vjp
    def field(params: Params, r: Array, cell: Array, rest: Any) -> Array:
        return -_gradient(potential, params, r, cell, *rest)

    def forward(params: Any, r: Any, cell: Any, rest: Any) -> tuple[Array, Any]:
        values = jax.tree.map(lambda p: p.value, (params, r, cell, rest))
        params_varies = any(leaf.perturbed for leaf in jax.tree.leaves(params))
        # The backward pass is limited to the inputs that are differentiated.
        names = ("params",) * params_varies + ("cell",) * cell.perturbed
        return field(*values), (values, dict.fromkeys(names))

    def backward(residuals: Any, v: Any) -> tuple[Any, ...]:
        (params, r, cell, rest), names = residuals
        zeros = jax.tree.map(_no_gradient, (params, r, cell, rest))
        if isinstance(v, jax.custom_derivatives.SymbolicZero):
            return zeros
        constants, neighbors = rest
        if potential.pull_back is not None and "cell" not in names:
            gradients = potential.pull_back(params, _system(r, cell, constants), neighbors, v)
            if gradients is not None:
                return (gradients[0] if names else zeros[0], gradients[1], *zeros[2:])

        def along_v(varied: dict[str, Any]) -> Array:
            def energy(r: Array) -> Array:
                system = _system(r, varied.get("cell", cell), constants)
                return potential.apply(varied.get("params", params), system, neighbors)

            return jax.jvp(energy, (varied.get("r", r),), (v,))[1]

        inputs = {"r": r, "params": params, "cell": cell}
        if names and potential.uses_reverse_edges:
            # A single pass, as the gradient in the parameters of a network passes through positions anyway.
            slopes = jax.grad(along_v)({name: inputs[name] for name in ("r", *names)})
        else:
            gradient = functools.partial(_gradient, potential, params)
            _, hessian_v = jax.jvp(lambda r: gradient(r, cell, *rest), (r,), (v,))
            slopes = jax.grad(along_v)({name: inputs[name] for name in names}) if names else {}
            slopes["r"] = hessian_v
        minus = jax.tree.map(jnp.negative, slopes)
        return minus.get("params", zeros[0]), minus["r"], minus.get("cell", zeros[2]), zeros[3]

    field.defvjp(forward, backward, symbolic_zeros=True)
    return field(params, r, cell, (constants, neighbors))


def _no_gradient(x: Any) -> Any:
    if jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return jnp.zeros_like(x)
    return np.zeros(jnp.shape(x), jax.dtypes.float0)
