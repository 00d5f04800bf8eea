"""Energy models as pure functions."""

from typing import TYPE_CHECKING

from difmd._internal.lazy import importer
from difmd.potentials import describe as _describe
from difmd.potentials.atomic_energies import atomic_energies
from difmd.potentials.base import Params, Potential, from_description, validate_inputs
from difmd.potentials.buckingham import buckingham
from difmd.potentials.coulomb import coulomb_damped_shifted
from difmd.potentials.embedded_atom import embedded_atom, read_eam
from difmd.potentials.embedding import Contribution, embedding_potential
from difmd.potentials.ewald import ewald
from difmd.potentials.lennard_jones import geometric, lennard_jones, lorentz_berthelot, waldman_hagler
from difmd.potentials.morse import morse
from difmd.potentials.multipoles import Multipoles, total_dipole
from difmd.potentials.pair import pair_potential
from difmd.potentials.pair_prior import pair_prior
from difmd.potentials.stillinger_weber import stillinger_weber
from difmd.potentials.tabulated import tabulated
from difmd.potentials.tersoff import TERSOFF_1989, TersoffElement, tersoff
from difmd.potentials.truncation import Truncation, shifted, switched, truncated
from difmd.potentials.zbl import zbl

if TYPE_CHECKING:
    from difmd.potentials.networks.invariant import invariant
    from difmd.potentials.networks.mace import mace
    from difmd.potentials.networks.nequip import nequip
    from difmd.potentials.networks.network import network_potential
else:
    _OF_NETWORKS = ("networks", "invariant", "mace", "nequip", "network_potential")
    __getattr__ = importer(__name__, dict.fromkeys(_OF_NETWORKS, "difmd.potentials.networks"))

_describe.LATE_MODULES.append("difmd.potentials.networks")

__all__ = [
    "TERSOFF_1989",
    "Contribution",
    "Multipoles",
    "Params",
    "Potential",
    "TersoffElement",
    "Truncation",
    "atomic_energies",
    "buckingham",
    "coulomb_damped_shifted",
    "embedded_atom",
    "embedding_potential",
    "ewald",
    "from_description",
    "geometric",
    "invariant",
    "lennard_jones",
    "lorentz_berthelot",
    "mace",
    "morse",
    "nequip",
    "network_potential",
    "pair_potential",
    "pair_prior",
    "read_eam",
    "shifted",
    "stillinger_weber",
    "switched",
    "tabulated",
    "tersoff",
    "total_dipole",
    "truncated",
    "validate_inputs",
    "waldman_hagler",
    "zbl",
]


def __dir__() -> list[str]:
    return __all__
