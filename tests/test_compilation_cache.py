"""The compilation cache: on, off, elsewhere, and never over the user's own choice."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, jax, difmd
assert jax.config.jax_compilation_cache_dir == os.environ.get("JAX_COMPILATION_CACHE_DIR")
difmd.enable_cache()
jax.block_until_ready(jax.jit(lambda x: jax.numpy.linalg.inv(x) @ x)(jax.numpy.eye(40) * 2))
print(jax.config.jax_compilation_cache_dir)
"""


def folder_of(tmp_path, **variables):
    """Where a fresh process keeps what it compiles."""
    clean = {k: v for k, v in os.environ.items() if k not in ("DIFMD_CACHE", "JAX_COMPILATION_CACHE_DIR")}
    environment = {**clean, "XDG_CACHE_HOME": str(tmp_path / "home"), **variables}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()[-1]


def test_a_folder_that_was_named_is_filled(tmp_path):
    folder = folder_of(tmp_path, DIFMD_CACHE=str(tmp_path / "mine"))
    assert folder.startswith(str(tmp_path / "mine"))
    assert any((tmp_path / "mine").rglob("*-cache"))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DIFMD_CACHE": "off"}, "None"),
        ({"DIFMD_CACHE": "on"}, "home/difmd"),
        ({"DIFMD_CACHE": "on", "JAX_COMPILATION_CACHE_DIR": "/nowhere/else"}, "/nowhere/else"),
    ],
)
def test_choices(tmp_path, variables, expected):
    assert expected in folder_of(tmp_path, **variables)
