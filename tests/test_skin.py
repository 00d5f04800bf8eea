"""The skin that is chosen is that of the least expected cost."""

import numpy as np

from difmd import units
from difmd.neighbors import automatic_skin


def test_skin_has_the_least_cost():
    mass, dt, cutoff = 39.95, 5 * units.FS, 8.5
    speed = 3.5 * np.sqrt(units.KB * 1000 / mass)
    x = np.linspace(0.01, 0.5, 5000)
    cost = (1 + x) ** 3 + 4 * 2 * speed * dt / (x * cutoff)
    best = x[np.argmin(cost)] * cutoff
    np.testing.assert_allclose(automatic_skin([mass, 2 * mass], dt=dt, cutoff=cutoff), best, rtol=0.03)
