"""Fits of a small liquid to its diffusivity, its structure, and both; interruptions, and reweighting."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from killed import run_killed

from difmd import units
from difmd.errors import InputError
from difmd.fitting import (
    DiffusivityTarget,
    FitError,
    FitInterrupted,
    Sampling,
    Setup,
    StatePointRun,
    StructureTarget,
    fit,
    fit_diffusivity,
    gauss_newton,
    melt,
    produce,
    state_points,
)
from difmd.fitting.liquids.melting import crystal
from difmd.fitting.liquids.states import n_stored, reweighted_states, states_of, store
from difmd.fitting.targets.structure import densities
from difmd.neighbors import find_pairs
from difmd.observables import radial_distribution
from difmd.potentials import lennard_jones, switched
from difmd.sensitivity import reweighting

POINTS = importlib.import_module("difmd.fitting.state_points_term")
DIFFUSIVITIES = importlib.import_module("difmd.fitting.targets.diffusivity")
T, DENSITY = 200.0, 200 * units.KG_PER_M3
# A warm dense gas, in which the criterion for a crystal is safe for so small a box.
SAMPLING = Sampling(
    atomic_number=6, mass=16.043, n_atoms=32, n_replicas=4, n_gradient_replicas=2,
    melt_time=0.1 * units.PS, equilibration_time=0.1 * units.PS, relaxation_time=0.1 * units.PS,
    production_time=0.7 * units.PS, window=(0.16 * units.PS, 0.24 * units.PS),
    gradient_window=(0.16 * units.PS, 0.24 * units.PS), origin_time=0.03 * units.PS, save_every=2, skin=1.5,
)  # fmt: skip
POTENTIAL = lennard_jones(["C"], sigma=3.7, epsilon=140 * units.KB, cutoff=6.0, truncation=switched(5.0))
PARAMS = POTENTIAL.init(jax.random.key(0))
R = 0.2 * np.arange(10, 30) + 0.1
TARGET = StructureTarget(temperature=T, density=DENSITY, r=R, g=np.ones(20))
DIFFUSIVITY = DiffusivityTarget(
    temperature=T, diffusivity=40 * units.D, density=DENSITY, viscosity=12e-6 * units.PA_S
)
SETTINGS = {"key": jax.random.key(0), "progress": False}


@pytest.fixture(scope="module")
def gas():
    """Replicas, and their trajectories with ∂U/∂θ."""
    replicas = melt(
        POTENTIAL, PARAMS, temperature=T, density=DENSITY, sampling=SAMPLING, key=jax.random.key(1)
    )
    done, after = produce(
        POTENTIAL, PARAMS, replicas, temperature=T, sampling=SAMPLING, key=jax.random.key(2),
        with_energy_gradients=True,
    )  # fmt: skip
    return after, done


def to_diffusivity(**changes):
    """A fit of two iterations."""
    return fit_diffusivity(
        POTENTIAL, PARAMS, [DIFFUSIVITY], sampling=SAMPLING, n_iterations=2, **SETTINGS, **changes
    )


@pytest.fixture(scope="module")
def uninterrupted():
    return to_diffusivity()


def structure(states, params=PARAMS, replicas=None):
    """g(r) from states alone."""
    run = StatePointRun(Setup(POTENTIAL, SAMPLING), params, T, replicas, states, None, jax.random.key(0))
    return TARGET.measure(run)


def interrupt(entry):
    raise KeyboardInterrupt


def same(first, second):
    return all(bool(jnp.all(x == y)) for x, y in zip(*map(jax.tree.leaves, (first, second)), strict=True))


@pytest.mark.slow
def test_counts_are_those_of_the_observable(gas):
    after, done = gas
    found = densities(TARGET, done.positions[:2, :3], SAMPLING)
    one = jax.tree.map(lambda x: x[0], after.systems)
    for replica in range(2):
        for frame in range(3):
            system = one.replace(positions=done.positions[replica, frame])
            expected = radial_distribution([system], first=6, second=6, r_max=6.0, n_bins=30)
            np.testing.assert_allclose(found[replica, frame], expected.g[10:], rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(R, expected.r[10:], rtol=1e-12)


@pytest.mark.slow
def test_interrupted_fit_resumes_bit_for_bit(uninterrupted, tmp_path, monkeypatch):
    with pytest.raises(FitInterrupted) as caught:
        to_diffusivity(folder=tmp_path, on_iteration=interrupt)
    assert len(caught.value.partial_result.history) == 1

    def melted_again(*args, **kwargs):
        raise AssertionError("the checkpoint has the liquid")

    monkeypatch.setattr(POINTS, "melt", melted_again)
    resumed = to_diffusivity(folder=tmp_path)
    assert same(resumed.params, uninterrupted.params)
    assert resumed.history == uninterrupted.history
    assert not same(uninterrupted.params, PARAMS)
    for entry in uninterrupted.history:
        assert 10 < entry["diffusivity"]["D_1e-9_m2_s"][0] < 200
        assert entry["diffusivity"]["D_stderr_1e-9_m2_s"][0] > 0


@pytest.mark.slow
def test_derivative_is_that_of_reweighted_states(gas):
    after, done = gas
    found = structure(states_of(done))
    neighbors = jax.tree.map(lambda x: x[0], after.neighbors)
    stored = store(done, after.systems)
    assert stored.energies.shape == (4, n_stored(SAMPLING))

    def at(params):
        return structure(reweighted_states(POTENTIAL, params, stored, neighbors, temperature=T))

    same = at(PARAMS)
    np.testing.assert_allclose(same.g, found.g, rtol=1e-10)
    np.testing.assert_allclose(same.stderr, found.stderr, rtol=1e-8, atol=1e-12)
    assert same.effective == pytest.approx(1.0)
    for name in PARAMS:
        for which in ("gradient", "gradient_stderr"):
            a, b = (getattr(each, which)[name] for each in (same, found))
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
        step = 1e-4 * float(PARAMS[name][0])
        ahead, behind = (at({**PARAMS, name: PARAMS[name] + s}) for s in (step, -step))
        slope = (ahead.g - behind.g) / (2 * step)
        scale = float(jnp.abs(slope).max())
        # Unbiased for four replicas, whose mean is that of the sample.
        np.testing.assert_allclose(0.75 * same.gradient[name][:, 0], slope, rtol=1e-3, atol=1e-4 * scale)
        assert ahead.effective < 1
    near = R > 3.6
    assert (found.stderr[near] > 0).all() and (same.gradient_stderr["sigma"][near] > 0).all()


@pytest.mark.slow
def test_states_are_reused_while_they_represent_the_parameters(monkeypatch, tmp_path):
    """The second iteration simulates nothing; a fit that is interrupted after the first is the same."""
    simulated = []
    true = POINTS.run_state_point
    monkeypatch.setattr(POINTS, "run_state_point", lambda *args: simulated.append(1) or true(*args))

    def run(**changes):
        term = state_points(
            POTENTIAL, PARAMS, [TARGET], sampling=SAMPLING, reuse=reweighting(least_effective=0.1)
        )
        return fit(
            PARAMS, [term], n_iterations=2, optimizer=gauss_newton(max_step=1e-3), **SETTINGS, **changes
        )

    found = run()
    assert len(simulated) == 1
    first, second = (entry["state_points"] for entry in found.history)
    assert first["effective"] == [1.0] and 0.1 < second["effective"][0] < 1
    assert first["g"] != second["g"]
    with pytest.raises(FitInterrupted):
        run(folder=tmp_path, on_iteration=interrupt)
    resumed = run(folder=tmp_path)
    assert len(simulated) == 2
    assert resumed.history == found.history
    assert same(resumed.params, found.params)


def test_without_gradients_there_is_g_alone(gas):
    _, done = gas
    found = structure(states_of(done._replace(energy_gradients=None)))
    assert found.gradient is None and found.g.shape == (20,)


@pytest.mark.slow
def test_one_simulation_serves_all_targets_of_a_state_point(uninterrupted):
    """The diffusivity is the same, bit for bit, with a structure beside it."""
    term = state_points(POTENTIAL, PARAMS, [TARGET, DIFFUSIVITY], sampling=SAMPLING)
    assert term.n_visits == 1
    both = fit(PARAMS, [term], n_iterations=1, **SETTINGS)
    record = both.history[0]["state_points"]
    assert record["D_1e-9_m2_s"] == uninterrupted.history[0]["diffusivity"]["D_1e-9_m2_s"]
    of_g = np.mean((np.array(record["g"][0]) - 1) ** 2)
    assert record["g_deviation"][0] == pytest.approx(np.sqrt(of_g))
    # The mean over both.
    assert both.history[0]["loss"] == pytest.approx((of_g + uninterrupted.history[0]["loss"]) / 2, rel=1e-10)
    assert not np.allclose(both.params["sigma"], uninterrupted.history[1]["params"]["sigma"])


@pytest.mark.slow
def test_an_exploded_gradient_reports_the_horizon(monkeypatch):
    """The error of a derivative is made large, and the Lyapunov exponent is given."""
    true = POINTS.run_state_point

    def noisy(*args):
        (found,), run = true(*args)
        blown = found.gradient._replace(
            gradient_stderr={
                **found.gradient.gradient_stderr,
                "sigma": jnp.asarray([np.exp(10) * found.value]),
            }
        )
        return [found._replace(gradient=blown)], run

    monkeypatch.setattr(POINTS, "run_state_point", noisy)
    monkeypatch.setattr(DIFFUSIVITIES, "lyapunov_exponent_of", lambda *args: 100.0 / units.PS)
    with pytest.raises(FitError, match="has exploded.*kept") as caught:
        to_diffusivity()
    # ln of the error of ∂lnD/∂lnσ, over the rate, less than the window.
    end = 0.24 - (10 + np.log(3.7)) / 100
    assert str(caught.value).endswith(f"use a gradient_window that ends at {end:.2g} ps")
    np.testing.assert_allclose(caught.value.partial_result.params["sigma"], 3.7)


@pytest.mark.slow
def test_bins_may_begin_anywhere(gas):
    """Counts of bins half as wide add up to those of bins that lie half of one aside."""
    _, done = gas
    positions = done.positions[:1, :2]
    fine = StructureTarget(temperature=T, density=DENSITY, r=3.05 + 0.1 * np.arange(20), g=np.ones(20))
    aside = StructureTarget(temperature=T, density=DENSITY, r=3.2 + 0.2 * np.arange(9), g=np.ones(9))
    edges = 3.0 + 0.1 * np.arange(21)
    shells = np.diff(edges**3)
    counts = np.asarray(densities(fine, positions, SAMPLING)) * shells
    pairs = counts[..., 1:-1].reshape(1, 2, 9, 2).sum(axis=-1)
    expected = pairs / shells[1:-1].reshape(9, 2).sum(axis=-1)
    np.testing.assert_allclose(densities(aside, positions, SAMPLING), expected, rtol=1e-9, atol=1e-12)


def test_unmeasurable_targets_are_refused(gas):
    far = dataclasses.replace(TARGET, r=R + 8.0)
    with pytest.raises(InputError, match="beyond half of the box"):
        state_points(POTENTIAL, PARAMS, [far], sampling=SAMPLING)
    few = [gas[0]._replace(systems=jax.tree.map(lambda x: x[:2], gas[0].systems))]
    with pytest.raises(InputError, match=r"\[2, 32\].*4 of 32"):
        state_points(POTENTIAL, PARAMS, [TARGET], sampling=SAMPLING, replicas=few)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"weight": 0.0}, "weight"),
        ({"g": np.ones(3)}, "shapes"),
        ({"r": R**1.2}, "one width"),
        ({"r": R[::-1].copy()}, "one width"),
        ({"g": np.full(20, np.nan)}, "finite"),
        ({"stderr": np.zeros(20)}, "stderr"),
        ({"stderr": np.ones(3)}, "stderr has shape"),
    ],
)
def test_bad_targets_are_refused(change, culprit):
    with pytest.raises(InputError, match=culprit):
        dataclasses.replace(TARGET, **change)


KILLED = """
import sys
import jax, numpy as np
from test_fit_liquid import DIFFUSIVITY, PARAMS, POTENTIAL, SAMPLING, SETTINGS, TARGET
from difmd.fitting import fit, state_points

