"""NequIP: equivariant convolutions with gated non-linearities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from difmd.potentials.base import Potential
from difmd.potentials.describe import described
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Features, Linear, SpeciesLinear, message_paths
from difmd.potentials.networks.harmonics import Irrep, natural, spherical_harmonics
from difmd.potentials.networks.heads import ChargeReadout, Outputs
from difmd.potentials.networks.message_passing import EquivariantNetwork
from difmd.potentials.networks.network import build_network
from difmd.potentials.networks.radial import silu
from difmd.potentials.pair import PairValues
from difmd.potentials.species import Species, SpeciesValues

_SCALAR = Irrep(0, 1)

# 1/√⟨tanh(x)²⟩ for x ~ N(0, 1).
_TANH = 1.5937


class NequIP(EquivariantNetwork):
    """Site energies and charges of NequIP; `nequip` explains the settings."""

    parity: bool

    @nn.compact
    def __call__(self, env: Environment) -> Outputs:
        """ε of each center, and its charge and dipole."""
        n = self.n_features
        harmonics = spherical_harmonics(self.l_max, env.vectors, env.distances)
        h = self.initial_features(env)
        read = [_SCALAR, natural(1)] if self.atomic_dipoles else [_SCALAR]
        for t, outputs in enumerate(_representations(self.l_max, self.parity, self.n_layers, read)):
            gated = [irrep for irrep in outputs if irrep.l > 0]
            channels = {irrep: n * (1 + len(gated)) if irrep == _SCALAR else n for irrep in outputs}
            skipped = SpeciesLinear(channels, self.n_species, name=f"skip_{t}")(h, env.types)
            received = [irrep for irrep in h if message_paths([irrep], self.l_max, outputs)]
            sent = Linear(dict.fromkeys(received, n), name=f"up_{t}")(h)
            messages = self.convolution(t, outputs, self.radial_hidden)(sent, harmonics, env)
            mixed = Linear(channels, name=f"down_{t}")(messages)
            scale = 1 / math.sqrt(self.avg_num_neighbors)
            x = {i: scale * m + skipped[i] if i in skipped else scale * m for i, m in mixed.items()}
            h = _gate(x, gated, n)
        inner = Linear({_SCALAR: max(n // 2, 1)}, name="readout_hidden")({_SCALAR: h[_SCALAR]})
        energy = Linear({_SCALAR: 1}, name="readout")(inner)[_SCALAR][:, 0, 0]
        if not self.charges:
            return Outputs(energy)
        latent, dipoles = ChargeReadout(max(n // 2, 1), self.atomic_dipoles, name="charges")(h)
        return self.outputs(energy, latent, dipoles, env)


def _representations(l_max: int, parity: bool, n_layers: int, read: list[Irrep]) -> list[list[Irrep]]:
    """Representations of each layer that messages can produce and that contribute to the readout."""
    allowed = [Irrep(l, p) for l in range(l_max + 1) for p in (1, -1)]  # noqa: E741
    if not parity:
        allowed = [natural(l) for l in range(l_max + 1)]  # noqa: E741
    before, layers = [_SCALAR], []
    for _ in range(n_layers):
        before = [irrep for irrep in allowed if message_paths(before, l_max, [irrep])]
        layers.append(before)
    contributing = read
    for layer in reversed(range(n_layers)):
        layers[layer] = [i for i in layers[layer] if i in contributing]
        contributing = [i for i in allowed if i in layers[layer] or message_paths([i], l_max, layers[layer])]
    return layers


def _gate(x: Features, gated: Sequence[Irrep], n: int) -> Features:
    """Scalars → silu, pseudoscalars → tanh, others times the silu of an additional scalar."""
    scalars = silu(x[_SCALAR])
    gated_features: dict[Irrep, Array] = {_SCALAR: scalars[..., :n]}
    for irrep, value in x.items():
        if irrep == Irrep(0, -1):
            gated_features[irrep] = _TANH * jnp.tanh(value)
        elif irrep.l > 0:
            k = 1 + gated.index(irrep)
            gated_features[irrep] = value * scalars[..., k * n : (k + 1) * n]
    return gated_features


@described
def nequip(
    species: Species,
    *,
    cutoff: float = 5.0,
    n_features: int = 32,
    n_layers: int = 4,
    l_max: int = 1,
    parity: bool = True,
    n_radial: int = 8,
    radial_hidden: Sequence[int] = (64, 64),
    p: int = 6,
    avg_num_neighbors: float = 20.0,
    scale: SpeciesValues = 1.0,
    shift: SpeciesValues = 0.0,
    charges: bool = False,
    atomic_dipoles: bool = False,
    nearest: PairValues | None = None,
) -> Potential:
    """NequIP: equivariant convolutions (the names of its authors in brackets).

    Args:
        species: symbols or atomic numbers.
        cutoff: of pairs (`r_max`) [Å]; the energy of an atom depends on others up to `n_layers` times as far.
        n_features: channels of each representation (`num_features`).
        n_layers: convolutions (`num_layers`).
        l_max: largest degree of features and spherical harmonics; 0 is an invariant network.
        parity: whether features have both parities, or only those of the harmonics.
        n_radial: Bessel functions (`num_bessels_per_basis`).
        radial_hidden: widths of the radial network (`invariant_layers`, `invariant_neurons`).
        p: power of the envelope (`PolynomialCutoff_p`).
        avg_num_neighbors: sums over neighbours are divided by its root.
        scale: [eV], see `network_potential`.
        shift: [eV], in the same form; energies of isolated atoms.
        charges: whether atoms have charges, to be fitted to dipoles; see `charges_of`.
        atomic_dipoles: whether they also have dipoles, from vectors of the last layer.
        nearest: [Å], see `network_potential`; shortest distances of pairs in the data.

    Returns:
        `Potential`; its params are as those of `network_potential`.

    Raises:
        InputError: as `network_potential`; settings that are not positive integers; atomic dipoles without
            charges, or without `l_max` ≥ 1.

    References:
        Batzner et al., Nat. Commun. 13, 2453 (2022), doi:10.1038/s41467-022-29939-5.
    """
    settings = {
        "cutoff": cutoff, "n_features": n_features, "n_layers": n_layers, "l_max": l_max, "parity": parity,
        "n_radial": n_radial, "radial_hidden": radial_hidden, "p": p,
        "avg_num_neighbors": avg_num_neighbors, "charges": charges, "atomic_dipoles": atomic_dipoles,
    }  # fmt: skip
    return build_network(
        NequIP, species, settings, scale=scale, shift=shift, charges=charges, nearest=nearest
    )
