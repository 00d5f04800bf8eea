"""Energy models as pure functions."""

from difmd.potentials.base import Params, Potential, check_finite, validate_inputs
from difmd.potentials.buckingham import buckingham
from difmd.potentials.coulomb import coulomb_damped_shifted
from difmd.potentials.lennard_jones import (
    geometric,
    lennard_jones,
    lorentz_berthelot,
    waldman_hagler,
)
from difmd.potentials.morse import morse
from difmd.potentials.pair import pair_potential
from difmd.potentials.truncation import Truncation, shifted, switched, truncated

__all__ = [
    "Params",
    "Potential",
    "Truncation",
    "buckingham",
    "check_finite",
    "coulomb_damped_shifted",
    "geometric",
    "lennard_jones",
    "lorentz_berthelot",
    "morse",
    "pair_potential",
    "shifted",
    "switched",
    "truncated",
    "validate_inputs",
    "waldman_hagler",
]
