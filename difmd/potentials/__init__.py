"""Energy models as pure functions."""

from difmd.potentials.base import Params, Potential, check_finite, validate_inputs
from difmd.potentials.lennard_jones import (
    geometric,
    lennard_jones,
    lorentz_berthelot,
    waldman_hagler,
)
from difmd.potentials.pair import pair_potential
from difmd.potentials.truncation import Truncation, shifted, switched, truncated

__all__ = [
    "Params",
    "Potential",
    "Truncation",
    "check_finite",
    "geometric",
    "lennard_jones",
    "lorentz_berthelot",
    "pair_potential",
    "shifted",
    "switched",
    "truncated",
    "validate_inputs",
    "waldman_hagler",
]
