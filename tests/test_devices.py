"""Replicas spread over four devices go where they go on one."""

import os
import subprocess
import sys

import numpy as np

SCRIPT = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import ase.build
import jax.numpy as jnp
import numpy as np
import difmd
from difmd import units

assert len(jax.devices()) == int(sys.argv[1])
one = difmd.from_ase(ase.build.bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2))
systems = jax.tree.map(lambda x: jnp.stack([x] * 8), one)
potential = difmd.lennard_jones(
    ["Ar"], sigma=3.4, epsilon=120 * units.KB, cutoff=6.0, truncation=difmd.switched(5.0)
)
params = potential.init(jax.random.key(0))
run = difmd.simulate(
    potential, params, systems, difmd.langevin(dt=4 * units.FS, temperature=90.0, friction=1 / units.PS),
    n_steps=40, save_every=20, chunk_steps=20, temperature=90.0, key=jax.random.key(1), progress=False,
)
more = difmd.simulate(
    potential, params, run.state, difmd.velocity_verlet(dt=4 * units.FS), n_steps=20, save_every=10,
    progress=False,
)
np.savez(sys.argv[2], positions=more.positions, stress=run.stress, energy=more.potential_energy)
"""


def test_four_devices_give_what_one_gives(tmp_path):
    """Lists are rebuilt when one of a device's share asks for it, so that sums may round another way."""
    found = []
    for n_devices in (1, 4):
        file = tmp_path / f"{n_devices}.npz"
        command = [sys.executable, "-c", SCRIPT, str(n_devices), str(file)]
        environment = {**os.environ, "DIFMD_CACHE": "off"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
        found.append(np.load(file))
    one, four = found
    assert one["positions"].shape == (2, 8, 32, 3)
    assert not np.array_equal(one["positions"][:, 0], one["positions"][:, 1])
    for name in ("positions", "stress", "energy"):
        np.testing.assert_allclose(four[name], one[name], rtol=1e-9, atol=1e-10)
