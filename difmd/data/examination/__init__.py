"""Examination of data sets: units, signs, stress conventions, repeats and outliers."""

from difmd.data.examination.driver import Examination, examine
from difmd.data.examination.energy_stress import StressOffset, correct_stress, stress_offset
from difmd.data.examination.findings import Finding, Verdict

__all__ = ["Examination", "Finding", "StressOffset", "Verdict", "correct_stress", "examine", "stress_offset"]
