"""Networks in flax.linen; what they need is imported when the first of them is asked for."""

from difmd.potentials.networks.invariant import invariant
from difmd.potentials.networks.mace import mace
from difmd.potentials.networks.nequip import nequip
from difmd.potentials.networks.network import network_potential

__all__ = ["invariant", "mace", "nequip", "network_potential"]
