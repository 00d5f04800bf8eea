"""Data sets: reading, examination, splitting, and batches.

`read` → `examine` → `split` on lists of `Frame`, → `statistics` of a network → `make_batches`.
"""

from difmd.data.batches import Batch, Batches, Labels, make_batches
from difmd.data.examination.driver import Examination, examine
from difmd.data.examination.energy_stress import StressOffset, correct_stress, stress_offset
from difmd.data.examination.findings import Finding, Verdict
from difmd.data.frames import Frame, hash_frames, is_isolated_atom
from difmd.data.label_units import Units
from difmd.data.network_statistics import Statistics, nearest_distances, statistics
from difmd.data.readers.labels import Keys
from difmd.data.readers.read_files import read, stream
from difmd.data.references import ReferenceEnergies, excess_energies, reference_energies
from difmd.data.splitting import Parts, Split, apply_split, load_split, save_split, split

__all__ = [
    "Batch", "Batches", "Examination", "Finding", "Frame", "Keys", "Labels", "Parts", "ReferenceEnergies",
    "Split", "Statistics", "StressOffset", "Units", "Verdict", "apply_split", "correct_stress", "examine",
    "excess_energies", "hash_frames", "is_isolated_atom", "load_split", "make_batches", "nearest_distances",
    "read", "reference_energies", "save_split", "split", "statistics", "stream", "stress_offset",
]  # fmt: skip
