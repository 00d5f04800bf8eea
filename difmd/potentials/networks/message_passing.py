"""Settings and steps that networks share."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array

from difmd._internal.gather import take
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Convolution, Features
from difmd.potentials.networks.harmonics import Irrep, natural
from difmd.potentials.networks.heads import Outputs, charges_of


class MessagePassing(nn.Module):
    """A network of convolutions; the factories explain the settings."""

    n_species: int
    cutoff: float
    n_features: int
    n_layers: int
    l_max: int
    n_radial: int
    p: int
    avg_num_neighbors: float

    def initial_features(self, env: Environment) -> Features:
        """An embedding of the species."""
        shape = (self.n_species, self.n_features)
        table = self.param("embedding", nn.initializers.normal(1.0), shape).astype(env.distances.dtype)
        return {natural(0): take(table, env.types)[:, None, :]}

    def convolution(self, layer: int, outputs: Sequence[Irrep], hidden: Sequence[int]) -> Convolution:
        """The convolution of a layer, with a radial network of these widths."""
        return Convolution(
            outputs=outputs,
            hidden=hidden,
            n_radial=self.n_radial,
            p=self.p,
            cutoff=self.cutoff,
            name=f"convolution_{layer}",
        )


class EquivariantNetwork(MessagePassing):
    """What `mace` and `nequip` share beyond that."""

    radial_hidden: Sequence[int]
    charges: bool
    atomic_dipoles: bool

    def outputs(self, energy: Array, latent: Array, dipoles: Array, env: Environment) -> Outputs:
        """Energies with the charges of the latent χ."""
        charges = charges_of(latent, env, self.cutoff, self.p, self.avg_num_neighbors)
        return Outputs(energy, charges, dipoles if self.atomic_dipoles else None)
