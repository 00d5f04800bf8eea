"""Units: eV, Å, amu and K inside; multiply by these constants on the way in, divide on the way out.

The unit of time is Å√(amu/eV) = 10.18 fs. Constants are CODATA 2018 (doi:10.1103/RevModPhys.93.025010).
"""

import math

_ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact; also J per eV
_AMU = 1.66053906660e-27  # kg
_TIME = 1e-10 * math.sqrt(_AMU / _ELEMENTARY_CHARGE)  # s per internal unit of time

KB = 8.617333262e-5
"""Boltzmann constant [eV/K]."""

FS = 1e-15 / _TIME
"""One femtosecond [Å√(amu/eV)]."""

PS = 1000.0 * FS
"""One picosecond [Å√(amu/eV)]."""

GPA = 1e9 * 1e-30 / _ELEMENTARY_CHARGE
"""One gigapascal [eV/Å³]."""

BAR = 1e-4 * GPA
"""One bar [eV/Å³]."""

KCAL_PER_MOL = 4184.0 / 6.02214076e23 / _ELEMENTARY_CHARGE
"""One kcal/mol [eV]."""

KJ_PER_MOL = KCAL_PER_MOL / 4.184
"""One kJ/mol [eV]."""

M2_PER_S = 1e20 * _TIME
"""One m²/s [Å²/(Å√(amu/eV))]."""

D = 1e-9 * M2_PER_S
"""10⁻⁹ m²/s, the usual unit of diffusivities in liquids [Å²/(Å√(amu/eV))]: write ``value / units.D``."""

PA_S = 1e-9 * GPA / _TIME
"""One Pa·s, for viscosities [eV/Å³ · Å√(amu/eV)]; liquids are tabulated in ``1e-6 * PA_S``."""

KG_PER_M3 = 1e-30 / _AMU
"""One kg/m³, for mass densities [amu/Å³]."""

BOHR = 0.529177210903
"""One bohr [Å]."""

COULOMB = 1e10 * _ELEMENTARY_CHARGE / (4 * math.pi * 8.8541878128e-12)
"""Energy of two elementary charges at one ångström, e²/4πε₀ [eV Å]."""
