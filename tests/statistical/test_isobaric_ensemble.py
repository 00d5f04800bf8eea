"""Every barostat samples the isobaric ensemble: volumes at two pressures, and an equation of state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd import units
from difmd._internal.replicas import map_replicas
from difmd.integrators import draw_momenta
from difmd.neighbors import grow, neighbor_list
from difmd.observables.statistics import over_replicas
from difmd.validation.histograms import log_ratio_slope

pytestmark = pytest.mark.slow

DT, T = 4 * units.FS, 60.0
N_REPLICAS, N_FRAMES, EVERY = 32, 600, 20
PRESSURES = (100 * units.BAR, 400 * units.BAR)
POTENTIAL = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=6.5, truncation=difmd.switched(5.5))
PARAMS = POTENTIAL.init(jax.random.key(0))
BAROSTATS = {
    "cell_rescaling": lambda **given: difmd.cell_rescaling(
        dt=DT, temperature=T, friction=2 / units.PS, time_constant=0.2 * units.PS,
        compressibility=5e-5 / units.BAR, **given,
    ),
    "martyna_tobias_klein": lambda **given: difmd.martyna_tobias_klein(
        dt=DT, temperature=T, time_constant=0.2 * units.PS, piston_time=0.4 * units.PS, **given
    ),
}  # fmt: skip


def crystal():
    """Solid argon, which keeps its shape whatever the coupling; half of its atoms heavier."""
    x = 5.45 * np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 1, 3)
    x = (x + 2.725 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])).reshape(-1, 3)
    masses = np.where(np.arange(len(x)) % 2, 80.0, 20.0)
    return difmd.make_system(x, np.full(len(x), 18), masses=masses, cell=[5.45 * 3] * 3)


def volumes(integrator):
    """[replicas, frames], without a quarter at the start."""
    system = crystal()
    neighbors = neighbor_list(system, cutoff=6.5, skin=1.5, shrink=1.1)
    # Room for what a rollout, unlike a simulation, cannot repair.
    neighbors = grow(system, neighbors, at_least=1.6)

    def one(key):
        keys = jax.random.split(key)
        momenta = draw_momenta(keys[0], system, 2 * T)
        state = difmd.initialize(
            POTENTIAL, PARAMS, system, integrator, neighbors, momenta=momenta, key=keys[1]
        )
        done = difmd.rollout(
            POTENTIAL, PARAMS, state, integrator, neighbors, n_steps=EVERY * N_FRAMES, save_every=EVERY,
            save=lambda state, neighbors: (state.system.volume, state.momenta),
        )  # fmt: skip
        return done.frames, done.status

    keys = jax.random.split(jax.random.key(5), N_REPLICAS)
    (found, momenta), status = jax.jit(map_replicas(one, N_REPLICAS))(keys)
    assert not np.any(np.asarray(status.flags))
    late = slice(N_FRAMES // 4, None)
    kelvin = difmd.trajectory.kinetic_temperature(system, np.asarray(momenta)[:, late])
    mean = over_replicas(kelvin.mean(axis=1))
    # BAOAB momenta are those of the canonical ensemble but for (ωΔt)²/4.
    assert abs(mean.value / T - 1) < 5 * mean.stderr / T + 0.01
    return np.asarray(found)[:, late]


@pytest.mark.parametrize("name", BAROSTATS)
@pytest.mark.parametrize("coupling", ["isotropic", "anisotropic", "triclinic"])
def test_volumes_at_two_pressures(name, coupling):
    """ln of the ratio of histograms is linear in V with the slope β (P₁ − P₂); replicas are independent."""
    low, high = (volumes(BAROSTATS[name](pressure=p, coupling=coupling)) for p in PRESSURES)
    expected = (PRESSURES[0] - PRESSURES[1]) / (units.KB * T)

    parts = np.array_split(np.arange(N_REPLICAS), 8)
    found = over_replicas(np.array([log_ratio_slope(low[part], high[part]) for part in parts]))
    assert found.stderr < 0.1 * abs(expected)
    assert abs(found.value - expected) < 5 * found.stderr


@pytest.mark.parametrize("density", [0.820, 0.840, 0.860])
@pytest.mark.parametrize("name", BAROSTATS)
def test_lennard_jones_equation_of_state(name, density):
    """The density at the tabulated pressure within 1 %: NIST SRSW (doi:10.18434/T4M88Q), rc = 3 with tail."""
    kelvin, pressure = {0.820: (0.852, 0.573), 0.840: (0.851, 0.910), 0.860: (0.849, 1.282)}[density]
    lj = difmd.lennard_jones(["Ar"], sigma=1.0, epsilon=1.0, cutoff=3.0, tail_correction=True)
    params = lj.init(jax.random.key(0))
    temperature = kelvin / units.KB
    edge = (500 / 0.8) ** (1 / 3)
    x = edge / 5 * np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 1, 3)
    x = (x + edge / 10 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])).reshape(-1, 3)
    system = difmd.make_system(x, np.full(500, 18), masses=np.ones(500), cell=[edge] * 3)
    systems = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), system)
    given = {"dt": 0.005, "pressure": pressure, "temperature": difmd.ramp([0, 3000, 5000], [
        2 * temperature, 2 * temperature, temperature,
    ])}  # fmt: skip
    integrator = {
        "cell_rescaling": lambda: difmd.cell_rescaling(
            **given, friction=1.0, time_constant=0.5, compressibility=0.1
        ),
        "martyna_tobias_klein": lambda: difmd.martyna_tobias_klein(
            **given, time_constant=0.2, piston_time=0.5
        ),
    }[name]()
    run = difmd.simulate(
        lj, params, systems, integrator, n_steps=20_000, save_every=20, skin=0.35,
        initial_temperature=2 * temperature, key=jax.random.key(1), progress=False,
    )  # fmt: skip
    found = over_replicas(500 / run.volume[400:].mean(axis=0))
    assert found.stderr < 0.003 * density
    assert abs(found.value / density - 1) < 0.01
    inside = over_replicas(run.pressure[400:].mean(axis=0))
    assert abs(inside.value - pressure) < 5 * inside.stderr + 0.02


@pytest.mark.parametrize("name", BAROSTATS)
def test_a_solid_has_the_stress_that_is_asked_for(name):
    """Unequal pressures along the axes, and a shear: each component of the mean inside is that outside."""
    diagonal = np.diag([400.0, 100.0, -200.0])
    shear = np.zeros((3, 3))
    shear[0, 1] = shear[1, 0] = 60.0
    outside = (diagonal + shear) * units.BAR
    systems = jax.tree.map(lambda x: jnp.broadcast_to(x, (16, *x.shape)), crystal())
    run = difmd.simulate(
        POTENTIAL, PARAMS, systems, BAROSTATS[name](pressure=outside, coupling="triclinic"), n_steps=12_000,
        save_every=20, initial_temperature=2 * T, key=jax.random.key(3), progress=False,
    )  # fmt: skip
    late = slice(150, None)
    velocities = run.momenta[late] / np.asarray(systems.masses)[None, ..., None]
    kinetic = np.einsum("fria,frib->frab", run.momenta[late], velocities) / run.volume[late][..., None, None]
    inside = (kinetic - run.stress[late]).mean(axis=0)
    stderr = inside.std(axis=0, ddof=1) / np.sqrt(len(inside))
    assert stderr.max() < 10 * units.BAR
    # A volume that fluctuates has kT/V less inside than outside.
    less = units.KB * T / run.volume[late].mean()
    assert np.all(np.abs(inside.mean(axis=0) - outside) < 5 * stderr + less)
    # Pulled along z, pressed along x, and sheared.
    cells = run.cells[late].mean(axis=(0, 1))
    assert cells[0, 0] < cells[1, 1] < cells[2, 2] and cells[0, 1] + cells[1, 0] < -0.01
