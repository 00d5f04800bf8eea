"""A learned pair potential, alone or added to a network."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd.errors import InputError
from difmd.potentials.base import Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.envelope import polynomial_envelope
from difmd.potentials.pair import pair_potential, symmetric
from difmd.potentials.species import Species, as_species


@described
def pair_prior(
    species: Species, *, cutoff: float = 5.0, n_radial: int = 8, p: int = 6, coefficients: Any = None
) -> Potential:
    """A sum of Bessel functions with separate coefficients for each pair of species.

        φ_ij(r) = u(x) Σ_n c_ijn √2 sin(nπx)/x,    x = r/r_c,    n = 1 … n_radial,

    with the envelope u of `polynomial_envelope`. It is linear in its params, and zero until it is trained:
    `pair_prior(...) + network` is trained together, or the prior first and then fixed, by
    `is_trained=lambda path: path[0] != 0` of `training.train`. It is finite at r = 0: add `zbl(...)` where
    atoms come closer than in the data. Use `tabulated` for a given pair function.

    Args:
        species: symbols or atomic numbers.
        cutoff: r_c [Å].
        n_radial: number of functions; the resolution is r_c/n_radial.
        p: power of the envelope.
        coefficients: initial c [eV]; [n_radial] for all pairs, or a symmetric table
            [species, species, n_radial]; default: 0.

    Returns:
        `Potential`; its params are `{"coefficients": [species, species, n_radial]}`; only their symmetric
        part counts.

    Raises:
        InputError: no functions, p < 1, coefficients that are not finite, not symmetric or of another size,
            or as `pair_potential`.

    References:
        Gasteiger, Groß & Günnemann, ICLR 2020, arXiv:2003.03123, equations 7 and 8.
    """
    n_types = len(as_species(species))
    if n_radial < 1 or p < 1:
        raise InputError(f"n_radial = {n_radial} and p = {p} must be at least 1")
    shape = (n_types, n_types, n_radial)
    start = np.zeros(n_radial) if coefficients is None else np.asarray(coefficients, np.float64)
    start = np.broadcast_to(start, shape) if start.shape == shape[2:] else start
    is_valid = start.shape == shape and np.isfinite(start).all()
    if not is_valid or not np.array_equal(start, start.swapaxes(0, 1)):
        raise InputError(
            f"coefficients of shape {list(start.shape)}: give {n_radial} finite numbers, or a symmetric "
            f"table {list(shape)}"
        )

    def phi(pair: Any, r_squared: Array) -> Array:
        x = jnp.sqrt(r_squared) / cutoff
        twice = 2 * jnp.cos(math.pi * x)
        # Clenshaw's recursion: two functions of x, whatever the number of terms.
        above = now = jnp.zeros_like(x)
        for n in reversed(range(n_radial)):
            above, now = now, pair["coefficients"].at(jnp.int32(n)) + twice * now - above
        return math.sqrt(2) * jnp.sin(math.pi * x) / x * now * polynomial_envelope(x, 1.0, p)

    init = constant_init(coefficients=start)
    return pair_potential(phi, init=init, tables=symmetric, species=species, cutoff=cutoff)
