"""Self-diffusivity from the mean squared displacement and from the velocity autocorrelation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from difmd._internal.argument_checks import check_integer, check_type
from difmd._internal.summaries import summary
from difmd.errors import InputError, check_positive
from difmd.observables.correlation import (
    mean_squared_displacement,
    remove_center_of_mass,
    velocity_autocorrelation,
)
from difmd.observables.statistics import Estimate, over_replicas, with_control
from difmd.system import atomic_number
from difmd.trajectory.trajectory import Trajectory
from difmd.units import KB, PS, D

CUBIC_MADELUNG = 2.837297
"""Constant of the finite-size correction for a cubic box (Yeh & Hummer 2004)."""


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Diffusivity:
    """Self-diffusivity by two routes over the same window.

    Values are in Å²/time; divide by `units.D` for 1e-9 m²/s, and add `finite_size_correction`.

    Attributes:
        einstein: slope of the MSD over the window, divided by 6.
        green_kubo: a third of the integral of the VACF, averaged over the window.
        times: lags [time]; [lags].
        msd: mean over samples [Å²]; [lags].
        msd_stderr: its standard error.
        vacf: mean over samples [Å²/time²]; [lags].
        vacf_stderr: its standard error.
        window: start and end of the fit [time].
        samples: Einstein value of each replica or block; [samples].
        green_kubo_samples: Green–Kubo value of each replica or block; [samples].
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

    def __repr__(self) -> str:
        """Both values with their standard errors."""
        start, end = (time / PS for time in self.window)
        title = f"Diffusivity: {len(self.samples)} samples, window {start:.4g} to {end:.4g} ps"
        routes = {"Einstein": self.einstein, "Green–Kubo": self.green_kubo}
        return summary(title, {name: f"{value / D} × 1e-9 m²/s" for name, value in routes.items()})


def diffusivity(
    trajectory: Trajectory,
    *,
    window: tuple[float, float],
    n_blocks: int = 1,
    max_lag: float | None = None,
    temperature: float | None = None,
    species: int | str | None = None,
) -> Diffusivity:
    """Self-diffusivity in a trajectory, without padding atoms (host); see `diffusivity_from_arrays`.

    Args:
        trajectory: evenly spaced frames of one system or of replicas.
        window: start and end of the fit [time]; write `(1 * units.PS, 3 * units.PS)`.
        n_blocks: as in `diffusivity_from_arrays`.
        max_lag: as in `diffusivity_from_arrays`.
        temperature: as in `diffusivity_from_arrays`.
        species: symbol or atomic number of the atoms to average over; default: all.

    Returns:
        `Diffusivity`; divide its values by `units.D` for 1e-9 m²/s.

    Raises:
        InputError: as `diffusivity_from_arrays`; not a trajectory, fewer than two frames, replicas of
            different composition, or no atom of the species.
    """
    check_type("trajectory", trajectory, Trajectory, "give what simulate or read_trajectory returned")
    numbers = np.asarray(trajectory.system.atomic_numbers)
    masses = np.asarray(trajectory.system.masses)
    if numbers.ndim == 2:
        if (numbers != numbers[0]).any() or (masses != masses[0]).any():
            raise InputError("the replicas differ in composition: compute the diffusivity of each")
        numbers, masses = numbers[0], masses[0]
    if len(trajectory) < 2:
        raise InputError(f"a trajectory of {len(trajectory)} frames has no displacements")
    real = numbers > 0
    frames = [x[..., real, :] for x in (trajectory.positions, trajectory.momenta)]
    positions, momenta = (np.swapaxes(x, 0, 1) if x.ndim == 4 else x for x in frames)
    return diffusivity_from_arrays(
        positions,
        momenta,
        masses[real],
        interval=trajectory.interval,
        window=window,
        n_blocks=n_blocks,
        max_lag=max_lag,
        temperature=temperature,
        select=None if species is None else numbers[real] == atomic_number(species),
    )


