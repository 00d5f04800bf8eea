"""Invariant messages: a small, fast network to compare equivariant ones with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd._internal.argument_checks import check_integer
from difmd._internal.gather import take
from difmd.errors import check_positive
from difmd.potentials.base import Potential
from difmd.potentials.describe import described
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Convolution, Linear
from difmd.potentials.networks.harmonics import natural, spherical_harmonics
from difmd.potentials.networks.network import SpeciesValues, network_potential
from difmd.potentials.networks.radial import silu
from difmd.potentials.pair import PairValues

_SCALAR = natural(0)


class Perceptron(nn.Module):
    """Layers with silu between them, without bias.

    Attributes:
        widths: of the layers.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: Float[Array, "centers 1 in"]) -> Float[Array, "centers 1 out"]:
        """What the last layer gives."""
        for k, width in enumerate(self.widths):
            x = Linear({_SCALAR: width}, name=f"layer_{k}")({_SCALAR: silu(x) if k else x})[_SCALAR]
        return x


class Invariant(nn.Module):
    """Site energies from messages that are invariant; `invariant` tells what the settings mean."""

    n_species: int
    cutoff: float
    n_atom_basis: int
    n_interactions: int
    l_max: int
    avg_num_neighbors: float
    n_functions: int
    p: int

    @nn.compact
    def __call__(self, env: Environment) -> Float[Array, "centers"]:
        """ε of each center, dimensionless."""
        dtype = env.distances.dtype
        n = self.n_atom_basis
        harmonics = spherical_harmonics(self.l_max, env.vectors, env.distances)
        embedding = self.param("embedding", nn.initializers.normal(1.0), (self.n_species, n))
        s = take(embedding.astype(dtype), env.types)[:, None, :]
        for t in range(self.n_interactions):
            # Filters without hidden layers: all that is done for a pair is linear in its radial functions.
            messages = Convolution(
                outputs=[natural(l) for l in range(self.l_max + 1)],  # noqa: E741
                hidden=(),
                n_functions=self.n_functions,
                p=self.p,
                cutoff=self.cutoff,
                name=f"convolution_{t}",
            )({_SCALAR: Perceptron((n, n), name=f"sent_{t}")(s)}, harmonics, env)
            heard = [s]
            for irrep, x in messages.items():
                x = x / math.sqrt(self.avg_num_neighbors)
                heard.append(jnp.mean(x * x, axis=1, keepdims=True) if irrep.l else x)
            s = s + Perceptron((n, n), name=f"update_{t}")(jnp.concatenate(heard, axis=-1))
        return Perceptron((max(n // 2, 1), 1), name="readout")(s)[:, 0, 0]


@described
def invariant(
    species: Sequence[int | str],
    *,
    cutoff: float = 5.0,
    n_atom_basis: int = 64,
    n_interactions: int = 2,
    l_max: int = 1,
    avg_num_neighbors: float = 20.0,
    n_functions: int = 8,
    p: int = 6,
    scale: SpeciesValues = 1.0,
    shift: SpeciesValues = 0.0,
    nearest: PairValues | None = None,
) -> Potential:
    """Message passing on invariant features: PaiNN whose vectors stay in the layer that forms them.

    With the features s_i of atoms, filters W linear in Bessel functions times an envelope, perceptrons φ and
    ψ of the atoms, and spherical harmonics Y_l, each layer is

        A_i^l = Σ_j φ(s_j) ∘ W^l(r_ij) Y_l(r̂_ij),    s_i ← s_i + ψ(s_i, A_i⁰, |A_i¹|², …, |A_i^l_max|²).

    No network sees pairs, which makes it cheap: a baseline to compare equivariant networks with. With
    `l_max=0` it sees distances alone; l_max = 1 is PaiNN without products of vectors and their sums over
    layers.

    Args:
        species: symbols or atomic numbers.
        cutoff: of the pairs [Å]; atoms act on each other up to `n_interactions` times as far.
        n_atom_basis: features of an atom, named as in SchNetPack, as are the next two.
        n_interactions: layers.
        l_max: largest degree of the spherical harmonics.
        avg_num_neighbors: sums over neighbours are divided by its root.
        n_functions: Bessel functions (`n_rbf`).
        p: power of the envelope; PaiNN has half a cosine, with which curvature jumps.
        scale: [eV], see `network_potential`.
        shift: [eV], likewise; energies of single atoms.
        nearest: [Å], likewise; the nearest distances of pairs in the data.

    Returns:
        The `Potential`.

    Raises:
        InputError: settings that are not positive, or as `network_potential`.

    References:
        Schütt, Unke & Gastegger, ICML 2021, arXiv:2102.03150 (PaiNN); Schütt et al., NeurIPS 2017,
        arXiv:1706.08566 (SchNet, continuous filters).
    """
    counts = {
        "n_atom_basis": n_atom_basis,
        "n_interactions": n_interactions,
        "n_functions": n_functions,
        "p": p,
    }
    for name, value in counts.items():
        check_integer(name, value)
    check_integer("l_max", l_max, least=0)
    check_positive("avg_num_neighbors", avg_num_neighbors, "neighbours")
    module = Invariant(
        n_species=len(species),
        cutoff=float(cutoff),
        n_atom_basis=n_atom_basis,
        n_interactions=n_interactions,
        l_max=l_max,
        avg_num_neighbors=float(avg_num_neighbors),
        n_functions=n_functions,
        p=p,
    )
    return network_potential(
        module, species=species, cutoff=cutoff, scale=scale, shift=shift, nearest=nearest
    )
