"""The Lennard-Jones potential for any number of species."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd.errors import InputError
from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described, named
from difmd.potentials.pair import inverse, pair_potential
from difmd.potentials.species import Species, SpeciesValues, as_species, species_values
from difmd.potentials.truncation import Truncation

_Values: TypeAlias = Float[Array, "species"]
_Pairs: TypeAlias = tuple[Float[Array, "species species"], Float[Array, "species species"]]

MixingRule: TypeAlias = Callable[[_Values, _Values], _Pairs]
"""`mix(sigma, epsilon) -> (sigma, epsilon)`."""


@named
def lorentz_berthelot(sigma: _Values, epsilon: _Values) -> _Pairs:
    """σ_ij = (σ_i + σ_j)/2, ε_ij = √(ε_i ε_j).

    Args:
        sigma: σ of each species [Å]; [species].
        epsilon: ε of each species [eV]; [species].

    Returns:
        σ_ij and ε_ij; [species, species].
    """
    return 0.5 * (sigma[:, None] + sigma[None, :]), _geometric(epsilon)


@named
def geometric(sigma: _Values, epsilon: _Values) -> _Pairs:
    """σ_ij = √(σ_i σ_j), ε_ij = √(ε_i ε_j), as in OPLS.

    Args:
        sigma: σ of each species [Å]; [species].
        epsilon: ε of each species [eV]; [species].

    Returns:
        σ_ij and ε_ij; [species, species].
    """
    return _geometric(sigma), _geometric(epsilon)


@named
def waldman_hagler(sigma: _Values, epsilon: _Values) -> _Pairs:
    """σ_ij⁶ = (σ_i⁶ + σ_j⁶)/2, ε_ij = √(ε_i ε_j) σ_i³σ_j³/σ_ij⁶ (doi:10.1002/jcc.540140909).

    Args:
        sigma: σ of each species [Å]; [species].
        epsilon: ε of each species [eV]; [species].

    Returns:
        σ_ij and ε_ij; [species, species].
    """
    sixth = 0.5 * (sigma[:, None] ** 6 + sigma[None, :] ** 6)
    cubes = sigma[:, None] ** 3 * sigma[None, :] ** 3
    return sixth ** (1 / 6), _geometric(epsilon) * cubes / sixth


@described
def lennard_jones(
    species: Species,
    *,
    sigma: SpeciesValues,
    epsilon: SpeciesValues,
    cutoff: float,
    truncation: Truncation | None = None,
    mixing: MixingRule = lorentz_berthelot,
    tail_correction: bool = False,
) -> Potential:
    """φ(r) = 4ε[(σ/r)¹² − (σ/r)⁶].

    Args:
        species: symbols or atomic numbers.
        sigma: initial σ [Å], one for all or one per species.
        epsilon: initial ε [eV], one for all or one per species; write `148 * units.KB` for kelvin.
        cutoff: [Å].
        truncation: `truncated()` (default), `shifted()` or `switched(onset)`.
        mixing: rule for the parameters of unlike pairs.
        tail_correction: add the energy and stress beyond the cut-off for g(r) = 1.

    Returns:
        `Potential`; its params are `{"sigma": [species], "epsilon": [species]}`, initially the values of this
        call.

    Raises:
        InputError: values not positive, lengths that do not match `species`, or as `pair_potential`.

    References:
        Jones, Proc. R. Soc. A 106, 463 (1924), doi:10.1098/rspa.1924.0082.
    """
    numbers = as_species(species)
    init = constant_init(
        sigma=species_values("sigma", sigma, numbers, positive=True),
        epsilon=species_values("epsilon", epsilon, numbers, positive=True),
    )
    if not callable(mixing):
        raise InputError(f"mixing = {mixing!r} must be a function such as lorentz_berthelot or geometric")

    def tables(params: Params) -> tuple[Array, Array]:
        return mixing(params["sigma"], params["epsilon"])

    def phi(pair: Any, r_squared: Array) -> Array:
        sigma, epsilon = pair
        sixth = (sigma * sigma * inverse(r_squared)) ** 3
        return 4 * epsilon * (sixth * sixth - sixth)

    return pair_potential(
        phi,
        init=init,
        tables=tables,
        species=species,
        cutoff=cutoff,
        truncation=truncation,
        tail_correction=tail_correction,
    )


def _geometric(values: _Values) -> Float[Array, "species species"]:
    # A like pair has the value itself, without a root that would cost half of its digits near zero.
    like = np.eye(len(values), dtype=bool)
    product = jnp.where(like, 1, values[:, None] * values[None, :])
    return jnp.where(like, values[:, None], jnp.sqrt(product))
