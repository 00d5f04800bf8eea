"""The automatic skin has the least expected cost."""

import numpy as np
import pytest

from difmd import units
from difmd.neighbors import automatic_skin


def test_skin_has_the_least_cost():
    mass, dt, cutoff = 39.95, 5 * units.FS, 8.5
    speed = 3.5 * np.sqrt(units.KB * 1000 / mass)
    x = np.linspace(0.01, 0.5, 5000)
    cost = (1 + x) ** 3 + 4 * 2 * speed * dt / (x * cutoff)
    best = x[np.argmin(cost)] * cutoff
    np.testing.assert_allclose(automatic_skin([mass, 2 * mass], dt=dt, cutoff=cutoff), best, rtol=0.03)


@pytest.mark.parametrize(
    ("mass", "femtoseconds", "cutoff"), [(39.95, 5.0, 8.5), (28.09, 1.0, 3.8), (1.0, 0.5, 6.0)]
)
@pytest.mark.parametrize("kelvin", [50.0, 300.0, 10_000.0])
def test_no_temperature_costs_more_than_an_eighth(mass, femtoseconds, cutoff, kelvin):
    """By the same model, with the speed of that temperature."""
    dt = femtoseconds * units.FS
    x = np.linspace(0.01, 0.8, 5000)

    def cost(x):
        return (1 + x) ** 3 + 4 * 2 * 3.5 * np.sqrt(units.KB * kelvin / mass) * dt / (x * cutoff)

    chosen = automatic_skin([mass], dt=dt, cutoff=cutoff) / cutoff
    assert cost(chosen) < 1.125 * cost(x).min()
