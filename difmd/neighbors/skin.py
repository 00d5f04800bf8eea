"""A skin that makes lists cheap: wide enough to last, narrow enough not to hold many pairs for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from difmd.units import KB

# Speeds are estimated at this temperature: the skin of a run must not depend on its own, else a run that goes
# on at another temperature would be compiled anew. From 50 to 10 000 K it costs an eighth at most.
_TEMPERATURE = 1000.0

# Speed of the fastest atoms between two rebuilds in units of √(kT/m), and a rebuild in units of a force
# evaluation. experiments/benchmarks/skins.py shows whether the least time is where they put it.
_FASTEST = 3.5
_REBUILD = 4.0


def automatic_skin(masses: Any, *, dt: float, cutoff: float) -> float:
    """The skin with the least expected cost of a step (host).

    With x = skin/cutoff a step costs (1 + x)³ for its pairs and R·2vΔt/(x·cutoff) for its share of a rebuild,
    R force evaluations every x·cutoff/2vΔt steps; the sum is least where 3x²(1 + x)² = 2RvΔt/cutoff.

    Args:
        masses: of the atoms [amu]; the lightest is the fastest.
        dt: time step [Å√(amu/eV)].
        cutoff: [Å].

    Returns:
        [Å], to two digits.
    """
    speed = _FASTEST * np.sqrt(KB * _TEMPERATURE / np.min(np.asarray(masses, np.float64)))
    root = np.sqrt(2 * _REBUILD * speed * dt / (3 * cutoff))
    share = 0.5 * (np.sqrt(1 + 4 * root) - 1)
    return float(f"{share * cutoff:.2g}")
