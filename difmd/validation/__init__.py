"""`validate`: a certificate whether a potential is fit for molecular dynamics."""

from difmd.validation.certificate import Certificate
from difmd.validation.checks import GROUPS, Check
from difmd.validation.cutoff import CutoffScan
from difmd.validation.driver import validate
from difmd.validation.energy_conservation import TimeSteps
from difmd.validation.ensembles import KineticEnergies, Volumes

__all__ = [
    "GROUPS", "Certificate", "Check", "CutoffScan", "KineticEnergies", "TimeSteps", "Volumes", "validate",
]  # fmt: skip
