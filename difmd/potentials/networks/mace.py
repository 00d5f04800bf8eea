"""MACE: equivariant messages of many-body order."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from difmd._internal.argument_checks import check_integer
from difmd._internal.gather import take
from difmd.errors import InputError, check_positive
from difmd.potentials.base import Potential
from difmd.potentials.describe import described
from difmd.potentials.networks.environment import Environment
from difmd.potentials.networks.equivariant import Convolution, Features, Linear, SpeciesLinear
from difmd.potentials.networks.harmonics import Irrep, natural, spherical_harmonics
from difmd.potentials.networks.heads import ChargeReadout, Outputs, charges_of
from difmd.potentials.networks.network import SpeciesValues, network_potential
from difmd.potentials.networks.product_basis import SymmetricContraction
from difmd.potentials.networks.radial import silu
from difmd.potentials.pair import PairValues


class MACE(nn.Module):
    """Site energies and charges of MACE with residual interaction blocks; `mace` explains the settings."""

    n_species: int
    cutoff: float
    channels: int
    max_L: int
    max_ell: int
    correlation: int
    n_interactions: int
    avg_num_neighbors: float
    radial_hidden: Sequence[int]
    readout_hidden: int
    n_functions: int
    p: int
    charges: bool = False
    atomic_dipoles: bool = False

    @nn.compact
    def __call__(self, env: Environment) -> Outputs:
        """ε of each center, and its charge and dipole."""
        dtype = env.distances.dtype
        harmonics = spherical_harmonics(self.max_ell, env.vectors, env.distances)
        embedding = self.param("embedding", nn.initializers.normal(1.0), (self.n_species, self.channels))
        h: Features = {natural(0): take(embedding.astype(dtype), env.types)[:, None, :]}
        edges = {natural(l): self.channels for l in range(self.max_ell + 1)}  # noqa: E741
        total, latent = jnp.zeros(len(env.types), dtype), jnp.zeros(len(env.types), dtype)
        dipoles = jnp.zeros((len(env.types), 3), dtype)
        for t in range(self.n_interactions):
            is_last = t == self.n_interactions - 1
            # The last layer keeps what is read out.
            most = int(self.atomic_dipoles) if is_last else self.max_L
            kept: dict[Irrep, int] = {natural(l): self.channels for l in range(most + 1)}  # noqa: E741
            skipped = SpeciesLinear(kept, self.n_species, name=f"skip_{t}")(h, env.types)
            sent = Linear(dict.fromkeys(h, self.channels), name=f"up_{t}")(h)
            messages = Convolution(
                outputs=list(edges),
                hidden=self.radial_hidden,
                n_functions=self.n_functions,
                p=self.p,
                cutoff=self.cutoff,
                name=f"convolution_{t}",
            )(sent, harmonics, env)
            messages = {
                irrep: x / self.avg_num_neighbors
                for irrep, x in Linear(edges, name=f"down_{t}")(messages).items()
            }
            products = SymmetricContraction(
                list(kept), self.correlation, self.n_species, name=f"product_{t}"
            )(messages, env.types)
            mixed = Linear(kept, name=f"mix_{t}")(products)
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
        if not self.charges:
            return Outputs(total)
        charges = charges_of(
            latent, env, cutoff=self.cutoff, p=self.p, avg_num_neighbors=self.avg_num_neighbors
        )
        return Outputs(total, charges, dipoles if self.atomic_dipoles else None)


@described
def mace(
    species: Sequence[int | str],
    *,
    cutoff: float = 5.0,
    channels: int = 32,
    max_L: int = 0,
    max_ell: int = 3,
    correlation: int = 3,
    n_interactions: int = 2,
    avg_num_neighbors: float = 20.0,
    radial_hidden: Sequence[int] = (64, 64, 64),
    readout_hidden: int = 16,
    n_functions: int = 8,
    p: int = 5,
    scale: SpeciesValues = 1.0,
    shift: SpeciesValues = 0.0,
    charges: bool = False,
    atomic_dipoles: bool = False,
    nearest: PairValues | None = None,
) -> Potential:
    """MACE, with the hyper-parameters of its authors (their names in brackets).

    Args:
        species: symbols or atomic numbers.
        cutoff: of the pairs (`r_max`) [Å]; atoms act on each other up to `n_interactions` times as far.
        channels: of each representation (`num_channels`).
        max_L: largest degree of the features that atoms send (`max_L`).
        max_ell: largest degree of the spherical harmonics.
        correlation: factors of the product basis; bodies less one.
        n_interactions: layers (`num_interactions`).
        avg_num_neighbors: what sums over neighbours are divided by.
        radial_hidden: widths of the radial network (`radial_MLP`).
        readout_hidden: width of the last readout (`MLP_irreps`).
        n_functions: Bessel functions (`num_radial_basis`).
        p: power of the envelope (`num_cutoff_basis`).
        scale: [eV], see `network_potential`.
        shift: [eV], likewise; energies of single atoms.
        charges: whether atoms have charges, to be fitted to dipoles; see `charges_of`.
        atomic_dipoles: whether they have dipoles too, which takes vectors out of the last layer.
        nearest: [Å], see `network_potential`; the nearest distances of pairs in the data.

    Returns:
        The `Potential`.

    Raises:
        InputError: as `network_potential`; settings that are not positive whole numbers; atomic dipoles
            without charges, or without `max_ell` ≥ 1.

    References:
        Batatia et al., NeurIPS 2022, arXiv:2206.07697; settings as in github.com/ACEsuit/mace.
    """
    if atomic_dipoles and not (charges and max_ell >= 1):
        raise InputError(
            f"atomic_dipoles need charges=True and max_ell of at least 1, not {charges} and {max_ell}"
        )
    counts = {
        "channels": channels,
        "correlation": correlation,
        "n_interactions": n_interactions,
        "readout_hidden": readout_hidden,
        "n_functions": n_functions,
        "p": p,
    }
    for name, value in counts.items():
        check_integer(name, value)
    check_integer("max_L", max_L, least=0)
    check_integer("max_ell", max_ell, least=0)
    check_positive("avg_num_neighbors", avg_num_neighbors, "neighbours")
    module = MACE(
        n_species=len(species),
        cutoff=float(cutoff),
        channels=channels,
        max_L=max_L,
        max_ell=max_ell,
        correlation=correlation,
        n_interactions=n_interactions,
        avg_num_neighbors=float(avg_num_neighbors),
        radial_hidden=tuple(radial_hidden),
        readout_hidden=readout_hidden,
        n_functions=n_functions,
        p=p,
        charges=charges,
        atomic_dipoles=atomic_dipoles,
    )
    return network_potential(
        module, species=species, cutoff=cutoff, scale=scale, shift=shift, charges=charges, nearest=nearest
    )
