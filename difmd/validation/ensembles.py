"""What kinetic energies and volumes are distributed as, against samples of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from difmd import units
from difmd.observables.statistics import Estimate, over_replicas
from difmd.validation.checks import LONGER, SIGMAS, Check, judged_with_error
from difmd.validation.histograms import jackknife, log_ratio_slope

# Relative deviation of kinetic energies from those of the canonical ensemble that a time step may cause,
# (ωΔt)²/4 of the fastest vibration; of their variance it is twice that.
_STEP_BIAS = 0.01


class KineticEnergies(NamedTuple):
    """Samples of a run with a thermostat.

    Attributes:
        labels: of kinds of atoms, which differ in species or mass.
        n_free: degrees of freedom of each kind; [kinds].
        samples: kinetic energy of each kind over k_BT; [frames, replicas, kinds].
    """

    labels: tuple[str, ...]
    n_free: np.ndarray
    samples: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Of all atoms, over k_BT; [frames, replicas]."""
        return self.samples.sum(axis=-1)


class Volumes(NamedTuple):
    """Samples at three pressures.

    Attributes:
        pressures: P − ΔP, P, P + ΔP [eV/Å³]; [3].
        temperature: [K].
        samples: volumes [Å³]; [3, frames, replicas].
    """

    pressures: np.ndarray
    temperature: float
    samples: np.ndarray


def check_kinetic_energy(found: KineticEnergies) -> list[Check]:
    """Mean and variance of the gamma distribution, both N_f/2 in units of k_BT and its square.

    Args:
        found: at least two replicas.

    Returns:
        Rows for mean and variance, relative to those expected.

    References:
        Shirts, J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p.
    """
    half = found.n_free.sum() / 2
    mean = jackknife(lambda k: k.mean() / half, found.total)
    variance = jackknife(lambda k: k.var() / half, found.total)
    return [
        judged_with_error(
            "kinetic_energy", "mean / (N_f kT/2)", float(mean.value), float(mean.stderr),
            "the temperature is not that of the bath: use a smaller dt, and look at forces and masses",
            expected=1.0, allowance=_STEP_BIAS, resolution=0.05, longer=LONGER,
        ),
        judged_with_error(
            "kinetic_energy", "variance / (N_f (kT)²/2)", float(variance.value), float(variance.stderr),
            "kinetic energies are not gamma distributed: use a smaller dt, and a canonical thermostat",
            expected=1.0, allowance=2 * _STEP_BIAS, resolution=0.3, longer=LONGER,
        ),
    ]  # fmt: skip


def check_equipartition(found: KineticEnergies) -> list[Check]:
    """Temperature of each kind of atoms over that of all.

    Args:
        found: at least two replicas and two kinds.

    Returns:
        A row for each kind.
    """

    def ratios(samples: Float[np.ndarray, "samples kinds"]) -> np.ndarray:
        mean = samples.mean(axis=0)
        return (mean / found.n_free) / (mean.sum() / found.n_free.sum())

    value, stderr = jackknife(ratios, found.samples)
    return [
        judged_with_error(
            "equipartition", f"T({label}) / T", float(value[k]), float(stderr[k]),
            "kinds of atoms differ in temperature: use a smaller dt, and look at what heats or cools them",
            expected=1.0, allowance=_STEP_BIAS, resolution=0.1, longer=LONGER,
        )
        for k, label in enumerate(found.labels)
    ]  # fmt: skip


def check_volume(found: Volumes) -> list[Check]:
    """Volumes at two pressures, and their fluctuation against their response to pressure.

    The weight of a volume at P − ΔP over that at P + ΔP is exp(2ΔP V/k_BT) times a constant, so that the
    logarithm of the ratio of both histograms has a known slope. In the same way the fluctuation ⟨δV²⟩/(k_BT
    V) at P is the compressibility −(1/V) dV/dP.

    Args:
        found: at least two replicas.

    Returns:
        Rows for the slope and for the compressibilities, relative to what is expected.

    References:
        Shirts, J. Chem. Theory Comput. 9, 909 (2013), doi:10.1021/ct300688p; Allen & Tildesley, Computer
        Simulation of Liquids, 2nd ed. 2017, §2.5 (fluctuations).
    """
    kT = units.KB * found.temperature
    width = found.pressures[2] - found.pressures[0]
    low, middle, high = found.samples

    def slope(low: np.ndarray, high: np.ndarray) -> float:
        return log_ratio_slope(low, high) / (-width / kT)

    def ratio(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> float:
        return middle.var() / kT / ((low.mean() - high.mean()) / width)

    remedy = "volumes are not isobaric: look at the stress rows, and use a smaller dt"
    slopes = jackknife(slope, low, high)
    ratios = jackknife(ratio, low, middle, high)
    if any(_is_relaxing(samples) for samples in found.samples):
        # Whatever the numbers are, they are not those of equilibrium.
        slopes, ratios = (Estimate(x.value, np.asarray(np.inf)) for x in (slopes, ratios))
    response = (low.mean() - high.mean()) / width / middle.mean()
    return [
        judged_with_error(
            "volume", "slope of ln p(V) ratio / −2ΔP/kT", float(slopes.value), float(slopes.stderr), remedy,
            expected=1.0, allowance=0.02, resolution=0.75, longer=LONGER,
            note=f"ΔP = {width / 2 / units.BAR:.3g} bar",
        ),
        # The third derivative of V(P) makes a difference over a finite ΔP too large by a few per cent.
        judged_with_error(
            "volume", "compressibility: fluctuation / response", float(ratios.value), float(ratios.stderr),
            remedy, expected=1.0, allowance=0.05, resolution=0.75, longer=LONGER,
            note=f"−(1/V) dV/dP = {response * units.GPA:.3g} /GPa",
        ),
    ]  # fmt: skip


def _is_relaxing(samples: np.ndarray) -> bool:
    """Whether the means of the first and of the last half of series [frames, replicas] differ."""
    half = len(samples) // 2
    change = over_replicas(samples[half:].mean(axis=0) - samples[:half].mean(axis=0))
    return bool(abs(change.value) > SIGMAS * change.stderr)
