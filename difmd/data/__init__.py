"""Data sets: reading, checking, splitting; reference energies."""

from difmd.data.frames import Frame
from difmd.data.label_units import Units
from difmd.data.labels import Keys
from difmd.data.read import read, stream

__all__ = ["Frame", "Keys", "Units", "read", "stream"]
