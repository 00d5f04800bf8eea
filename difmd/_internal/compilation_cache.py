"""Compiled programs are kept on disk, so that only the first run of a program waits for the compiler."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax

VARIABLE = "DIFMD_CACHE"
"""Environment variable: a folder, `on` or `off`."""

# Earlier versions falsely report missing features of the processor when they read a program for a CPU.
_QUIET = (0, 12)


def enable_cache() -> Path | None:
    """Turn on JAX's persistent compilation cache; call it before anything is compiled.

    The command line, the experiments and the notebooks do so; `import difmd` does not. The environment
    variable `DIFMD_CACHE` names a folder, or is `on` or `off`; the default is the folder `difmd` of
    `XDG_CACHE_HOME` or `~/.cache`. It has a subfolder for each kind of processor, as programs compiled for
    one may not run on another; JAX deletes the programs used least recently beyond 1 GB. A cache chosen by
    `JAX_COMPILATION_CACHE_DIR` or JAX's configuration is left as it is. With JAX < 0.12 the messages that
    XLA logs, mostly false alarms, are silenced; errors are raised as before.

    Returns:
        The folder, or None when the cache is off or was chosen elsewhere.
    """
    setting = os.environ.get(VARIABLE, "on")
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if setting in ("", "off") or chosen is not None:
        return None
    base = _user_folder() if setting == "on" else Path(setting).expanduser()
    if base is None:
        return None
    folder = base / f"{platform.machine()}-{_processor()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # A program of many small operations waits for all of them.
    options = {
        "jax_compilation_cache_max_size": 1_000_000_000, "jax_persistent_cache_min_compile_time_secs": 0.05
    }  # fmt: skip
    for option, value in options.items():
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
    except RuntimeError:  # no home folder
        return None


def _processor() -> str:
    """A name for the instructions that the processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(flags.encode()).hexdigest()[:12]
