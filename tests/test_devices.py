"""Replicas spread over devices, or over the cores of a CPU, go where they go on one."""

import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import os, sys
import jax
n_devices, n_cores = int(sys.argv[1]), int(sys.argv[2])
os.sched_getaffinity = lambda process: set(range(n_cores))
jax.config.update("jax_num_cpu_devices", n_devices)
import ase.build
import jax.numpy as jnp
import numpy as np
import difmd
from difmd import units
from difmd._internal.replicas import n_shares

assert len(jax.devices()) == n_devices and n_shares(8, 32) == max(n_devices, n_cores)
assert n_shares(7, 32) == 1
# Precision set for this block alone, as scripts may; threads do not see it.
with jax.enable_x64(True):
    one = difmd.from_ase(ase.build.bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2))
    systems = jax.tree.map(lambda x: jnp.stack([x] * 8), one)
    potential = difmd.lennard_jones(
        ["Ar"], sigma=3.4, epsilon=120 * units.KB, cutoff=6.0, truncation=difmd.switched(5.0)
    )
    params = potential.init(jax.random.key(0))
    thermostat = difmd.langevin(dt=4 * units.FS, temperature=90.0, friction=1 / units.PS)
    run = difmd.simulate(
        potential, params, systems, thermostat, n_steps=40, save_every=20, chunk_steps=20,
        initial_temperature=90.0, key=jax.random.key(1), progress=False,
    )
    more = difmd.simulate(
        potential, params, run.state, difmd.velocity_verlet(dt=4 * units.FS), n_steps=20, save_every=10,
        progress=False,
    )
    assert run.state.key.shape == (8,) and run.positions.dtype == np.float64
    np.savez(sys.argv[3], positions=more.positions, stress=run.stress, energy=more.potential_energy)
"""


def run(n_devices, n_cores, file):
    command = [sys.executable, "-c", SCRIPT, str(n_devices), str(n_cores), str(file)]
    environment = {**os.environ, "DIFMD_CACHE": "off"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return np.load(file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(1, 1, tmp_path_factory.mktemp("alone") / "run.npz")


@pytest.mark.slow
@pytest.mark.parametrize("n_devices, n_cores", [(4, 1), (1, 4)], ids=["devices", "cores"])
def test_four_give_what_one_gives(n_devices, n_cores, alone, tmp_path):
    """Lists are rebuilt when one of a share asks for it, so that sums may round another way."""
    shared = run(n_devices, n_cores, tmp_path / "run.npz")
    assert alone["positions"].shape == (2, 8, 32, 3)
    assert not np.array_equal(alone["positions"][:, 0], alone["positions"][:, 1])
    for name in ("positions", "stress", "energy"):
        np.testing.assert_allclose(shared[name], alone[name], rtol=1e-9, atol=1e-10)
