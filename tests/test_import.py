"""`import difmd` is quick and leaves heavy partners alone."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys, time
began = time.process_time()
import difmd
print(json.dumps([time.process_time() - began, list(sys.modules)]))
"""


@pytest.fixture(scope="module")
def imported():
    """Seconds of CPU time and modules of three fresh interpreters."""
    found = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return found


def test_import_is_quick(imported):
    # Most of it is JAX.
    assert min(seconds for seconds, _ in imported) < 2.0


@pytest.mark.parametrize(
    "name", ["jax_md", "pymatgen", "matplotlib", "e3nn_jax", "vesin", "rich.progress", "flax", "optax"]
)
def test_import_leaves_heavy_partners_alone(imported, name):
    assert "difmd" in imported[0][1]
    assert name not in imported[0][1]


def test_every_name_is_found_and_looking_at_them_imports_nothing():
    code = """
import sys, difmd
listed = set(dir(difmd)) | set(dir(difmd.potentials))
assert {"mace", "training", "network_potential"} <= listed, listed
assert "flax" not in sys.modules and "optax" not in sys.modules
for package in (difmd, difmd.potentials):
    for name in package.__all__:
        getattr(package, name)
assert difmd.mace is difmd.potentials.mace is difmd.potentials.networks.mace
try:
    difmd.mase
except AttributeError as error:
    assert "mase" in str(error)
else:
    raise AssertionError("a name that is not there was found")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_partner_that_cannot_be_imported_is_named(tmp_path):
    """Not that difmd has no networks, which is what Python makes of an AttributeError."""
    (tmp_path / "flax.py").write_text("raise AttributeError('jax.core has no attribute Foo')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from difmd import mace"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "jax.core has no attribute Foo" in done.stderr
    assert "ImportError: difmd.potentials.networks cannot be imported" in done.stderr


def test_import_leaves_jax_as_it_was():
    code = """
import jax
before = dict(jax.config.values)
import difmd
for name in difmd.__all__:
    getattr(difmd, name)
assert before == dict(jax.config.values)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_module_is_an_attribute_and_none_is_shadowed():
    code = """
import pkgutil, types, difmd
for module in pkgutil.iter_modules(difmd.__path__):
    if not module.name.startswith("_"):
        found = getattr(difmd, module.name)
        assert isinstance(found, types.ModuleType), module.name
        assert found.__name__ == f"difmd.{module.name}" and module.name in difmd.__all__, module.name
assert len(difmd.__all__) == len(set(difmd.__all__))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
