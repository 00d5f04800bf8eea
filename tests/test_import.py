"""`import difmd` is quick and leaves heavy partners alone."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys, time
began = time.perf_counter()
import difmd
print(json.dumps([time.perf_counter() - began, list(sys.modules)]))
"""


@pytest.fixture(scope="module")
def imported():
    """Seconds and modules of three fresh interpreters."""
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return found


def test_import_is_quick(imported):
    # Most of it is JAX; the best of three, as other work may be going on.
    assert min(seconds for seconds, _ in imported) < 2.0


@pytest.mark.parametrize(
    "name", ["jax_md", "pymatgen", "matplotlib", "e3nn_jax", "vesin", "rich.progress", "flax", "optax"]
)
def test_import_leaves_heavy_partners_alone(imported, name):
    assert "difmd" in imported[0][1]
    assert name not in imported[0][1]
