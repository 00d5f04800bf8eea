"""Small tables of measured numbers that ship with difmd, with their sources in the files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

METHANE_MASS = 16.043
"""Molar mass of methane [amu]."""


def methane_liquid() -> Path:
    """Table of measured D, density and viscosity of saturated liquid methane, 91 to 109 K."""
    return Path(str(resources.files("difmd.datasets") / "methane_liquid.csv"))
