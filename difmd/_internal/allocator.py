"""Memory that XLA frees on a CPU stays with the process, so that the next step finds it in place."""

from __future__ import annotations

import ctypes
import os

VARIABLE = "DIFMD_KEEP_MEMORY"
"""Environment variable: `on` or `off`."""

# Options of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

# The heaps that threads allocate from are this long; one of them is kept where the padding is as long.
_HEAP = 64 * 2**20


def keep_memory() -> bool:
    """Have the C library keep blocks of up to 64 MB that were freed; a training does so.

    Every call of a compiled function allocates its temporary arrays. By default glibc maps blocks of some
    megabytes anew and unmaps them when they are freed, and the system fills each page with zeros again in
    every step. Afterwards the memory of the process stays at its peak until it ends. Nothing changes with
    other C libraries, where the environment variable `DIFMD_KEEP_MEMORY` says `off`, or where the
    environment tunes malloc itself.

    Returns:
        Whether memory is kept from now on.
    """
    is_tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if os.environ.get(VARIABLE, "on") in ("", "off") or is_tuned:
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - another C library has none
        mallopt = libc.mallopt
    except (OSError, TypeError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _HEAP))
    return all([mallopt(option, value) == 1 for option, value in settings])