found = fit(
    PARAMS, [state_points(POTENTIAL, PARAMS, [DIFFUSIVITY, TARGET], sampling=SAMPLING)], n_iterations=80,
    folder=sys.argv[1], on_iteration=lambda _: print("x", end="", flush=True), **SETTINGS,
)
np.savez(sys.argv[2], **{k: np.asarray(v) for k, v in found.params.items()}, loss=found.best_loss)
"""


@pytest.mark.slow
def test_killed_fit_of_a_liquid_ends_with_the_same_bits(tmp_path):
    """SIGKILL at 20 random moments: while it starts or goes on again, and between iterations."""
    assert run_killed(KILLED, tmp_path / "whole", tmp_path / "uninterrupted.npz", None)
    rng = np.random.default_rng(2)
    folder, out = tmp_path / "killed", tmp_path / "killed.npz"
    for _ in range(8):
        assert not run_killed(KILLED, folder, out, rng.uniform(0, 10), at_once=True)
    for _ in range(12):
        assert not run_killed(KILLED, folder, out, rng.uniform(0, 0.2))
    assert run_killed(KILLED, tmp_path / "killed", tmp_path / "killed.npz", None)
    uninterrupted, killed = np.load(tmp_path / "uninterrupted.npz"), np.load(tmp_path / "killed.npz")
    for name in ("sigma", "epsilon", "loss"):
        np.testing.assert_array_equal(uninterrupted[name], killed[name])


@pytest.mark.quick("100", "108")
@pytest.mark.parametrize("n_atoms", [100, 108, 346])
def test_a_crystal_of_any_number_of_atoms(n_atoms):
    """Sites of fcc, some of them empty where it is not 4 n³."""
    sampling = dataclasses.replace(SAMPLING, n_atoms=n_atoms)
    system = crystal(DENSITY, sampling)
    assert system.n_atoms == n_atoms
    np.testing.assert_allclose(n_atoms * 16.043 / system.volume, DENSITY, rtol=1e-12)
    *_, distances = find_pairs(system.positions, system.cell, system.pbc, 0.8 * 8.0)
    spacing = (4 * np.ceil((n_atoms / 4) ** (1 / 3) - 1e-9) ** 3 / float(system.volume)) ** (-1 / 3)
    assert distances.min() == pytest.approx(2 ** (1 / 6) * spacing)


@pytest.mark.slow
def test_a_box_with_empty_sites_melts():
    sampling = dataclasses.replace(SAMPLING, n_atoms=50)
    replicas = melt(
        POTENTIAL, PARAMS, temperature=T, density=DENSITY, sampling=sampling, key=jax.random.key(3)
    )
    assert replicas.systems.positions.shape == (4, 50, 3)
    assert np.isfinite(replicas.systems.positions).all()
