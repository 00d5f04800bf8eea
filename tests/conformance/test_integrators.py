"""Integrators on analytic problems, and initial momenta."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from difmd import units
from difmd.errors import InputError
from difmd.integrators import (
    draw_momenta,
    kinetic_energy,
    langevin,
    martyna_tobias_klein,
    remove_drift,
    velocity_verlet,
)
from difmd.system import System, make_system

STIFFNESS = 0.7  # eV/Å²
CENTER = np.array([[0.0, 0, 0], [3.0, 1, 0], [-2.0, 4, 1]])
# Factories of deterministic integrators, as functions of dt.
DETERMINISTIC = {
    "velocity_verlet": lambda dt: velocity_verlet(dt=dt),
    "langevin without friction": lambda dt: langevin(dt=dt, temperature=300.0, friction=0.0),
}


def spring(system: System) -> jax.Array:
    return -STIFFNESS * (system.positions - CENTER)


@pytest.fixture(scope="module")
def oscillators():
    """Three displaced oscillators with different frequencies, and their momenta."""
    offset = np.array([[0.3, -0.1, 0.2], [0.0, 0.4, -0.3], [-0.2, 0.1, 0.5]])
    system = make_system(CENTER + offset, [3, 11, 19])
    momenta = jnp.array([[0.2, 0.5, -0.4], [-1.0, 0.3, 0.2], [0.7, -0.6, 0.1]])
    return system, momenta


@jax.jit
def final(integrator, system, momenta, n_steps):
    """The state after `n_steps`, which is traced, so that all numbers of steps compile once."""
    state = integrator.init(system, momenta, jax.random.key(0), spring)
    return lax.fori_loop(0, n_steps, lambda _, s: integrator.step(s, spring), state)


def exact(system, momenta, time):
    mass = np.asarray(system.masses)[:, None]
    omega = np.sqrt(STIFFNESS / mass)
    offset, phase = np.asarray(system.positions) - CENTER, omega * time
    positions = CENTER + offset * np.cos(phase) + momenta / (mass * omega) * np.sin(phase)
    return positions, momenta * np.cos(phase) - mass * omega * offset * np.sin(phase)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_second_order_in_the_time_step(name, oscillators):
    system, momenta = oscillators
    time = 20.0
    errors = []
    for n_steps in (100, 200, 400):
        state = final(DETERMINISTIC[name](time / n_steps), system, momenta, n_steps)
        assert int(state.step) == n_steps
        truth = exact(system, momenta, time)
        found = (state.system.positions, state.momenta)
        errors.append([np.linalg.norm(a - b) for a, b in zip(found, truth, strict=True)])
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert np.all(np.array(errors[-1]) < 1e-2)
    np.testing.assert_allclose(ratios, 4, atol=0.2)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_time_reversal(name, oscillators):
    system, momenta = oscillators
    integrator = DETERMINISTIC[name](0.3)
    there = final(integrator, system, momenta, 500)
    assert np.abs(there.system.positions - system.positions).max() > 0.1
    back = final(integrator, there.system, -there.momenta, 500)
    np.testing.assert_allclose(back.system.positions, system.positions, atol=1e-9)
    np.testing.assert_allclose(-back.momenta, momenta, atol=1e-9)


def test_langevin_without_friction_is_velocity_verlet(oscillators):
    one, other = (final(make(0.3), *oscillators, 300) for make in DETERMINISTIC.values())
    np.testing.assert_allclose(one.system.positions, other.system.positions, atol=1e-10)
    np.testing.assert_allclose(one.momenta, other.momenta, atol=1e-10)
    np.testing.assert_allclose(one.forces, other.forces, atol=1e-10)


def test_state_holds_the_forces_at_its_positions(oscillators):
    for integrator in (velocity_verlet(dt=0.3), langevin(dt=0.3, temperature=9.0, friction=0.1)):
        state = final(integrator, *oscillators, 7)
        np.testing.assert_allclose(state.forces, spring(state.system), rtol=1e-12)


def test_other_settings_do_not_recompile(oscillators):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(integrator):
        state = integrator.init(*oscillators, jax.random.key(0), spring)
        return integrator.step(state, spring).momenta

    cold = run(langevin(dt=0.3, temperature=10.0, friction=0.1))
    hot = run(langevin(dt=0.2, temperature=300.0, friction=0.2))
    assert jnp.abs(cold - hot).max() > 1e-3


def test_padding_does_not_move():
    system = make_system([[0.0, 0, 0], [3, 0, 0], [0, 0, 0]], [18, 18, 0])
    momenta = draw_momenta(jax.random.key(0), system, 100.0)
    for integrator in (
        velocity_verlet(dt=0.3),
        langevin(dt=0.3, temperature=100.0, friction=0.5),
    ):
        state = integrator.init(system, momenta, jax.random.key(1), lambda s: 0 * s.positions)
        for _ in range(3):
            state = integrator.step(state, lambda s: 0 * s.positions)
        moved = jnp.abs(state.system.positions - system.positions).max(axis=1)
        assert moved[2] == 0 and (moved[:2] > 1e-3).all() and not state.momenta[2].any()


def test_langevin_samples_the_canonical_variances_of_an_oscillator():
    """10 000 independent atoms: ⟨p²⟩ = mkT; ⟨x²⟩ = kT/k exactly for BAOAB. Five sigma."""
    n_atoms, temperature = 10_000, 250.0
    system = System(
        positions=jnp.zeros((n_atoms, 3)),
        atomic_numbers=jnp.full(n_atoms, 18, jnp.int32),
        masses=jnp.full(n_atoms, 39.9),
        cell=jnp.zeros((3, 3)),
        pbc=jnp.zeros(3, bool),
    )
    dt = np.sqrt(39.9 / STIFFNESS)  # ω Δt = 1
    bath = langevin(dt=dt, temperature=temperature, friction=0.5 / dt)

    def force(system):
        return -STIFFNESS * system.positions

    @jax.jit
    def run(key):
        state = bath.init(system, jnp.zeros((n_atoms, 3)), key, force)
        return lax.fori_loop(0, 200, lambda _, s: bath.step(s, force), state)

    state = run(jax.random.key(3))
    kT = units.KB * temperature
    sigma = np.sqrt(2 / (3 * n_atoms))
    assert abs(np.mean(state.system.positions**2) * STIFFNESS / kT - 1) < 5 * sigma
    # Momenta have a time step error: ⟨p²⟩/mkT = 1 − (ωΔt)²/4.
    assert abs(np.mean(state.momenta**2) / 39.9 / kT - (1 - 1 / 4)) < 5 * sigma


def test_momenta_have_no_drift_and_the_right_temperature():
    n_atoms, temperature, n_draws = 200, 130.0, 50
    rng = np.random.default_rng(0)
    numbers = np.where(np.arange(n_atoms + 5) < n_atoms, rng.integers(1, 80, n_atoms + 5), 0)
    system = make_system(rng.uniform(0, 50, (n_atoms + 5, 3)), numbers)
    keys = jax.random.split(jax.random.key(1), n_draws)
    momenta = jax.jit(jax.vmap(lambda k: draw_momenta(k, system, temperature)))(keys)
    np.testing.assert_allclose(momenta.sum(axis=1), 0, atol=1e-11)
    assert not np.any(momenta[:, n_atoms:]) and len({float(p) for p in momenta[:, 0, 0]}) == n_draws
    freedom = 3 * n_atoms - 3
    energies = jax.vmap(lambda p: kinetic_energy(system, p))(momenta)
    measured = float(energies.mean()) / (0.5 * freedom * units.KB)
    assert abs(measured / temperature - 1) < 5 * np.sqrt(2 / freedom / n_draws)
    # For light and heavy atoms.
    light = np.asarray(system.masses)[:n_atoms] < 80
    for group in (light, ~light):
        share = np.asarray(momenta)[:, :n_atoms][:, group] ** 2
        share = share / np.asarray(system.masses)[:n_atoms][group][:, None]
        assert abs(share.mean() / (units.KB * temperature) - 1) < 5 * np.sqrt(2 / share.size) + 2 / n_atoms


def test_remove_drift_keeps_relative_velocities():
    system = make_system([[0, 0, 0], [3.0, 0, 0], [9.0, 0, 0]], [1, 1, 0], masses=[2.0, 3.0, 1.0])
    momenta = jnp.array([[1.0, 0, 4], [2.0, -1, 1], [0.0, 0, 0]])
    at_rest = remove_drift(momenta, system)
    np.testing.assert_allclose(at_rest.sum(axis=0), 0, atol=1e-15)
    relative = lambda p: p[0] / 2.0 - p[1] / 3.0  # noqa: E731
    np.testing.assert_allclose(relative(at_rest), relative(momenta), rtol=1e-14)
    assert not np.any(at_rest[2])


BAD = {
    "zero dt": (lambda: velocity_verlet(dt=0.0), "dt = 0.0"),
    "negative dt": (lambda: velocity_verlet(dt=-1.0), "dt = -1.0"),
    "nan dt": (lambda: velocity_verlet(dt=np.nan), "dt = nan"),
    "langevin dt": (lambda: langevin(dt=0.0, temperature=1.0, friction=1.0), "dt = 0.0"),
    "temperature": (lambda: langevin(dt=1.0, temperature=0.0, friction=1.0), "temperature = 0.0 K"),
    "infinite": (lambda: langevin(dt=1.0, temperature=np.inf, friction=1.0), "temperature = inf"),
    "friction": (lambda: langevin(dt=1.0, temperature=1.0, friction=-0.1), "friction = -0.1"),
    "nan friction": (lambda: langevin(dt=1.0, temperature=1.0, friction=np.nan), "friction = nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_raise(case):
    make, message = BAD[case]
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("integrator", "text"),
    [
        (velocity_verlet(dt=2 * units.FS), "velocity_verlet(dt=2 fs)"),
        (
            langevin(dt=4 * units.FS, temperature=120, friction=1 / units.PS),
            "langevin(dt=4 fs, temperature=120 K, friction=1 /ps)",
        ),
        (
            martyna_tobias_klein(
                dt=units.FS, temperature=300.0, pressure=units.BAR, time_constant=0.1 * units.PS,
                piston_time=units.PS,
            ),
            "martyna_tobias_klein(dt=1 fs, temperature=300 K, pressure=1 bar, time_constant=0.1 ps, "
            "piston_time=1 ps, coupling=isotropic, length=3)",
        ),
    ],
)  # fmt: skip
def test_summary_is_the_call_of_the_factory(integrator, text):
    assert repr(integrator) == text
    stacked = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), integrator)
    assert "dt=float64[2]" in repr(stacked)


def test_settings_are_arguments_of_the_factory():
    given = {"dt": 0.4, "temperature": 120.0, "friction": 0.01}
    assert langevin(**given).settings == given
