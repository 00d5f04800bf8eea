"""Networks in flax.linen, imported on first use."""

from difmd.potentials.networks.invariant import invariant
from difmd.potentials.networks.mace import mace
from difmd.potentials.networks.nequip import nequip
from difmd.potentials.networks.network import network_potential

__all__ = ["invariant", "mace", "nequip", "network_potential"]
