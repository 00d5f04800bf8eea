"""Stochastic velocity rescaling, Nosé–Hoover chains and the Berendsen thermostat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd import units
from difmd.errors import InputError
from difmd.integrators import degrees_of_freedom, draw_momenta, kinetic_energy
from difmd.integrators.csvr import rescaling
from difmd.neighbors import neighbor_list

T = 120.0
KT = units.KB * T
DT, TAU = 4 * units.FS, 0.1 * units.PS
POTENTIAL = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=7.0, truncation=difmd.switched(6.0))
PARAMS = POTENTIAL.init(jax.random.key(0))
INTEGRATORS = {"csvr": difmd.csvr, "nose_hoover": difmd.nose_hoover}


def crystal(n=3):
    x = 5.4 * np.stack(np.meshgrid(*[np.arange(n)] * 3), -1).reshape(-1, 1, 3)
    basis = 2.7 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    x = (x + basis).reshape(-1, 3)
    return difmd.make_system(x, np.full(len(x), 18), masses=np.linspace(20, 60, len(x)), cell=[5.4 * n] * 3)


def made(name, **changes):
    return INTEGRATORS[name](**{"dt": DT, "temperature": T, "time_constant": TAU, **changes})


def run(name, n_steps, *, save_every=1, system=None, **changes):
    system = crystal() if system is None else system
    return difmd.simulate(
        POTENTIAL, PARAMS, system, made(name, **changes), n_steps=n_steps, save_every=save_every,
        initial_temperature=2 * T, key=jax.random.key(1), progress=False,
    )  # fmt: skip


def drift(integrator, n_steps, dt):
    """Largest change of U + K + reservoir in a rollout [eV]."""
    system = crystal()
    neighbors = neighbor_list(system, cutoff=7.0, skin=1.0)
    momenta = draw_momenta(jax.random.key(1), system, T)
    state = difmd.initialize(
        POTENTIAL, PARAMS, system, integrator, neighbors, momenta=momenta, key=jax.random.key(2)
    )

    def energy(state, neighbors):
        potential = POTENTIAL.apply(PARAMS, state.system, neighbors)
        return potential + kinetic_energy(state.system, state.momenta) + integrator.reservoir(state)

    done = jax.jit(
        lambda state: difmd.rollout(
            POTENTIAL, PARAMS, state, integrator, neighbors, n_steps=n_steps, save_every=1, save=energy
        )
    )(state)
    assert int(done.status.flags) == 0
    return float(jnp.max(jnp.abs(done.frames - energy(state, neighbors))))


@pytest.mark.quick("nose_hoover")
@pytest.mark.parametrize("name", INTEGRATORS)
def test_energy_with_reservoir_is_conserved_to_second_order(name):
    """Halving the step for the same duration divides the error by four."""
    # A strong coupling, to make errors visible.
    errors = [
        drift(made(name, dt=dt, time_constant=TAU / 2), round(0.25 * units.PS / dt), dt)
        for dt in (6 * units.FS, 3 * units.FS)
    ]
    assert errors[0] < 0.02 * 108 * KT
    assert 3.0 < errors[0] / errors[1] < 5.5


@pytest.mark.quick("csvr")
@pytest.mark.parametrize("name", INTEGRATORS)
def test_momenta_have_no_drift_and_reach_the_temperature(name):
    done = run(name, 1500, save_every=5)
    total = np.abs(np.sum(done.momenta, axis=1)).max()
    assert total < 1e-9 * np.abs(done.momenta).sum(axis=(1, 2)).mean()
    late = done.temperature[150:]
    # K fluctuates by √(2/N_f) = 8 % and relaxes within about 0.1 ps.
    assert abs(late.mean() / T - 1) < 0.05
    assert 0.04 < late.std() / T < 0.14


def test_rescaling_draws_the_canonical_distribution():
    """With a time constant far below the step K has a gamma distribution, whatever it was before."""
    n_free, n = 9.0, 40_000
    keys = jax.random.split(jax.random.key(3), n)
    factor = jax.vmap(
        lambda key: rescaling(
            jnp.asarray(5 * KT), n_free=jnp.asarray(n_free), decay=jnp.asarray(1e-12),
            temperature=jnp.asarray(T), key=key,
        )
    )(keys)  # fmt: skip
    energy = np.asarray(factor) ** 2 * 5 * KT
    assert energy.mean() == pytest.approx(0.5 * n_free * KT, rel=5 * np.sqrt(2 / n_free / n))
    # The variance of a variance: ⟨x⁴⟩ of a gamma distribution.
    spread = np.sqrt((2 + 12 / n_free) / n)
    assert energy.var() == pytest.approx(0.5 * n_free * KT**2, rel=5 * spread)


def test_rescaling_preserves_the_canonical_distribution():
    n_free, n = 12, 40_000
    rng = np.random.default_rng(4)
    before = jnp.asarray(KT * rng.gamma(n_free / 2, size=n))
    factor = jax.vmap(
        lambda kinetic, key: rescaling(
            kinetic,
            n_free=jnp.asarray(float(n_free)),
            decay=jnp.asarray(0.7),
            temperature=jnp.asarray(T),
            key=key,
        )
    )(before, jax.random.split(jax.random.key(5), n))
    after = np.asarray(factor**2 * before)
    assert after.mean() == pytest.approx(0.5 * n_free * KT, rel=5 * np.sqrt(2 / n_free / n))
    assert after.var() == pytest.approx(0.5 * n_free * KT**2, rel=5 * np.sqrt((2 + 12 / n_free) / n))
    # The correlation of one step is c.
    correlation = np.corrcoef(before, after)[0, 1]
    assert correlation == pytest.approx(0.7, abs=5 / np.sqrt(n))


def test_chain_is_time_reversible():
    """Reversed velocities of atoms and thermostats lead back to the initial state."""
    system = crystal()
    neighbors = neighbor_list(system, cutoff=7.0, skin=2.0)
    integrator = made("nose_hoover")
    momenta = draw_momenta(jax.random.key(1), system, T)
    first = difmd.initialize(
        POTENTIAL, PARAMS, system, integrator, neighbors, momenta=momenta, key=jax.random.key(2)
    )

    @jax.jit
    def turned(state):
        done = difmd.rollout(
            POTENTIAL, PARAMS, state, integrator, neighbors, n_steps=50, save_every=50, rebuild_every=50
        ).state
        return done.replace(momenta=-done.momenta, bath=done.bath._replace(velocities=-done.bath.velocities))

    back = turned(turned(first))
    np.testing.assert_allclose(back.system.positions, first.system.positions, atol=1e-9)
    np.testing.assert_allclose(back.momenta, first.momenta, atol=1e-8)
    np.testing.assert_allclose(back.bath.positions, first.bath.positions, atol=1e-9)


def test_padding_has_no_degrees_of_freedom():
    system = crystal(1)
    padded = difmd.make_system(
        np.concatenate([system.positions, np.zeros((3, 3))]), [18] * 4 + [0] * 3, cell=np.asarray(system.cell)
    )
    assert float(degrees_of_freedom(padded)) == float(degrees_of_freedom(system)) == 9


@pytest.mark.slow
@pytest.mark.parametrize("name", INTEGRATORS)
def test_gradient_in_temperature_and_time_constant(name):
    """Against central differences, for a few steps."""
    system = crystal(2)
    neighbors = neighbor_list(system, cutoff=7.0, skin=1.0)
    momenta = draw_momenta(jax.random.key(1), system, T)

    def end(theta):
        integrator = made(name, temperature=theta[0] * T, time_constant=theta[1] * TAU)
        state = difmd.initialize(
            POTENTIAL, PARAMS, system, integrator, neighbors, momenta=momenta, key=jax.random.key(2)
        )
        done = difmd.rollout(POTENTIAL, PARAMS, state, integrator, neighbors, n_steps=20, save_every=20)
        return kinetic_energy(system, done.state.momenta)

    value = jax.jit(end)
    theta, h = jnp.ones(2), 1e-4
    slopes = jax.jit(jax.grad(end))(theta)
    for k in range(2):
        step = h * jnp.eye(2)[k]
        assert slopes[k] == pytest.approx(
            float((value(theta + step) - value(theta - step)) / (2 * h)), rel=1e-5
        )


@pytest.mark.parametrize("name", INTEGRATORS)
@pytest.mark.parametrize("change", [{"dt": 0.0}, {"temperature": -1.0}, {"time_constant": 0.0}])
def test_bad_settings_raise(name, change):
    with pytest.raises(InputError, match=next(iter(change))):
        made(name, **change)


def test_empty_chain_raises():
    with pytest.raises(InputError, match="length"):
        made("nose_hoover", length=0)


@pytest.mark.slow
def test_berendsen_reaches_the_temperature_and_warns():
    with pytest.warns(UserWarning, match="no ensemble"):
        integrator = difmd.integrators.berendsen(dt=DT, temperature=T, time_constant=TAU)
    done = difmd.simulate(
        POTENTIAL, PARAMS, crystal(), integrator, n_steps=600, save_every=10, initial_temperature=2 * T,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    assert abs(done.temperature[40:].mean() / T - 1) < 0.03
