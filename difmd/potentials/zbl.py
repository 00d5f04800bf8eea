"""Screened repulsion of nuclei at distances shorter than those in the data."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd.errors import InputError, check_positive
from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.envelope import polynomial_envelope
from difmd.potentials.pair import PairValues, pair_potential, pair_table
from difmd.potentials.species import Species, as_species
from difmd.units import BOHR, COULOMB

# S(x) = Σ c e^{−dx}.
_SCREENING = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))

# Curium; covalent radii of heavier elements are not measured.
_LAST_RADIUS = 96


@described
def zbl(
    species: Species,
    *,
    cutoff: PairValues | None = None,
    p: int = 6,
    exponent: float = 0.23,
    prefactor: float = 0.8854,
) -> Potential:
    """The universal repulsion of Ziegler, Biersack and Littmark, ended within a bond.

        φ_ij(r) = k Z_i Z_j/r S(r/a_ij) u(r/R_ij),    a_ij = prefactor a₀/(Z_i^exponent + Z_j^exponent),
        S(x) = 0.1818 e^{−3.2x} + 0.5099 e^{−0.9423x} + 0.2802 e^{−0.4028x} + 0.02817 e^{−0.2016x},

    with the envelope u of `polynomial_envelope`: energy, force and curvature vanish at R_ij. Added to a
    network, `zbl(...) + mace(...)`, it keeps atoms apart where the network extrapolates. Train the sum, so
    that the network learns the rest.

    Args:
        species: symbols or atomic numbers.
        cutoff: R_ij [Å], one for all pairs or a symmetric table of the species; default: the sums of the
            covalent radii, as in MACE.
        p: power of the envelope.
        exponent: of the screening length. MACE uses 0.3, and a prefactor of 0.4543.
        prefactor: of the screening length.

    Returns:
        `Potential`; its params are `{}`, as it has nothing to fit.

    Raises:
        InputError: a cut-off, exponent or prefactor that is not positive, a table that is not symmetric or of
            another size, p < 1, an element without a covalent radius if there is no cutoff, or as
            `pair_potential`.

    References:
        Ziegler, Biersack & Littmark, The Stopping and Range of Ions in Solids, Pergamon 1985, ch. 2. Covalent
        radii: Cordero et al., Dalton Trans. 2008, 2832, doi:10.1039/b801115j. Settings of MACE: `ZBLBasis` in
        github.com/ACEsuit/mace.
    """
    charges = np.array(as_species(species), np.float64)
    check_positive("exponent", exponent, "of the screening length")
    check_positive("prefactor", prefactor, "of the screening length")
    if p < 1:
        raise InputError(f"p = {p}, the power of the envelope, must be at least 1")
    reach = _bonds(as_species(species)) if cutoff is None else pair_table("cutoff", cutoff, len(charges))
    powers = charges**exponent
    constants = {
        "strength": COULOMB * charges[:, None] * charges[None, :],
        "inverse_screening": (powers[:, None] + powers[None, :]) / (prefactor * BOHR),
        "inverse_reach": 1 / reach,
    }

    def phi(pair: Params, r_squared: Array) -> Array:
        r = jnp.sqrt(r_squared)
        x = r * pair["inverse_screening"]
        first, *others = (c * jnp.exp(-d * x) for c, d in _SCREENING)
        end = polynomial_envelope(r * pair["inverse_reach"], 1.0, p)
        return pair["strength"] / r * sum(others, first) * end

    longest = float(np.max(reach))
    return pair_potential(
        phi, init=constant_init(), tables=lambda _: constants, species=species, cutoff=longest
    )


def _bonds(numbers: Sequence[int]) -> np.ndarray:
    """Sums of covalent radii [Å]; [species, species]."""
    from ase.data import chemical_symbols, covalent_radii

    unknown = [chemical_symbols[z] for z in numbers if z > _LAST_RADIUS]
    if unknown:
        raise InputError(f"there is no covalent radius of {', '.join(unknown)}: give a cutoff")
    radii = covalent_radii[list(numbers)]
    return radii[:, None] + radii[None, :]
