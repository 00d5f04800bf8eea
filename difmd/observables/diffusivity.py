"""Self-diffusivity from the mean squared displacement and from the velocity autocorrelation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from difmd.errors import InputError
from difmd.observables.correlation import (
    mean_squared_displacement,
    remove_center_of_mass,
    velocity_autocorrelation,
)
from difmd.observables.statistics import Estimate, over_replicas, with_control
from difmd.trajectory.trajectory import Trajectory
from difmd.units import KB

CUBIC_MADELUNG = 2.837297
"""Constant of the finite-size correction for a cubic box (Yeh & Hummer 2004)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusivity:
    """Self-diffusivity by two routes over the same window.

    Values are in Å²/time; divide by `1e-9 * units.M2_PER_S` for 1e-9 m²/s. No finite-size correction is
    in them; add `finite_size_correction`.

    Attributes:
        einstein: slope of the MSD over the window, divided by 6.
        green_kubo: a third of the integral of the VACF, averaged over the window.
        times: lags [time]; [lags].
        msd: mean over replicas [Å²]; [lags].
        msd_stderr: its standard error.
        vacf: mean over replicas [Å²/time²]; [lags].
        vacf_stderr: its standard error.
        window: start and end of the fit [time].
        samples: Einstein value of each replica or block; [samples].
        green_kubo_samples: the same by the other route; [samples].
    """

    einstein: Estimate
    green_kubo: Estimate
    times: np.ndarray
    msd: np.ndarray
    msd_stderr: np.ndarray
    vacf: np.ndarray
    vacf_stderr: np.ndarray
    window: tuple[float, float]
    samples: np.ndarray
    green_kubo_samples: np.ndarray


def diffusivity(
    positions: Float[Array | np.ndarray, "*replicas frames atoms 3"],
    momenta: Float[Array | np.ndarray, "*replicas frames atoms 3"],
    masses: Float[Array | np.ndarray, "atoms"],
    *,
    interval: float,
    window: tuple[float, float],
    n_blocks: int = 1,
    max_lag: float | None = None,
    temperature: float | None = None,
    select: Bool[np.ndarray, "atoms"] | None = None,
) -> Diffusivity:
    """Self-diffusivity of all atoms, with error bars from replicas and blocks.

    D = slope of MSD/6 over the window (least squares, Einstein), and D = ⅓∫₀ᵗ⟨v(0)·v(s)⟩ds (trapezoid)
    averaged over t in the window (Green–Kubo). The drift of the centre of mass is removed from both.
    Each trajectory is cut into `n_blocks`, several times as long as the window. With 8 replicas or more
    the standard error is that of independent replicas, of which blocks are not; with fewer it is the
    larger of that and the one of independent blocks. `diffusivity_of` takes a `Trajectory`.

    Args:
        positions: unwrapped [Å]; [frames, atoms, 3] or [replicas, frames, atoms, 3].
        momenta: the same shape [amu Å/time].
        masses: [amu]; [atoms].
        interval: time between frames [Å√(amu/eV)].
        window: start and end of the fit [time]; the start past the cage, a few ps in a simple liquid.
        n_blocks: blocks a trajectory is cut into.
        max_lag: lags kept in the curves [time]; default: twice the end of the window.
        temperature: of the canonical ensemble from which the replicas start, centre of mass at rest [K].
            When Newtonian, each replica keeps the energy it started with, and much of the noise of D is
            that of these energies: given the temperature, it is taken out by regression on the kinetic
            temperature, whose mean is known (`with_control`). Default: the plain mean.
        select: the atoms to average over, those of one species for instance; the centre of mass is
            that of all. Default: all. [atoms].

    Returns:
        `Diffusivity`.

    Raises:
        InputError: shapes that do not match, a window outside a block, or only one sample.

    References:
        Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, §2.7.
    """
    if positions.shape != momenta.shape or positions.ndim not in (3, 4):
        raise InputError(
            f"positions {list(positions.shape)} and momenta {list(momenta.shape)} must have one shape, "
            "[frames, atoms, 3] or [replicas, frames, atoms, 3]"
        )
    if positions.ndim == 3:
        positions, momenta = positions[None], momenta[None]
    if n_blocks < 1:
        raise InputError(f"n_blocks = {n_blocks} must be at least 1")
    n_frames = positions.shape[1] // n_blocks
    first, last = (round(float(t / interval)) for t in window)
    if not 0 < first < last < n_frames:
        raise InputError(
            f"window = {window} spans frames {first} .. {last}, but a block has {n_frames} frames of "
            f"{interval:.4g}: give 0 < start < end < {n_frames * interval:.4g}, or fewer blocks"
        )
    n_samples = positions.shape[0] * n_blocks
    if n_samples < 2:
        raise InputError("one replica and one block give no error bar: raise n_blocks")
    lags = 2 * last + 1 if max_lag is None else round(float(max_lag / interval)) + 1
    lags = min(n_frames, lags)
    blocks = [
        jnp.asarray(x)[:, : n_frames * n_blocks].reshape(n_samples, n_frames, *x.shape[2:])
        for x in (positions, momenta)
    ]
    chosen = np.arange(positions.shape[-2]) if select is None else np.flatnonzero(np.asarray(select))
    if len(chosen) == 0:
        raise InputError("no atom is selected: the species is not there, or the selection is empty")
    curves = _curves(blocks[0], blocks[1], jnp.asarray(masses), jnp.asarray(chosen))
    msd, vacf = (np.asarray(curve, np.float64) for curve in curves)
    times = np.arange(n_frames) * float(interval)
    inside = slice(first, last + 1)
    slope = np.polynomial.polynomial.polyfit(times[inside], msd[:, inside].T, 1)[1]
    running = np.cumsum(0.5 * (vacf[:, 1:] + vacf[:, :-1]), axis=1) * float(interval) / 3
    integral = running[:, first - 1 : last].mean(axis=1)
    kelvin = None
    if temperature is not None:
        kelvin = np.asarray(_kinetic_temperature(blocks[1], jnp.asarray(masses)), np.float64)
    einstein, green_kubo = (
        _estimate(samples, n_blocks, kelvin, temperature) for samples in (slope / 6, integral)
    )
    times, msd, vacf = times[:lags], msd[:, :lags], vacf[:, :lags]
    root = np.sqrt(n_samples)
    return Diffusivity(
        einstein=einstein,
        green_kubo=green_kubo,
        times=times,
        msd=msd.mean(axis=0),
        msd_stderr=msd.std(axis=0, ddof=1) / root,
        vacf=vacf.mean(axis=0),
        vacf_stderr=vacf.std(axis=0, ddof=1) / root,
        window=(float(window[0]), float(window[1])),
        samples=slope / 6,
        green_kubo_samples=integral,
    )


