"""The skin with the least cost: fewer rebuilds with a wide one, fewer pairs with a narrow one."""

from __future__ import annotations

from typing import Any

import numpy as np

from difmd.errors import check_positive
from difmd.units import KB

# Speeds are estimated at this temperature [K]. With that of the run, a continuation at another temperature
# would be compiled anew. From 50 to 10 000 K the loss is an eighth at most.
_TEMPERATURE = 1000.0

# Speed of the fastest atoms between two rebuilds in units of √(kT/m), and the cost of a rebuild in force
# evaluations; experiments/benchmarks/skins.py compares the resulting minimum with measured times.
_FASTEST = 3.5
_REBUILD = 4.0


def automatic_skin(masses: Any, *, dt: float, cutoff: float) -> float:
    """The skin with the least expected cost of a step (host).

    With x = skin/cutoff a step costs (1 + x)³ for its pairs and R·2vΔt/(x·cutoff) for its share of a rebuild,
    R force evaluations every x·cutoff/2vΔt steps; the sum is least where 3x²(1 + x)² = 2RvΔt/cutoff.

    Args:
        masses: masses of the atoms [amu]; the lightest is the fastest.
        dt: time step [Å√(amu/eV)].
        cutoff: cut-off of the potential [Å].

    Returns:
        The skin [Å], to two digits.

    Raises:
        InputError: a value that is not positive.
    """
    for name, value, unit in (("masses", masses, "amu"), ("dt", dt, "Å√(amu/eV)"), ("cutoff", cutoff, "Å")):
        check_positive(name, np.asarray(value), unit)
    speed = _FASTEST * np.sqrt(KB * _TEMPERATURE / np.min(np.asarray(masses, np.float64)))
    root = np.sqrt(2 * _REBUILD * speed * dt / (3 * cutoff))
    share = 0.5 * (np.sqrt(1 + 4 * root) - 1)
    return float(f"{share * cutoff:.2g}")
