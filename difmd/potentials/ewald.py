"""Coulomb interaction of fixed charges with all of their periodic images, by Ewald's sum."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erfc
from jaxtyping import Array, Float

from difmd._internal.argument_checks import real_numbers
from difmd._internal.lattice import invert, product
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors
from difmd.potentials.base import Params, Potential
from difmd.potentials.coulomb import charged_pairs
from difmd.potentials.describe import described
from difmd.potentials.species import Species, SpeciesValues
from difmd.system import System
from difmd.units import COULOMB

# Largest stretch of the reference cell in any direction for which its waves suffice.
_STRETCH = 1.1

# Waves summed at a time: enough for vector instructions, few enough to stay in the cache.
_BLOCK = 16

_MOST_WAVES = 3e7


@described
def ewald(
    species: Species, *, charges: SpeciesValues, cell: Any, cutoff: float = 10.0, accuracy: float = 1e-6
) -> Potential:
    """The energy of point charges and all their images, surrounded by a conductor.

        U = ½ Σ_i Σ_j k q_i q_j erfc(α r)/r + (2πk/V) Σ_{G≠0} e^{−G²/4α²}/G² |Σ_i q_i e^{iG·r_i}|²
            − k (α/√π) Σ_i q_i² − k π Q²/(2 V α²).

    The second sum costs N times the number of waves, which grows with N at a given cut-off. A uniform
    background neutralises a total charge Q. No pair is excluded, not even within a molecule.

    Args:
        species: symbols or atomic numbers.
        charges: q of each species [e].
        cell: reference cell, rows are lattice vectors [Å]; [3, 3] or three edges. Its waves serve cells that
            change during a run, so that energies are smooth; a cell that is longer by more than 10 % in some
            direction is refused.
        cutoff: of the first sum [Å].
        accuracy: truncation error of either sum relative to its first terms; determines α and the waves.

    Returns:
        `Potential`; its params are `{"charges": [species]}`.

    Raises:
        InputError: charges that do not match `species`, an accuracy not between 0 and 0.1, a cell without
            volume, too many waves, or as `pair_potential`. When evaluated: a system that is not periodic in
            three directions, or whose cell is too long; under jit NaN.

    References:
        Ewald, Ann. Phys. 369, 253 (1921), doi:10.1002/andp.19213690304; Kolafa & Perram, Mol. Simul. 9, 351
        (1992), doi:10.1080/08927029208049126 (errors of both sums).
    """
    if not 0 < accuracy < 0.1:
        raise InputError(f"accuracy = {accuracy} must lie between 0 and 0.1")
    check_positive("cutoff", cutoff, "Å")
    reference = real_numbers("cell", cell)
    reference = np.diag(reference) if reference.shape == (3,) else reference
    if reference.shape != (3, 3) or not np.isfinite(reference).all() or abs(np.linalg.det(reference)) < 1e-6:
        raise InputError(f"cell = {np.asarray(cell).tolist()} must be three lattice vectors with a volume")
    cutoff = float(cutoff)
    reach = math.sqrt(-math.log(accuracy))
    alpha = reach / cutoff

    def phi(product: Array, r_squared: Array) -> Array:
        r = jnp.sqrt(r_squared)
        return COULOMB * product * erfc(alpha * r) / r

    pairs, charges_of = charged_pairs(phi, species, charges=charges, cutoff=cutoff)
    waves = _waves(reference, _STRETCH * 2 * alpha * reach)
    root = np.linalg.cholesky(reference @ reference.T)
    terms = _EwaldTerms(pairs, charges_of, alpha, waves, np.linalg.inv(root))
    return Potential(
        init=pairs.init,
        apply=terms.apply,
        atomic=terms.atomic,
        cutoff=pairs.cutoff,
        species=pairs.species,
        validate=terms.validate,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _EwaldTerms:
    """The functions of `ewald`: α in 1/Å, waves in reciprocal vectors, L⁻¹ with L Lᵀ = h hᵀ of the cell h."""

    pairs: Potential
    charges_of: Callable[[Params, System], Float[Array, "atoms"]]
    alpha: float
    waves: np.ndarray
    inverse_root: np.ndarray

    def validate(self, system: System) -> None:
        """Refuse a cell that needs more waves (host)."""
        stretch = float(self.stretch_of(system))
        if stretch > _STRETCH:
            raise InputError(
                f"the cell is {stretch:.2f} times as long in some direction as the reference cell of ewald, "
                f"more than {_STRETCH}: make the potential for this cell"
            )

    def stretch_of(self, system: System) -> Array:
        """Largest ratio of a length to that in the reference cell."""
        # Validated systems come from the host, with numpy's arrays.
        cell = jnp.asarray(system.cell)
        ratio = product(jnp.asarray(self.inverse_root, cell.dtype), cell)
        return jnp.sqrt(jnp.max(jnp.linalg.eigvalsh(lax.stop_gradient(product(ratio, ratio.T)))))

    def nan_if_stretched(self, system: System, neighbors: Neighbors) -> Array:
        """1, or NaN for a cell that needs more waves."""
        if not all(neighbors.periodic):
            raise InputError("ewald needs three periodic directions; coulomb_damped_shifted does not")
        return jnp.where(self.stretch_of(system) > _STRETCH, jnp.nan, 1).astype(system.cell.dtype)

    def structure(self, system: System, charge: Array) -> tuple[Array, Array, Array, Any]:
        """Weights and structure factors of all waves, in blocks; and a function for the phases of a block."""
        inverse = invert(system.cell)
        fraction = product(system.positions, inverse)
        turns = jnp.asarray(self.waves, system.cell.dtype)

        def phases(block: Array) -> Array:
            # Full turns are subtracted before the precision of large angles is lost.
            angle = product(block, fraction.T)
            return 2 * jnp.pi * (angle - lax.stop_gradient(jnp.round(angle)))

        @jax.checkpoint
        def factors(block: Array) -> tuple[Array, Array]:
            phase = phases(block)
            return product(jnp.cos(phase), charge), product(jnp.sin(phase), charge)

        _, (real, imaginary) = lax.scan(lambda _, block: (None, factors(block)), None, turns)
        squares = (2 * jnp.pi) ** 2 * jnp.sum(product(turns, inverse.T) ** 2, axis=-1)
        # Each wave represents the opposite one, too. Waves that fill up a block do not count.
        used = jnp.any(turns != 0, axis=-1)
        safe = jnp.where(used, squares, 1)
        prefactor = 4 * jnp.pi * COULOMB / system.volume
        weights = jnp.where(used, prefactor * jnp.exp(-safe / (4 * self.alpha**2)) / safe, 0)
        return weights, real, imaginary, phases

    def constants(self, system: System, charge: Array) -> Array:
        """Energy of each charge by itself and with the background."""
        background = jnp.pi * jnp.sum(charge) / (2 * system.volume * self.alpha**2)
        return -COULOMB * charge * (self.alpha / math.sqrt(math.pi) * charge + background)

    def apply(self, params: Params, system: System, neighbors: Neighbors) -> Array:
        """See `Potential`."""
        charge = self.charges_of(params, system)
        weights, real, imaginary, _ = self.structure(system, charge)
        smooth = jnp.sum(weights * (real**2 + imaginary**2)) + jnp.sum(self.constants(system, charge))
        factor = self.nan_if_stretched(system, neighbors)
        return self.pairs.apply(params, system, neighbors) + factor * smooth

    def atomic(self, params: Params, system: System, neighbors: Neighbors) -> Array:
        """See `Potential`."""
        charge = self.charges_of(params, system)
        weights, real, imaginary, phases = self.structure(system, charge)

        def add(total: Array, wave: Any) -> tuple[Array, None]:
            block, weight, a, b = wave
            phase = phases(block)
            waves = product(weight * a, jnp.cos(phase)) + product(weight * b, jnp.sin(phase))
            return total + waves, None

        blocks = (jnp.asarray(self.waves, system.cell.dtype), weights, real, imaginary)
        potential, _ = lax.scan(add, jnp.zeros_like(charge), blocks)
        smooth = charge * potential + self.constants(system, charge)
        factor = self.nan_if_stretched(system, neighbors)
        return self.pairs.atomic(params, system, neighbors) + factor * smooth


def _waves(cell: np.ndarray, longest: float) -> Float[np.ndarray, "blocks block 3"]:
    """Integer waves of a cell up to |G| = `longest` [1/Å], one of each pair ±G; filled up with zeros."""
    inverse = np.linalg.inv(cell)
    most = np.floor(longest * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    number = float(np.prod(2.0 * most + 1))
    if number > _MOST_WAVES:
        raise InputError(
            f"{number:.1e} waves for a cell of {abs(np.linalg.det(cell)):.3g} Å³: raise the cutoff, or "
            "lower the accuracy"
        )
    first, second, third = np.meshgrid(*[np.arange(-n, n + 1.0) for n in most], indexing="ij", sparse=True)
    forward = (first > 0) | ((first == 0) & ((second > 0) | ((second == 0) & (third > 0))))
    half = np.argwhere(forward) - most
    waves = half[2 * np.pi * np.linalg.norm(half @ inverse.T, axis=1) <= longest]
    filled = np.zeros((-(-len(waves) // _BLOCK) * _BLOCK, 3))
    filled[: len(waves)] = waves
    return filled.reshape(-1, _BLOCK, 3)
