"""The compilation cache: on, off, elsewhere, and never over the user's own choice."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import logging, os, jax, difmd
assert jax.config.jax_compilation_cache_dir == os.environ.get("JAX_COMPILATION_CACHE_DIR")
difmd.enable_cache()
jax.block_until_ready(jax.jit(lambda x: jax.numpy.linalg.inv(x) @ x)(jax.numpy.eye(40) * 2))
assert logging.getLogger("jax").level == logging.NOTSET
print(jax.config.jax_compilation_cache_dir)
"""
OURS = (
    "DIFMD_CACHE",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "TF_CPP_MIN_LOG_LEVEL",
    # Programs that compile too fast are not stored.
    "XLA_FLAGS",
)


def run_fresh(tmp_path, **variables):
    """A fresh process that compiles a program and prints the folder of the cache."""
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    environment = {**clean, "XDG_CACHE_HOME": str(tmp_path / "home"), **variables}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run


def folder_of(tmp_path, **variables):
    return run_fresh(tmp_path, **variables).stdout.split()[-1]


def test_a_folder_that_was_named_is_filled_and_read_quietly(tmp_path):
    folder = folder_of(tmp_path, DIFMD_CACHE=str(tmp_path / "mine"))
    assert folder.startswith(str(tmp_path / "mine"))
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "mine").rglob("*-cache")}
    assert stored
    again = run_fresh(tmp_path, DIFMD_CACHE=str(tmp_path / "mine"))
    assert again.stderr == ""
    assert stored == {file: file.stat().st_mtime_ns for file in (tmp_path / "mine").rglob("*-cache")}


@pytest.mark.quick("variables1-None", "variables3-/nowhere/else")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "home/difmd"),
        ({"DIFMD_CACHE": "off"}, "None"),
        ({"DIFMD_CACHE": "on"}, "home/difmd"),
        ({"DIFMD_CACHE": "on", "JAX_COMPILATION_CACHE_DIR": "/nowhere/else"}, "/nowhere/else"),
    ],
)
def test_choices(tmp_path, variables, expected):
    assert expected in folder_of(tmp_path, **variables)
