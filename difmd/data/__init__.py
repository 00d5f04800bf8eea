"""Data sets: read them, examine them, split them; reference energies.

`read` → `examine` → `split`; every step takes and gives lists of `Frame`.
"""

from difmd.data.doctor import Examination, examine
from difmd.data.findings import Finding, Verdict
from difmd.data.frames import Frame, hash_frames, is_isolated_atom
from difmd.data.label_units import Units
from difmd.data.labels import Keys
from difmd.data.read import read, stream
from difmd.data.references import ReferenceEnergies, excess_energies, reference_energies
from difmd.data.split import Parts, Split, load_split, save_split, split, take_split

__all__ = [
    "Examination",
    "Finding",
    "Frame",
    "Keys",
    "Parts",
    "ReferenceEnergies",
    "Split",
    "Units",
    "Verdict",
    "examine",
    "excess_energies",
    "hash_frames",
    "is_isolated_atom",
    "load_split",
    "read",
    "reference_energies",
    "save_split",
    "split",
    "stream",
    "take_split",
]
