"""Radial functions of networks: Bessel functions, and a small network on top."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd.potentials.envelope import polynomial_envelope

# 1/√⟨silu(x)²⟩ for x ~ N(0, 1): activations then keep the second moment, as in e3nn.
_SILU = 1.6791767

# Distances that go through the network together. For gradients of weights XLA transposes activations while it
# computes them, which is slow where a matrix is larger than the cache.
_BLOCK = 256


def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Values x σ(x), scaled so that ⟨silu(x)²⟩ = 1 for x ~ N(0, 1)."""
    return _SILU * jax.nn.silu(x)


def bessel_functions(
    r: Float[Array, "*pairs"], n_radial: int, cutoff: float
) -> Float[Array, "*pairs functions"]:
    """√(2/r_c) sin(nπr/r_c)/r for n = 1 … n_radial [Å^−3/2].

    sin(nx) follows from sin(x) and cos(x) by Chebyshev's recursion.

    References:
        Gasteiger, Groß & Günnemann, ICLR 2020, arXiv:2003.03123, equation 7.
    """
    x = r * (np.pi / cutoff)
    twice = 2 * jnp.cos(x)
    before, now = jnp.zeros_like(x), jnp.sin(x)
    sines = []
    for _ in range(n_radial):
        sines.append(now)
        before, now = now, twice * now - before
    scale = math.sqrt(2 / cutoff) / r
    return jnp.stack([scale * sine for sine in sines], axis=-1)


class RadialNetwork(nn.Module):
    """Weights of messages as functions of distance: Bessel functions → dense layers without bias.

    Without bias and with silu(0) = 0 the weights vanish where the envelope does.

    Attributes:
        widths: weights of each path.
        hidden: widths of the hidden layers.
        n_radial: Bessel functions.
        cutoff: [Å].
        p: power of the envelope.
    """

    widths: Sequence[int]
    hidden: Sequence[int]
    n_radial: int
    cutoff: float
    p: int

    @nn.compact
    def __call__(self, distances: Float[Array, "pairs"]) -> list[Float[Array, "pairs weights"]]:
        """The weights of each path for each distance."""
        n_pairs = len(distances)
        size = min(_BLOCK, n_pairs)
        blocks = jnp.pad(distances, (0, -n_pairs % size), constant_values=self.cutoff).reshape(-1, size)
        basis = bessel_functions(blocks, self.n_radial, self.cutoff)
        x = basis * polynomial_envelope(blocks, self.cutoff, self.p)[..., None]
        for i, width in enumerate(self.hidden):
            x = silu(_dense(x, self._weights(i, x.shape[-1], width)))
        last = self._weights(len(self.hidden), x.shape[-1], sum(self.widths))
        # Slices of the weights and not of the products, whose derivatives are sums of padded arrays.
        parts = jnp.split(last, np.cumsum(self.widths)[:-1], axis=1)
        return [_dense(x, part).reshape(-1, part.shape[1])[:n_pairs] for part in parts]

    def _weights(self, layer: int, n_in: int, n_out: int) -> Float[Array, "in out"]:
        return self.param(f"layer_{layer}", nn.initializers.normal(1.0), (n_in, n_out)) / math.sqrt(n_in)


def _dense(x: Float[Array, "blocks block in"], weights: Float[Array, "in out"]) -> Array:
    """A product for each block, with the same weights."""
    everywhere = jnp.broadcast_to(weights.astype(x.dtype), (len(x), *weights.shape))
    return jnp.einsum("bei,bio->beo", x, everywhere)
