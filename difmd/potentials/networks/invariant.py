"""Invariant messages: a small, fast network to compare equivariant ones with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd.potentials.base import Potential
from difmd.potentials.describe import described
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Linear
from difmd.potentials.networks.harmonics import natural, spherical_harmonics
from difmd.potentials.networks.message_passing import MessagePassing
from difmd.potentials.networks.network import build_network
from difmd.potentials.networks.radial import silu
from difmd.potentials.pair import PairValues
from difmd.potentials.species import Species, SpeciesValues

_SCALAR = natural(0)


class Perceptron(nn.Module):
    """Layers with silu between them, without bias.

    Attributes:
        widths: of the layers.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: Float[Array, "centers 1 in"]) -> Float[Array, "centers 1 out"]:
        """The output of the last layer."""
        for k, width in enumerate(self.widths):
            x = Linear({_SCALAR: width}, name=f"layer_{k}")({_SCALAR: silu(x) if k else x})[_SCALAR]
        return x


class Invariant(MessagePassing):
    """Site energies from invariant messages; `invariant` explains the settings."""

    @nn.compact
    def __call__(self, env: Environment) -> Float[Array, "centers"]:
        """ε of each center, dimensionless."""
        n = self.n_features
        harmonics = spherical_harmonics(self.l_max, env.vectors, env.distances)
        s = self.initial_features(env)[_SCALAR]
        degrees = [natural(l) for l in range(self.l_max + 1)]  # noqa: E741
        for t in range(self.n_layers):
            # Filters without hidden layers: all that is done for a pair is linear in its radial functions.
            sent = {_SCALAR: Perceptron((n, n), name=f"sent_{t}")(s)}
            messages = self.convolution(t, degrees, hidden=())(sent, harmonics, env)
            received = [s]
            for irrep, x in messages.items():
                x = x / math.sqrt(self.avg_num_neighbors)
                received.append(jnp.mean(x * x, axis=1, keepdims=True) if irrep.l else x)
            s = s + Perceptron((n, n), name=f"update_{t}")(jnp.concatenate(received, axis=-1))
        return Perceptron((max(n // 2, 1), 1), name="readout")(s)[:, 0, 0]


@described
def invariant(
    species: Species,
    *,
    cutoff: float = 5.0,
    n_features: int = 64,
    n_layers: int = 2,
    l_max: int = 1,
    n_radial: int = 8,
    p: int = 6,
    avg_num_neighbors: float = 20.0,
    scale: SpeciesValues = 1.0,
    shift: SpeciesValues = 0.0,
    nearest: PairValues | None = None,
) -> Potential:
    """Message passing on invariant features: PaiNN whose vectors stay in the layer that forms them.

    With the features s_i of atoms, filters W linear in Bessel functions times an envelope, perceptrons φ and
    ψ of the atoms, and spherical harmonics Y_l, each layer is

        A_i^l = Σ_j φ(s_j) ∘ W^l(r_ij) Y_l(r̂_ij),    s_i ← s_i + ψ(s_i, A_i⁰, |A_i¹|², …, |A_i^l_max|²).

    No perceptron acts on pairs, which makes it cheap: a baseline for equivariant networks. With `l_max=0` it
    depends on distances alone; l_max = 1 is PaiNN without products of vectors and their sums over layers.

    Args:
        species: symbols or atomic numbers.
        cutoff: of pairs [Å]; the energy of an atom depends on others up to `n_layers` times as far.
        n_features: features of an atom (`n_atom_basis` of SchNetPack).
        n_layers: message-passing layers (`n_interactions`).
        l_max: largest degree of the spherical harmonics.
        n_radial: Bessel functions (`n_rbf`).
        p: power of the envelope; the half cosine of PaiNN has a discontinuous curvature.
        avg_num_neighbors: sums over neighbours are divided by its root.
        scale: [eV], see `network_potential`.
        shift: [eV], in the same form; energies of isolated atoms.
        nearest: [Å], see `network_potential`; shortest distances of pairs in the data.

    Returns:
        `Potential`; its params are as those of `network_potential`.

    Raises:
        InputError: settings that are not positive, or as `network_potential`.

    References:
        Schütt, Unke & Gastegger, ICML 2021, arXiv:2102.03150 (PaiNN); Schütt et al., NeurIPS 2017,
        arXiv:1706.08566 (SchNet, continuous filters).
    """
    settings = {
        "cutoff": cutoff, "n_features": n_features, "n_layers": n_layers, "l_max": l_max,
        "n_radial": n_radial, "p": p, "avg_num_neighbors": avg_num_neighbors,
    }  # fmt: skip
    return build_network(Invariant, species, settings, scale=scale, shift=shift, nearest=nearest)
