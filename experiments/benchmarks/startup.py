"""From the start of the interpreter to the end of the first step of 4000 atoms; prints seconds."""

import sys
import time

import numpy as np

STARTED = float(sys.argv[1])

import jax  # noqa: E402

import difmd  # noqa: E402
from difmd import units  # noqa: E402

imported = time.time() - STARTED
difmd.enable_cache()
n, length = 10, (4000 / 0.8442) ** (1 / 3)
corners = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
system = difmd.make_system(
    (corners + basis).reshape(-1, 3) * length / n, np.full(4000, 18), masses=np.ones(4000), cell=[length] * 3
)
potential = difmd.lennard_jones(["Ar"], sigma=1.0, epsilon=1.0, cutoff=2.5)
difmd.simulate(
    potential,
    potential.init(jax.random.key(0)),
    system,
    difmd.velocity_verlet(dt=0.005),
    n_steps=1,
    save_every=1,
    initial_temperature=1.0 / units.KB,
    key=jax.random.key(1),
    progress=False,
)
print(imported, time.time() - STARTED)
