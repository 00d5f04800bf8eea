"""Checks of samples of kinetic energies and volumes against their distributions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd import units
from difmd._internal.summaries import brief_repr
from difmd.observables.statistics import Estimate, over_replicas
from difmd.validation.checks import SIGMAS, Check, judged_with_error
from difmd.validation.histograms import jackknife, log_ratio_slope

# Acceptable relative deviation of kinetic energies due to the time step, (ωΔt)²/4 for the fastest vibration;
# that of their variance is twice as large.
_STEP_BIAS = 0.01


@brief_repr
class KineticEnergies(NamedTuple):
    """Kinetic energies in a run with a thermostat.

    Attributes:
        labels: of kinds of atoms, which differ in species or mass.
        n_free: degrees of freedom of each kind; [kinds].
        samples: kinetic energy of each kind in units of k_BT; [frames, replicas, kinds].
    """

    labels: tuple[str, ...]
    n_free: np.ndarray
    samples: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Kinetic energy of all atoms in units of k_BT; [frames, replicas]."""
        return self.samples.sum(axis=-1)


@brief_repr
class Volumes(NamedTuple):
    """Volumes at three pressures.

    Attributes:
        pressures: P − ΔP, P, P + ΔP [eV/Å³]; [3].
        temperature: [K].
        samples: volumes [Å³]; [3, frames, replicas].
    """

    pressures: np.ndarray
    temperature: float
    samples: np.ndarray


def check_kinetic_energy(energies: KineticEnergies) -> list[Check]:
    """Check mean and variance of the gamma distribution, N_f/2 in units of k_BT and of (k_BT)²."""
    half = energies.n_free.sum() / 2
    return [
        judged_with_error(
            "kinetic_energy", "mean / (N_f kT/2)", jackknife(lambda k: k.mean() / half, energies.total),
            "the temperature differs from that of the bath: use a smaller dt, and look at forces and masses",
            expected=1.0, allowance=_STEP_BIAS, resolution=0.05,
        ),
        judged_with_error(
            "kinetic_energy", "variance / (N_f (kT)²/2)", jackknife(lambda k: k.var() / half, energies.total),
            "kinetic energies are not gamma distributed: use a smaller dt, and a canonical thermostat",
            expected=1.0, allowance=2 * _STEP_BIAS, resolution=0.3,
        ),
    ]  # fmt: skip


def check_equipartition(energies: KineticEnergies) -> list[Check]:
    """Check the temperature of each kind of atoms, relative to that of all atoms."""

    def ratios(samples: Float[np.ndarray, "samples kinds"]) -> np.ndarray:
        mean = samples.mean(axis=0)
        return (mean / energies.n_free) / (mean.sum() / energies.n_free.sum())

    return [
        judged_with_error(
            "equipartition", f"T({label}) / T", (value, error),
            "kinds of atoms differ in temperature: use a smaller dt, and look at their forces and masses",
            expected=1.0, allowance=_STEP_BIAS, resolution=0.1,
        )
        for label, value, error in zip(energies.labels, *jackknife(ratios, energies.samples), strict=True)
    ]  # fmt: skip


def check_volume(volumes: Volumes) -> list[Check]:
    """Check the distributions of volumes at different pressures, and fluctuations against the response.

    The ratio of the weights of a volume at P − ΔP and P + ΔP is exp(2ΔP V/k_BT) times a constant (Shirts,
    J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p). The fluctuation ⟨δV²⟩/(k_BT V) at P equals
    the compressibility −(1/V) dV/dP (Allen & Tildesley, Computer Simulation of Liquids, 2nd ed. 2017, §2.5).
    """
    kT = units.KB * volumes.temperature
    width = volumes.pressures[2] - volumes.pressures[0]
    low, middle, high = volumes.samples

    def slope(low: np.ndarray, high: np.ndarray) -> float:
        return log_ratio_slope(low, high) / (-width / kT)

    def ratio(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> float:
        return middle.var() / kT / ((low.mean() - high.mean()) / width)

    remedy = "volumes do not have the distribution of the NPT ensemble: look at the stress, use a smaller dt"
    slopes = jackknife(slope, low, high)
    ratios = jackknife(ratio, low, middle, high)
    half = volumes.samples.shape[1] // 2
    early, late = (x.mean(axis=1).T for x in (volumes.samples[:, :half], volumes.samples[:, half:]))
    change = over_replicas(late - early)
    if np.any(np.abs(change.value) > SIGMAS * change.stderr):
        # The means of both halves differ, so that the samples are not from equilibrium.
        slopes, ratios = (Estimate(x.value, np.asarray(np.inf)) for x in (slopes, ratios))
    response = (low.mean() - high.mean()) / width / middle.mean()
    return [
        judged_with_error(
            "volume", "slope of ln p(V) ratio / −2ΔP/kT", slopes, remedy, expected=1.0, allowance=0.02,
            resolution=0.75, note=f"ΔP = {width / 2 / units.BAR:.3g} bar",
        ),
        # The third derivative of V(P) makes the finite difference too large by a few per cent.
        judged_with_error(
            "volume", "compressibility: fluctuation / response", ratios, remedy, expected=1.0, allowance=0.05,
            resolution=0.75, note=f"−(1/V) dV/dP = {response * units.GPA:.3g} /GPa",
        ),
    ]  # fmt: skip
