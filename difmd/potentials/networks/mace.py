"""MACE: equivariant messages of many-body order."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from difmd.potentials.base import Potential
from difmd.potentials.describe import described
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Linear, SpeciesLinear
from difmd.potentials.networks.harmonics import Irrep, natural, spherical_harmonics
from difmd.potentials.networks.heads import ChargeReadout, Outputs
from difmd.potentials.networks.message_passing import EquivariantNetwork
from difmd.potentials.networks.network import build_network
from difmd.potentials.networks.product_basis import SymmetricContraction
from difmd.potentials.networks.radial import silu
from difmd.potentials.pair import PairValues
from difmd.potentials.species import Species, SpeciesValues


class MACE(EquivariantNetwork):
    """Site energies and charges of MACE with residual interaction blocks; `mace` explains the settings."""

    l_max_features: int
    correlation: int
    readout_hidden: int

    @nn.compact
    def __call__(self, env: Environment) -> Outputs:
        """ε of each center, and its charge and dipole."""
        dtype = env.distances.dtype
        harmonics = spherical_harmonics(self.l_max, env.vectors, env.distances)
        h = self.initial_features(env)
        edges = {natural(l): self.n_features for l in range(self.l_max + 1)}  # noqa: E741
        total, latent = jnp.zeros(len(env.types), dtype), jnp.zeros(len(env.types), dtype)
        dipoles = jnp.zeros((len(env.types), 3), dtype)
        for t in range(self.n_layers):
            is_last = t == self.n_layers - 1
            # The last layer has only the features that are read out.
            most = int(self.atomic_dipoles) if is_last else self.l_max_features
            widths: dict[Irrep, int] = {natural(l): self.n_features for l in range(most + 1)}  # noqa: E741
            skipped = SpeciesLinear(widths, self.n_species, name=f"skip_{t}")(h, env.types)
            sent = Linear(dict.fromkeys(h, self.n_features), name=f"up_{t}")(h)
            messages = self.convolution(t, list(edges), self.radial_hidden)(sent, harmonics, env)
            messages = Linear(edges, name=f"down_{t}")(messages)
            scaled = {irrep: x / self.avg_num_neighbors for irrep, x in messages.items()}
            contraction = SymmetricContraction(
                list(widths), self.correlation, self.n_species, name=f"product_{t}"
            )
            mixed = Linear(widths, name=f"mix_{t}")(contraction(scaled, env.types))
            h = {irrep: x + skipped[irrep] if irrep in skipped else x for irrep, x in mixed.items()}
            if self.charges:
                hidden = self.readout_hidden if is_last else None
                read = ChargeReadout(hidden, self.atomic_dipoles, name=f"charges_{t}")(h)
                latent, dipoles = latent + read[0], dipoles + read[1]
            scalars = {natural(0): h[natural(0)]}
            if is_last:
                inner = Linear({natural(0): self.readout_hidden}, name="readout_hidden")(scalars)
                scalars = {natural(0): silu(inner[natural(0)])}
            total = total + Linear({natural(0): 1}, name=f"readout_{t}")(scalars)[natural(0)][:, 0, 0]
        return self.outputs(total, latent, dipoles, env) if self.charges else Outputs(total)


@described
def mace(
    species: Species,
    *,
    cutoff: float = 5.0,
    n_features: int = 32,
    n_layers: int = 2,
    l_max: int = 3,
    l_max_features: int = 0,
    correlation: int = 3,
    n_radial: int = 8,
    radial_hidden: Sequence[int] = (64, 64, 64),
    readout_hidden: int = 16,
    p: int = 5,
    avg_num_neighbors: float = 20.0,
    scale: SpeciesValues = 1.0,
    shift: SpeciesValues = 0.0,
    charges: bool = False,
    atomic_dipoles: bool = False,
    nearest: PairValues | None = None,
) -> Potential:
    """MACE: equivariant messages of many-body order (the names of its authors in brackets).

    Args:
        species: symbols or atomic numbers.
        cutoff: of pairs (`r_max`) [Å]; the energy of an atom depends on others up to `n_layers` times as far.
        n_features: channels of each representation (`num_channels`).
        n_layers: message-passing layers (`num_interactions`).
        l_max: largest degree of the spherical harmonics (`max_ell`).
        l_max_features: largest degree of the features in messages (`max_L`).
        correlation: factors of the product basis; body order less one.
        n_radial: Bessel functions (`num_radial_basis`).
        radial_hidden: widths of the radial network (`radial_MLP`).
        readout_hidden: width of the last readout (`MLP_irreps`).
        p: power of the envelope (`num_cutoff_basis`).
        avg_num_neighbors: divisor of sums over neighbours.
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
        Batatia et al., NeurIPS 2022, arXiv:2206.07697; settings as in github.com/ACEsuit/mace.
    """
    settings = {
        "cutoff": cutoff, "n_features": n_features, "n_layers": n_layers, "l_max": l_max,
        "l_max_features": l_max_features, "correlation": correlation, "n_radial": n_radial,
        "radial_hidden": radial_hidden, "readout_hidden": readout_hidden, "p": p,
        "avg_num_neighbors": avg_num_neighbors, "charges": charges, "atomic_dipoles": atomic_dipoles,
    }  # fmt: skip
    return build_network(MACE, species, settings, scale=scale, shift=shift, charges=charges, nearest=nearest)
