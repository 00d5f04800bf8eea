"""Time correlations of trajectories: mean squared displacement and velocity autocorrelation."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from difmd.errors import InputError


def autocorrelation(series: Float[Array, "frames *rest"]) -> Float[Array, "frames *rest"]:
    """⟨x(s) x(s+t)⟩ over all time origins s, by FFT in O(n log n).

    Args:
        series: x at equal intervals; [frames, ...].

    Returns:
        The unbiased average at each lag; [frames, ...].

    References:
        Calandrini et al., Collection SFN 12, 201 (2011), doi:10.1051/sfn/201112010.
    """
    n = series.shape[0]
    # Zero padding to 2n makes the circular correlation a linear one.
    spectrum = jnp.fft.rfft(series, 2 * n, axis=0)
    power = spectrum.real**2 + spectrum.imag**2
    total = jnp.fft.irfft(power, 2 * n, axis=0)[:n]
    counts = (n - jnp.arange(n)).astype(series.dtype)
    return total / counts.reshape(-1, *([1] * (series.ndim - 1)))


def mean_squared_displacement(positions: Float[Array, "frames atoms 3"]) -> Float[Array, "frames"]:
    """⟨|r(s+t) − r(s)|²⟩ over all origins and atoms [Å²], by FFT.

    Subtract the motion of the centre of mass first (`remove_center_of_mass`).

    Args:
        positions: unwrapped [Å]; [frames, atoms, 3].

    Returns:
        MSD at lags 0, 1, … frames − 1; [frames].

    Raises:
        InputError: another shape.

    References:
        Kneller et al., Comput. Phys. Commun. 91, 191 (1995), doi:10.1016/0010-4655(95)00048-K.
    """
    _check_frames("positions", positions)
    n = positions.shape[0]
    # Relative to the mean: the difference below cancels the size of the coordinates.
    positions = positions - jnp.mean(positions, axis=0, keepdims=True)
    square = jnp.sum(positions**2, axis=(1, 2))
    cross = jnp.sum(autocorrelation(positions), axis=(1, 2))
    total = jnp.cumsum(square)
    # Σ_{s<n−t} x²(s) and Σ_{s≥t} x²(s).
    heads = total[::-1]
    tails = total[-1] - jnp.concatenate([jnp.zeros((1,), total.dtype), total[:-1]])
    counts = (n - jnp.arange(n)).astype(positions.dtype)
    return ((heads + tails) / counts - 2 * cross) / positions.shape[1]


def velocity_autocorrelation(velocities: Float[Array, "frames atoms 3"]) -> Float[Array, "frames"]:
    """⟨v(s)·v(s+t)⟩ over all origins and atoms [Å²/time²], by FFT.

    Args:
        velocities: [frames, atoms, 3].

    Returns:
        VACF at lags 0, 1, … frames − 1; [frames].

    Raises:
        InputError: another shape.
    """
    _check_frames("velocities", velocities)
    return jnp.sum(autocorrelation(velocities), axis=(1, 2)) / velocities.shape[1]


def remove_center_of_mass(
    vectors: Float[Array, "frames atoms 3"], masses: Float[Array, "atoms"]
) -> Float[Array, "frames atoms 3"]:
    """Positions or velocities relative to the centre of mass of each frame.

    Args:
        vectors: positions or velocities; [frames, atoms, 3].
        masses: [amu]; [atoms].

    Returns:
        [frames, atoms, 3].

    Raises:
        InputError: another shape.
    """
    _check_frames("vectors", vectors)
    if masses.shape != vectors.shape[1:2]:
        raise InputError(f"masses have shape {list(masses.shape)}, but vectors {list(vectors.shape)}")
    weights = masses / jnp.sum(masses)
    return vectors - jnp.sum(vectors * weights[None, :, None], axis=1, keepdims=True)


def _check_frames(name: str, x: Array) -> None:
    if x.ndim != 3 or x.shape[-1] != 3:
        raise InputError(f"{name} must have shape [frames, atoms, 3], got {list(x.shape)}: map over replicas")
