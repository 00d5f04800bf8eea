"""Symmetric products of equivariant features: the many-body basis of MACE."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from difmd.potentials.networks.equivariant import Features, of_species
from difmd.potentials.networks.harmonics import Irrep, coupling, natural


class SymmetricContraction(nn.Module):
    """B_i,mc = Σ_ν Σ_η w^ν_η(species, c) Σ U^ν_η,m,k₁…k_ν A_i,k₁c … A_i,k_νc, up to ν = correlation.

    With A₀ = 1 as an additional component, the sum is that of the highest order alone. Its first two factors
    are the distinct products A_i A_j, so that products of matrices remain, for three factors
    Σ_k A_k Σ_q (A_i A_j)_q T_qk. The paths η are summed before, as there are fewer species than atoms.

    Attributes:
        outputs: representations of the products.
        correlation: largest number of factors.
        n_species: number of species.

    References:
        Batatia et al., NeurIPS 2022, arXiv:2206.07697, equations 10 and 11.
    """

    outputs: Sequence[Irrep]
    correlation: int
    n_species: int

    @nn.compact
    def __call__(self, features: Features, types: Int[Array, "centers"]) -> Features:
        """The products; features must be those of natural parity for l = 0 … l_max, of equal channels."""
        l_max = max(irrep.l for irrep in features)
        n_centers, _, n_channels = features[natural(0)].shape
        dtype = features[natural(0)].dtype
        factors = [jnp.ones((n_centers, 1, n_channels), dtype)]
        factors += [features[natural(l)] for l in range(l_max + 1)]  # noqa: E741
        # Channels first: the matrices of a batch are contiguous.
        a = jnp.moveaxis(jnp.concatenate(factors, axis=1), -1, 0)
        n_factors = a.shape[-1]
        first = a
        if self.correlation > 1:
            # Picked by products with 0 and 1, as slices become sums of padded arrays backwards.
            i, j = np.triu_indices(n_factors)
            left, right = (jnp.asarray(np.eye(n_factors)[:, k], dtype) for k in (i, j))
            first = (a @ left) * (a @ right)
        products = {}
        for irrep in self.outputs:
            tensor = jnp.zeros((), dtype)
            for order in range(1, self.correlation + 1):
                table = _coefficients(l_max, order, self.correlation, irrep)
                if len(table) > 0:
                    shape = (self.n_species, len(table), n_channels)
                    initial = nn.initializers.normal(1 / math.sqrt(len(table)))
                    weights = self.param(f"w{order}_{irrep.name}", initial, shape).astype(dtype)
                    tensor = tensor + jnp.einsum("spc,pt->sct", weights, jnp.asarray(table, dtype))
            tensor = tensor.reshape(self.n_species, n_channels, first.shape[-1], -1)
            by_species = [jnp.einsum("cnq,cqt->cnt", first, matrix) for matrix in tensor]
            product = of_species(by_species, types)
            for _ in range(self.correlation - 2):
                terms = product.reshape(n_channels, n_centers, n_factors, -1) * a[..., None]
                product = jnp.sum(terms, axis=2)
            products[irrep] = jnp.moveaxis(product, 0, 2)
        return products


@functools.cache
def _coefficients(
    l_max: int, order: int, correlation: int, output: Irrep
) -> Float[np.ndarray, "paths coefficients"]:
    """`symmetric_couplings` as coefficients of products of `correlation` factors (1, A).

    Those of the first two are i ≤ j, in the order of rows; the surplus factors are 1.
    """
    table = symmetric_couplings(l_max, order, output)
    n = (l_max + 1) ** 2 + 1
    placed = np.zeros((len(table), *[n] * correlation, output.dim))
    # Ones come first, as i ≤ j.
    place = [slice(None)] + [0] * (correlation - order) + [slice(1, None)] * order
    placed[tuple(place)] = table
    if correlation > 1:
        i, j = np.triu_indices(n)
        unlike = np.where(np.eye(n) > 0, 0, 1).reshape(n, n, *[1] * (placed.ndim - 3))
        placed = (placed + unlike * np.swapaxes(placed, 1, 2))[:, i, j]
    return placed.reshape(len(table), -1)


@functools.cache
def symmetric_couplings(l_max: int, order: int, output: Irrep) -> Float[np.ndarray, "paths *components m"]:
    """An orthonormal basis of the equivariant maps from symmetric products of Y_0 … Y_lmax to `output`.

    It spans the symmetrised couplings of all ways to add the angular momenta of `order` factors up. Shape
    [paths, (l_max + 1)², …, 2l + 1], one axis of components for each factor. Each path maps independent
    components of unit variance to components of unit variance.
    """
    n = (l_max + 1) ** 2
    maps = []
    for ls in itertools.combinations_with_replacement(range(l_max + 1), order):
        if (-1) ** sum(ls) != output.parity:
            continue
        for last, table in _chains(ls):
            if last != output.l:
                continue
            placed = np.zeros((*[n] * order, output.dim))
            placed[tuple(slice(l * l, (l + 1) ** 2) for l in ls)] = table  # noqa: E741
            turned = [np.transpose(placed, (*axes, order)) for axes in itertools.permutations(range(order))]
            maps.append(np.sum(turned, axis=0).reshape(-1))
    if not maps:
        return np.zeros((0, *[n] * order, output.dim))
    _, sizes, basis = np.linalg.svd(np.asarray(maps), full_matrices=False)
    independent = basis[sizes > 1e-8 * sizes[0]]
    # A path has the norm 1; products of `order` unit components reach 2l + 1 outputs of unit variance with:
    return independent.reshape(-1, *[n] * order, output.dim) * np.sqrt(output.dim / math.factorial(order))


def _chains(ls: Sequence[int]) -> list[tuple[int, np.ndarray]]:
    """All ways to couple degrees one after the other: the result, and [2l₁+1, …, 2l_out+1]."""
    chains = [(ls[0], np.eye(2 * ls[0] + 1))]
    for l in ls[1:]:  # noqa: E741
        chains = [
            (out, np.einsum("...a,abm->...bm", table, coupling(sofar, l, out)))
            for sofar, table in chains
            for out in range(abs(sofar - l), sofar + l + 1)
        ]
    return chains
