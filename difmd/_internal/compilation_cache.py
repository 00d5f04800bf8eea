"""Compiled programs are kept on disk, so that only the first run of a program waits for the compiler."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax

VARIABLE = "DIFMD_CACHE"
"""Environment variable: a folder, `on` or `off`."""

# Before, XLA reports missing features of the processor, falsely, whenever it reads a program for a CPU.
_QUIET = (0, 12)


def enable_cache() -> Path | None:
    """Turn on JAX's persistent compilation cache; call it before anything is compiled.

    The command line, the experiments and the notebooks do so; `import difmd` does not.

    The environment variable `DIFMD_CACHE` names a folder, or is `on` or `off`. Without it programs are
    stored in the folder `difmd` of `XDG_CACHE_HOME` or `~/.cache`, with a subfolder for each kind of
    processor, since programs compiled for one may not run on another. JAX deletes those used least recently
    beyond 1 GB. A cache that was already chosen, by `JAX_COMPILATION_CACHE_DIR` or JAX's configuration, is
    left as it is. With JAX < 0.12 messages that XLA itself logs are silenced, mostly false alarms
    about the processor; errors are raised as before.

    Returns:
        The folder, or None when the cache is off or was chosen elsewhere.
    """
    wanted = os.environ.get(VARIABLE, "on")
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if wanted in ("", "off") or chosen is not None:
        return None
    base = _user_folder() if wanted == "on" else Path(wanted).expanduser()
    if base is None:
        return None
    folder = base / f"{platform.machine()}-{_processor()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # A program of many small operations waits for all of them.
    for option, value in (
        ("jax_compilation_cache_max_size", 1_000_000_000),
        ("jax_persistent_cache_min_compile_time_secs", 0.05),
    ):
        if option.upper() not in os.environ:
            jax.config.update(option, value)
    if jax.__version_info__ < _QUIET:
        _silence_xla()
    return folder


def _silence_xla() -> None:
    """Let XLA log fatal errors only; the loggers of JAX in Python keep their level."""
    level = jax.config.jax_logging_level  # type: ignore[attr-defined]
    jax.config.update("jax_logging_level", "CRITICAL")
    jax.config.update("jax_logging_level", level)


def _user_folder() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "difmd"
    except RuntimeError:  # no home folder, and a shared one is no place for programs
        return None


def _processor() -> str:
    """A name for the instructions that the processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(flags.encode()).hexdigest()[:12]