def diffusivity_from_arrays(
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
    """Self-diffusivity with error bars from replicas and blocks (host).

    D = slope of MSD/6 over the window (least squares, Einstein), and D = ⅓∫₀ᵗ⟨v(0)·v(s)⟩ds (trapezoid)
    averaged over t in the window (Green–Kubo), both without the drift of the centre of mass. With 8 replicas
    or more the standard error is that of independent replicas; with fewer, the larger of that and the
    standard error of independent blocks.

    Args:
        positions: unwrapped [Å]; [frames, atoms, 3] or [replicas, frames, atoms, 3].
        momenta: the same shape [amu Å/time].
        masses: [amu]; [atoms].
        interval: time between frames [Å√(amu/eV)].
        window: start and end of the fit [time]; the start past the cage, a few ps in a simple liquid.
        n_blocks: blocks that each trajectory is cut into, several times as long as the window.
        max_lag: longest lag of the curves [time]; default: twice the end of the window.
        temperature: of the canonical ensemble that the initial states are drawn from, without net momentum
            [K]. Regression on the kinetic temperature (`with_control`) then removes the noise of initial
            energies, which Newtonian dynamics conserve. Default: the plain mean.
        select: the atoms to average over; default: all. [atoms].

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
    check_positive("interval", interval, "Å√(amu/eV)")
    check_integer("n_blocks", n_blocks)
    if positions.ndim == 3:
        positions, momenta = positions[None], momenta[None]
    n_frames = positions.shape[1] // n_blocks
    first, last = _window_frames(window, interval, n_frames)
    n_samples = positions.shape[0] * n_blocks
    if n_samples < 2:
        raise InputError("one replica and one block give no error bar: use n_blocks=2 or more")
    lags = 2 * last + 1 if max_lag is None else round(float(max_lag / interval)) + 1
    lags = min(n_frames, lags)
    blocks = [
        jnp.asarray(x)[:, : n_frames * n_blocks].reshape(n_samples, n_frames, *x.shape[2:])
        for x in (positions, momenta)
    ]
    chosen = np.arange(positions.shape[-2]) if select is None else np.flatnonzero(np.asarray(select))
    if len(chosen) == 0:
        raise InputError("no atom is selected: the species is absent, or the selection is empty")
    curves = _curves(*blocks, jnp.asarray(masses), jnp.asarray(chosen))
    msd, vacf = (np.asarray(curve, np.float64) for curve in curves)
    times = np.arange(n_frames) * float(interval)
    inside = slice(first, last + 1)
    slope = np.polynomial.polynomial.polyfit(times[inside], msd[:, inside].T, 1)[1]
    running = np.cumsum(0.5 * (vacf[:, 1:] + vacf[:, :-1]), axis=1) * float(interval) / 3
    integral = running[:, first - 1 : last].mean(axis=1)
    kelvin = None
    if temperature is not None:
        kelvin = np.asarray(_kinetic_temperature(blocks[1], jnp.asarray(masses)), np.float64)
    root = np.sqrt(n_samples)
    return Diffusivity(
        einstein=_estimate(slope / 6, n_blocks, kelvin, temperature),
        green_kubo=_estimate(integral, n_blocks, kelvin, temperature),
        times=times[:lags],
        msd=msd[:, :lags].mean(axis=0),
        msd_stderr=msd[:, :lags].std(axis=0, ddof=1) / root,
        vacf=vacf[:, :lags].mean(axis=0),
        vacf_stderr=vacf[:, :lags].std(axis=0, ddof=1) / root,
        window=(float(window[0]), float(window[1])),
        samples=slope / 6,
        green_kubo_samples=integral,
    )


def _window_frames(window: tuple[float, float], interval: float, n_frames: int) -> tuple[int, int]:
    """First and last frame of the window in a block of `n_frames`."""
    first, last = (round(float(t / interval)) for t in window)
    if not 0 < first < last < n_frames:
        start, end, longest = (t / PS for t in (*window, n_frames * interval))
        raise InputError(
            f"window = {start:.4g} .. {end:.4g} ps spans frames {first} .. {last}, a block has {n_frames}: "
            f"give 0 < start < end < {longest:.4g} ps (times as `1 * units.PS`), or fewer blocks"
        )
    return first, last


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
    def curves(block: tuple[Array, Array]) -> tuple[Array, Array]:
        r, p = block
        v = p / masses[None, :, None]
        msd = mean_squared_displacement(remove_center_of_mass(r, masses)[:, chosen])
        return msd, velocity_autocorrelation(remove_center_of_mass(v, masses)[:, chosen])

    # One block at a time: the transforms need several times the memory of the trajectory.
    return jax.lax.map(curves, (positions, momenta))


@jax.jit
def _kinetic_temperature(momenta: Array, masses: Array) -> Array:
    """Mean of each block over its frames, without net momentum [K]; [blocks]."""
    per_atom = jnp.mean(jnp.sum(momenta**2, axis=-1), axis=1) / masses[None]
    return jnp.sum(per_atom, axis=-1) / (3 * (masses.shape[0] - 1) * KB)


def finite_size_correction(*, temperature: float, viscosity: float, box_length: float) -> float:
    """Finite-size correction of D in a periodic cubic box, ξ k_BT/(6πηL) with ξ = 2.837297.

    Args:
        temperature: [K].
        viscosity: shear viscosity η [eV/Å³·time]; write `150e-6 * units.PA_S`.
        box_length: L [Å].

    Returns:
        D∞ − D_L [Å²/time]; zero for an infinite box length.

    Raises:
        InputError: a value that is not positive.

    References:
        Yeh & Hummer, J. Phys. Chem. B 108, 15873 (2004), doi:10.1021/jp0477147.
    """
    for name, value in (("temperature", temperature), ("viscosity", viscosity), ("box_length", box_length)):
        if not np.all(np.asarray(value) > 0):
            raise InputError(f"{name} = {value} must be positive")
    return CUBIC_MADELUNG * KB * temperature / (6 * np.pi * viscosity * box_length)
