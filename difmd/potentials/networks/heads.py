"""Shared parts of equivariant networks, and their outputs: energies, and optionally charges and dipoles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd._internal.gather import take
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Convolution, Features, Linear
from difmd.potentials.networks.harmonics import Irrep, natural
from difmd.potentials.networks.radial import silu
from difmd.potentials.pair import polynomial_envelope

_SCALAR, _VECTOR = natural(0), natural(1)


class Outputs(NamedTuple):
    """Outputs of a network for each center.

    Attributes:
        energy: ε, dimensionless; [centers].
        charges: [e]; [centers]. They add up to zero. None: no charges.
        dipoles: [e·Å]; [centers, 3]. None: no dipoles.
    """

    energy: Float[Array, "centers"]
    charges: Float[Array, "centers"] | None = None
    dipoles: Float[Array, "centers 3"] | None = None


class EquivariantNetwork(nn.Module):
    """Settings and steps that `mace` and `nequip` share; their docstrings explain the settings."""

    n_species: int
    cutoff: float
    n_features: int
    n_layers: int
    l_max: int
    n_radial: int
    radial_hidden: Sequence[int]
    p: int
    avg_num_neighbors: float
    charges: bool
    atomic_dipoles: bool

    def initial_features(self, env: Environment) -> Features:
        """An embedding of the species."""
        shape = (self.n_species, self.n_features)
        table = self.param("embedding", nn.initializers.normal(1.0), shape).astype(env.distances.dtype)
        return {_SCALAR: take(table, env.types)[:, None, :]}

    def convolution(self, layer: int, outputs: Sequence[Irrep]) -> Convolution:
        """The convolution of a layer."""
        return Convolution(
            outputs=outputs,
            hidden=self.radial_hidden,
            n_radial=self.n_radial,
            p=self.p,
            cutoff=self.cutoff,
            name=f"convolution_{layer}",
        )

    def outputs(self, energy: Array, latent: Array, dipoles: Array, env: Environment) -> Outputs:
        """Energies with the charges of the latent χ."""
        charges = charges_of(latent, env, self.cutoff, self.p, self.avg_num_neighbors)
        return Outputs(energy, charges, dipoles if self.atomic_dipoles else None)


class ChargeReadout(nn.Module):
    """The latent χ of each center, whose differences move charge, and its dipole.

    Attributes:
        hidden: width of a hidden layer; None: χ and dipole are linear in the features.
        atomic_dipoles: whether to return dipoles if the features have vectors.
    """

    hidden: int | None
    atomic_dipoles: bool

    @nn.compact
    def __call__(self, features: Features) -> tuple[Float[Array, "centers"], Float[Array, "centers 3"]]:
        """χ [e] and dipoles [e·Å], which are zero without vectors."""
        scalars, vectors = features[_SCALAR], features.get(_VECTOR) if self.atomic_dipoles else None
        if self.hidden is not None:
            n = self.hidden
            widths = {_SCALAR: n} if vectors is None else {_SCALAR: 2 * n, _VECTOR: n}
            inner = Linear(widths, name="hidden")(features)
            gates = silu(inner[_SCALAR])
            scalars = gates[..., :n]
            vectors = None if vectors is None else inner[_VECTOR] * gates[..., n:]
        inputs = {_SCALAR: scalars} if vectors is None else {_SCALAR: scalars, _VECTOR: vectors}
        last = Linear(dict.fromkeys(inputs, 1), name="last")(inputs)
        latent = last[_SCALAR][:, 0, 0]
        if vectors is None:
            return latent, jnp.zeros((len(latent), 3), latent.dtype)
        return latent, last[_VECTOR][:, :, 0]


def charges_of(
    latent: Float[Array, "centers"], env: Environment, cutoff: float, p: int, avg_num_neighbors: float
) -> Float[Array, "centers"]:
    """q_i = Σ_j u(r_ij) (χ_j − χ_i) / n̄: charge flows from one atom of a pair to the other.

    Every group of atoms out of reach of others is therefore neutral, and an isolated atom has no charge. Far
    molecules are independent, which a shift that makes the total zero would violate.

    References:
        Nistor et al., J. Chem. Phys. 125, 094108 (2006), doi:10.1063/1.2346671 (charges split over bonds).
    """
    weights = polynomial_envelope(env.distances, cutoff, p)
    flows = weights * (take(latent, env.senders) - latent[:, None])
    return jnp.sum(flows, axis=1) / avg_num_neighbors
