"""What networks yield for each atom: an energy, and charges and dipoles where these are asked for."""

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
    """What a network yields for each center.

    Attributes:
        energy: ε, dimensionless; [centers].
        charges: [e]; [centers]. They add up to zero. None without.
        dipoles: [e·Å]; [centers, 3]. None without.
    """

    energy: Float[Array, "centers"]
    charges: Float[Array, "centers"] | None = None
    dipoles: Float[Array, "centers 3"] | None = None


class ChargeReadout(nn.Module):
    """The latent χ of each center, whose differences move charge, and its dipole.

    Attributes:
        hidden: width of a layer between; None: χ and dipole are linear in the features.
        atomic_dipoles: whether to yield dipoles, where features have vectors.
    """

    hidden: int | None
    atomic_dipoles: bool

    @nn.compact
    def __call__(self, features: Features) -> tuple[Float[Array, "centers"], Float[Array, "centers 3"]]:
        """χ [e] and dipoles [e·Å], which are zero where there is nothing to make them of."""
        scalars, vectors = features[_SCALAR], None
        if self.atomic_dipoles:
            vectors = features.get(_VECTOR)
        if self.hidden is not None:
            n = self.hidden
            widths = {_SCALAR: n} if vectors is None else {_SCALAR: 2 * n, _VECTOR: n}
            inner = Linear(widths, name="hidden")(features)
            gates = silu(inner[_SCALAR])
            scalars = gates[..., :n]
            vectors = None if vectors is None else inner[_VECTOR] * gates[..., n:]
        seen = {_SCALAR: scalars} if vectors is None else {_SCALAR: scalars, _VECTOR: vectors}
        found = Linear(dict.fromkeys(seen, 1), name="last")(seen)
        latent = found[_SCALAR][:, 0, 0]
        if vectors is None:
            return latent, jnp.zeros((len(latent), 3), latent.dtype)
        return latent, found[_VECTOR][:, :, 0]


def charges_of(
    latent: Float[Array, "centers"], env: Environment, *, cutoff: float, p: int, avg_num_neighbors: float
) -> Float[Array, "centers"]:
    """q_i = Σ_j u(r_ij) (χ_j − χ_i) / n̄: what flows from one atom of a pair is what the other gets.

    Every group of atoms out of reach of others is therefore neutral, and an atom by itself has no charge;
    far molecules know nothing of each other, as they would of a shift that made a total zero.

    Args:
        latent: χ [e].
        env: the neighbours.
        cutoff: where the envelope u ends [Å].
        p: power of u.
        avg_num_neighbors: n̄.

    Returns:
        [e].

    References:
        Nistor et al., J. Chem. Phys. 125, 094108 (2006), doi:10.1063/1.2346671 (charges split over bonds).
    """
    weights = polynomial_envelope(env.distances, cutoff, p)
    flows = weights * (take(latent, env.senders) - latent[:, None])
    return jnp.sum(flows, axis=1) / avg_num_neighbors
