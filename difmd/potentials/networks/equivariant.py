"""Layers of E(3)-equivariant networks.

Features are arrays [centers, 2l+1, channels], one for each representation: channels are contiguous, so that
sums over neighbours and over channels are matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from difmd._internal.gather import spread, take
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.harmonics import Irrep, coupling, natural
from difmd.potentials.networks.radial import RadialNetwork

Features: TypeAlias = Mapping[Irrep, Float[Array, "centers m channels"]]


class Linear(nn.Module):
    """Mix the channels of each representation: x → x W/√channels.

    Attributes:
        channels: output channels of each representation; those that the input lacks are omitted.
    """

    channels: Mapping[Irrep, int]

    @nn.compact
    def __call__(self, features: Features) -> Features:
        """The mixed features."""
        mixed_features = {}
        for irrep, n_out in self.channels.items():
            if irrep in features:
                x = features[irrep]
                shape = (x.shape[-1], n_out)
                weights = self.param(irrep.name, nn.initializers.normal(1.0), shape)
                mixed_features[irrep] = x @ (weights / math.sqrt(shape[0])).astype(x.dtype)
        return mixed_features


class SpeciesLinear(nn.Module):
    """`Linear` with separate weights for each species of the center.

    Attributes:
        channels: as in `Linear`.
        n_species: number of species.
    """

    channels: Mapping[Irrep, int]
    n_species: int

    @nn.compact
    def __call__(self, features: Features, types: Int[Array, "centers"]) -> Features:
        """The mixed features."""
        mixed_features = {}
        for irrep, n_out in self.channels.items():
            if irrep in features:
                x = features[irrep]
                shape = (self.n_species, x.shape[-1], n_out)
                weights = self.param(irrep.name, nn.initializers.normal(1.0), shape) / math.sqrt(shape[1])
                # All species for all atoms cost less than weights gathered for each atom.
                mixed = [x @ matrix for matrix in weights.astype(x.dtype)]
                mixed_features[irrep] = mixed[0]
                for species in range(1, self.n_species):
                    is_species = (types == species)[:, None, None]
                    mixed_features[irrep] = jnp.where(is_species, mixed[species], mixed_features[irrep])
        return mixed_features


class Convolution(nn.Module):
    """Messages Σ_j R(r_ij) (h_j ⊗ Y(r_ij)), with separate radial weights for each path.

    For each path (l₁, l₂ → l₃) and channel c

        A_i,m₃c = Σ_j R_c(r_ij) Σ_m₁ [Σ_m₂ C_m₁m₂m₃ Y_m₂(r_ij)] h_j,m₁c,

    a product of a matrix of the pairs, without channels, and a matrix of their weighted features, for each
    center: messages of pairs are never formed.

    Attributes:
        outputs: representations to keep.
        hidden: widths of the radial network.
        n_radial: Bessel functions.
        p: power of the envelope.
        cutoff: [Å].

    References:
        Batzner et al., Nat. Commun. 13, 2453 (2022), doi:10.1038/s41467-022-29939-5, equation 6.
    """

    outputs: Sequence[Irrep]
    hidden: Sequence[int]
    n_radial: int
    p: int
    cutoff: float

    @nn.compact
    def __call__(
        self, features: Features, harmonics: Sequence[Float[Array, "centers slots m"]], env: Environment
    ) -> Features:
        """The messages; the channels of paths to the same representation are concatenated."""
        paths = message_paths(list(features), len(harmonics) - 1, self.outputs)
        widths = [features[path[0]].shape[-1] for path in paths]
        radial = RadialNetwork(
            widths=widths, hidden=self.hidden, n_radial=self.n_radial, cutoff=self.cutoff, p=self.p
        )
        # One evaluation serves both atoms of a pair.
        weights = [spread(w, env.reverse_edges.pair, env.reverse_edges.entries) for w in radial(env.lengths)]
        gathered = {irrep: take(x, env.senders) for irrep, x in features.items()}
        messages: dict[Irrep, list[Array]] = {}
        for (first, l2, third), weight in zip(paths, weights, strict=True):
            sent, edge = gathered[first], harmonics[l2]
            if first.l == 0:
                # C is the identity then, and Y itself is the matrix.
                sign = float(coupling(0, l2, l2)[0, 0, 0])
                message = jnp.einsum("nkm,nkc->nmc", sign * edge, weight * sent[..., 0, :])
            else:
                table = jnp.asarray(coupling(first.l, l2, third.l), edge.dtype)
                coupled = jnp.einsum("nkb,abm->nkam", edge, table)
                message = jnp.einsum("nkam,nkac->nmc", coupled, weight[..., None, :] * sent)
            messages.setdefault(third, []).append(message)
        return {irrep: jnp.concatenate(parts, axis=-1) for irrep, parts in messages.items()}


def message_paths(
    inputs: Sequence[Irrep], l_max: int, outputs: Sequence[Irrep]
) -> list[tuple[Irrep, int, Irrep]]:
    """Products (l₁, l₂, l₃) of features and harmonics that contribute to `outputs`."""
    return [
        (first, l2, third)
        for third in outputs
        for first in inputs
        for l2 in range(l_max + 1)
        if abs(first.l - l2) <= third.l <= first.l + l2 and first.parity * natural(l2).parity == third.parity
    ]


def of_species(
    values: Sequence[Float[Array, "*lead centers n"]], types: Int[Array, "centers"]
) -> Float[Array, "*lead centers n"]:
    """For each center, the value for its species."""
    selected = values[0]
    for species in range(1, len(values)):
        selected = jnp.where((types == species)[:, None], values[species], selected)
    return selected
