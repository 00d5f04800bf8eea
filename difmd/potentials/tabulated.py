"""A pair potential from energies on a grid."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.argument_checks import real_numbers
from difmd.errors import InputError
from difmd.potentials.base import Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.pair import pair_potential, symmetric
from difmd.potentials.species import Species, as_species
from difmd.potentials.splines import coefficients, spline
from difmd.potentials.truncation import Truncation


@described
def tabulated(
    species: Species, *, distances: Any, energies: Any, truncation: Truncation | None = None
) -> Potential:
    """A cubic spline through tabulated energies; its cut-off is the last distance.

    Below the first distance the first polynomial continues, an extrapolation: begin the table at a distance
    that no pair reaches. A remaining energy at the end is cut off, or treated by `truncation`.

    Args:
        species: symbols or atomic numbers.
        distances: evenly spaced, ascending, at least four [Å]; [points].
        energies: φ there [eV]; [points] for all pairs, or a symmetric table [species, species, points].
        truncation: `truncated()` (default), `shifted()` or `switched(onset)`.

    Returns:
        `Potential`; its params are `{"coefficients": [species, species, points + 2]}`, those of cubic
        B-splines; their symmetric part counts.

    Raises:
        InputError: distances that are not evenly spaced, shapes that do not match, values that are not
            finite, or as `pair_potential`.

    References:
        Wolff & Rudd, Comput. Phys. Commun. 120, 20 (1999), doi:10.1016/S0010-4655(99)00217-9 (splines for
        tabulated potentials).
    """
    r, values = real_numbers("distances", distances), real_numbers("energies", energies)
    if r.ndim != 1 or len(r) < 4 or not np.isfinite(r).all():
        raise InputError(f"distances of shape {r.shape} must be at least four finite numbers")
    first, spacing = float(r[0]), float(r[-1] - r[0]) / (len(r) - 1)
    if first < 0:
        raise InputError(f"the first distance, {first} Å, must not be negative")
    # Printed and single-precision grids are even to some digits only.
    if not spacing > 0 or np.max(np.abs(r - first - spacing * np.arange(len(r)))) > 0.01 * spacing:
        raise InputError(
            "distances must be ascending and evenly spaced: put the table on an even grid with "
            "scipy.interpolate.CubicSpline"
        )
    n_types, points = len(as_species(species)), len(r)
    table = np.broadcast_to(values, (n_types, n_types, len(values))) if values.ndim == 1 else values
    if table.shape != (n_types, n_types, points) or not np.array_equal(table, table.swapaxes(0, 1)):
        raise InputError(
            f"energies of shape {values.shape}: give one per distance, {points} in all, or a symmetric table "
            f"[{n_types}, {n_types}, {points}]"
        )
    if not np.isfinite(table).all():
        raise InputError("energies must be finite: begin the table where they are")
    init = constant_init(coefficients=coefficients(table))

    def phi(pair: Any, r_squared: Array) -> Array:
        return spline(pair["coefficients"], (jnp.sqrt(r_squared) - first) / spacing, points)

    return pair_potential(
        phi, init=init, tables=symmetric, species=species, cutoff=float(r[-1]), truncation=truncation
    )
