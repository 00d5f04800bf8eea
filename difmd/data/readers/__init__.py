"""Readers of data sets, one file per format."""

from difmd.data.readers.labels import Keys
from difmd.data.readers.read_files import read, stream

__all__ = ["Keys", "read", "stream"]
