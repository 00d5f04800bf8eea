"""Small sets that ship with difmd: measured numbers, with their sources in the files, and computed frames."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

METHANE_MASS = 16.043
"""Molar mass of methane [amu]."""


def methane_liquid() -> Path:
    """Table of measured D, density and viscosity of saturated liquid methane, 91 to 109 K.

    Returns:
        Path of a CSV file, for `difmd.fitting.read_targets`.
    """
    return Path(str(resources.files("difmd.datasets") / "methane_liquid.csv"))


def methanol() -> Path:
    """Gas-phase methanol, PBE0/def2-SVP: 1000 frames with energies, forces, dipoles; for `difmd.data.read`.

    Half of them, of the kind "300 K", are from dynamics at that temperature, the others from 600 K. Made by
    `experiments/methanol_aimd`, whose report is the file `methanol.json` beside it.

    Returns:
        Path of an extended XYZ file.
    """
    return Path(str(resources.files("difmd.datasets") / "methanol.extxyz.gz"))