def diffusivity_of(
    trajectory: Trajectory,
    *,
    window: tuple[float, float],
    n_blocks: int = 1,
    max_lag: float | None = None,
    temperature: float | None = None,
    species: int | None = None,
) -> Diffusivity:
    """`diffusivity` of what `simulate` returned; atoms that pad are left out.

    Args:
        trajectory: evenly spaced frames of one system or of replicas.
        window: start and end of the fit [time].
        n_blocks: as in `diffusivity`.
        max_lag: as in `diffusivity`.
        temperature: as in `diffusivity`.
        species: atomic number of the atoms to average over; default: all.

    Raises:
        InputError: as `diffusivity`; fewer than two frames, replicas of different composition, or no
            atom of the species.
    """
    numbers = np.asarray(trajectory.system.atomic_numbers)
    masses = np.asarray(trajectory.system.masses)
    if numbers.ndim == 2:
        if (numbers != numbers[0]).any() or (masses != masses[0]).any():
            raise InputError("replicas differ in composition: take the diffusivity of each")
        numbers, masses = numbers[0], masses[0]
    if len(trajectory) < 2:
        raise InputError(f"a trajectory of {len(trajectory)} frames has no displacements")
    real = numbers > 0
    frames = [x[..., real, :] for x in (trajectory.positions, trajectory.momenta)]
    positions, momenta = (np.swapaxes(x, 0, 1) if x.ndim == 4 else x for x in frames)
    return diffusivity(
        positions,
        momenta,
        masses[real],
        interval=trajectory.interval,
        window=window,
        n_blocks=n_blocks,
        max_lag=max_lag,
        temperature=temperature,
        select=None if species is None else numbers[real] == species,
    )


def _estimate(
    samples: np.ndarray, n_blocks: int, kelvin: np.ndarray | None, temperature: float | None
) -> Estimate:
    """Mean over samples ordered by replica, then block."""

    def mean(samples: np.ndarray, kelvin: np.ndarray | None) -> Estimate:
        if kelvin is None or temperature is None:
            return over_replicas(samples)
        return with_control(samples, kelvin, temperature)

    of_replicas = samples.reshape(-1, n_blocks).mean(axis=1)
    of_kelvin = None if kelvin is None else kelvin.reshape(-1, n_blocks).mean(axis=1)
    if len(of_replicas) >= 8:
        return mean(of_replicas, of_kelvin)
    blocks = mean(samples, kelvin)
    if len(of_replicas) == 1:
        return blocks
    return Estimate(blocks.value, np.maximum(blocks.stderr, mean(of_replicas, of_kelvin).stderr))


@jax.jit
def _curves(positions: Array, momenta: Array, masses: Array, chosen: Array) -> tuple[Array, Array]:
    def one(block: tuple[Array, Array]) -> tuple[Array, Array]:
        r, p = block
        v = p / masses[None, :, None]
        msd = mean_squared_displacement(remove_center_of_mass(r, masses)[:, chosen])
        return msd, velocity_autocorrelation(remove_center_of_mass(v, masses)[:, chosen])

    # One block at a time: the transforms need several times the memory of the trajectory.
    return jax.lax.map(one, (positions, momenta))


@jax.jit
def _kinetic_temperature(momenta: Array, masses: Array) -> Array:
    """Mean of each block over its frames, with the centre of mass at rest [K]; [blocks]."""
    per_atom = jnp.mean(jnp.sum(momenta**2, axis=-1), axis=1) / masses[None]
    return jnp.sum(per_atom, axis=-1) / (3 * (masses.shape[0] - 1) * KB)


def finite_size_correction(*, temperature: float, viscosity: float, box_length: float) -> float:
    """What a periodic cubic box takes off D: ξ k_BT/(6πηL) with ξ = 2.837297 [Å²/time].

    Args:
        temperature: [K].
        viscosity: shear viscosity η [eV/Å³·time]; write `150e-6 * units.PA_S`.
        box_length: L [Å].

    Returns:
        D∞ − D_L; zero for an infinite box length.

    Raises:
        InputError: a value that is not positive.

    References:
        Yeh & Hummer, J. Phys. Chem. B 108, 15873 (2004), doi:10.1021/jp0477147.
    """
    for name, value in (
        ("temperature", temperature),
        ("viscosity", viscosity),
        ("box_length", box_length),
    ):
        if not np.all(np.asarray(value) > 0):
            raise InputError(f"{name} = {value} must be positive")
    return CUBIC_MADELUNG * KB * temperature / (6 * np.pi * viscosity * box_length)
