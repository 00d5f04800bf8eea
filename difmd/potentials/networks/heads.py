"""Outputs of networks for each atom: an energy, and optionally charges and dipoles."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd._internal.gather import take
from difmd.potentials.envelope import polynomial_envelope
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Features, Linear
from difmd.potentials.networks.harmonics import natural
from difmd.potentials.networks.radial import silu

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
