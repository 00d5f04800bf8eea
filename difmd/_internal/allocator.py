"""Keep memory that XLA frees on a CPU in the process, so that the next step reuses it."""

from __future__ import annotations

import ctypes
import os

VARIABLE = "DIFMD_KEEP_MEMORY"
"""Environment variable: `on` or `off`."""

# Options of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

# Length of the heaps that threads allocate from; with padding of this length one heap is retained.
_HEAP = 64 * 2**20


def keep_memory() -> bool:
    """Make glibc retain freed blocks of up to 64 MB; called by training.

    Otherwise each call of a compiled function maps blocks anew, which the system fills with zeros. Returns
    False with other C libraries, with `DIFMD_KEEP_MEMORY=off`, or where the environment tunes malloc.
    """
    is_tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if os.environ.get(VARIABLE, "on") in ("", "off") or is_tuned:
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - missing in other C libraries
        mallopt = libc.mallopt
    except (OSError, TypeError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _HEAP))
    return all([mallopt(option, value) == 1 for option, value in settings])
