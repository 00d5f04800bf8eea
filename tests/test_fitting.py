"""Fits: tables of targets, checkpoints, optimiser, gradients, and `fit_diffusivity` as a whole."""

import dataclasses
import errno
import importlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from difmd import datasets, units
from difmd.errors import InputError
from difmd.fitting import (
    DiffusivityTarget,
    FitError,
    FitInterrupted,
    Replicas,
    Sampling,
    StatePoint,
    absolute_residual,
    at_temperatures,
    fit_diffusivity,
    gauss_newton,
    identity,
    logarithmic,
    read_targets,
    relative_residual,
)
from difmd.fitting.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd.fitting.liquid import crystal
from difmd.gradients import EquilibriumGradient, equilibrium_gradient
from difmd.gradients.diffusion import DiffusionWindow, diffusion_sample
from difmd.integrators import draw_momenta
from difmd.neighbors import neighbor_list
from difmd.observables import Diffusivity, Estimate
from difmd.potentials import lennard_jones, switched

FIT = importlib.import_module("difmd.fitting.diffusivity")
UNIT = 1e-9 * units.M2_PER_S
HEADER = "temperature_K,diffusivity_1e-9_m2_s,density_kg_m3,viscosity_uPa_s"
GOOD = "99,3.03,440.26,160.0"


# Targets


# D [1e-9 m²/s], density [kg/m³] and viscosity [µPa·s] of SCIENCE.md.
METHANE = {
    91: (2.23, 451.07, 203.8),
    93: (2.41, 448.40, 191.0),
    95: (2.63, 445.71, 179.6),
    97: (2.77, 442.99, 169.3),
    99: (3.03, 440.26, 160.0),
    101: (3.18, 437.50, 151.5),
    103: (3.48, 434.72, 143.8),
    105: (3.73, 431.92, 136.7),
    107: (3.94, 429.08, 130.2),
    109: (4.04, 426.22, 124.2),
}


def test_table_that_ships():
    targets = read_targets(datasets.methane_liquid())
    assert [t.temperature for t in targets] == list(METHANE)
    for target in targets:
        d, density, viscosity = METHANE[round(target.temperature)]
        # D, density and viscosity in SI, from the definition of the internal units.
        time = 1e-10 * np.sqrt(1.66053906660e-27 / 1.602176634e-19)
        assert target.diffusivity * 1e-20 / time == pytest.approx(d * 1e-9, rel=1e-9)
        assert target.density * 1.66053906660e-27 * 1e30 == pytest.approx(density, rel=1e-9)
        assert target.viscosity * 1.602176634e-19 * 1e30 * time == pytest.approx(viscosity * 1e-6, rel=1e-9)


def test_comments_other_columns_and_no_finite_size(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(f"# source\n\nnote,{HEADER.rsplit(',', 1)[0]}\n# more\nx,99,3.03,440.26\n\n")
    (target,) = read_targets(table, finite_size=False)
    assert target.viscosity is None
    assert target.diffusivity == pytest.approx(3.03 * UNIT)
    with pytest.raises(InputError, match="viscosity_uPa_s"):
        read_targets(table)


def test_byte_order_mark_of_spreadsheets(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8-sig")
    assert read_targets(table)[0].temperature == 99


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        (HEADER, "no rows"),
        (f"{HEADER.replace('density', 'rho')}\n{GOOD}", "no column density_kg_m3"),
        (f"{HEADER}\n{GOOD}\n91,-2.23,451.07,203.8", "line 3: diffusivity_1e-9_m2_s = '-2.23'"),
        (f"# c\n\n{HEADER}\n# c\n91,2.23,451.07,0", "line 5: viscosity_uPa_s = '0'"),
        (f"{HEADER}\n91,2.23,dense,203.8", "line 2: density_kg_m3 = 'dense'"),
        (f"{HEADER}\nnan,2.23,451.07,203.8", "line 2: temperature_K = 'nan'"),
        (f"{HEADER}\n91,inf,451.07,203.8", "line 2: diffusivity_1e-9_m2_s = 'inf'"),
        (f"{HEADER}\n91,2.23,451.07", "line 2: viscosity_uPa_s = None"),
        (f"{HEADER}\n91,,451.07,203.8", "line 2: diffusivity_1e-9_m2_s = ''"),
        (b"\xff\xfe\x00\x81", "t.csv"),
    ],
)
def test_bad_table(tmp_path, text, message):
    table = tmp_path / "t.csv"
    if text is not None:
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_targets(table)


@pytest.mark.parametrize("field", ["temperature", "diffusivity", "density", "viscosity"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_target(field, value):
    good = {"temperature": 99.0, "diffusivity": 1.0, "density": 0.2, "viscosity": 0.01}
    with pytest.raises(InputError, match=field):
        DiffusivityTarget(**{**good, field: value})


def test_choice_of_temperatures():
    table = read_targets(datasets.methane_liquid())
    chosen = at_temperatures(table, (107.0, 91.0))
    assert chosen == (table[8], table[0])
    with pytest.raises(InputError, match="92"):
        at_temperatures(table, (91.0, 92.0))


# Checkpoints


TREE = {
    "x": jnp.asarray([1.5, -2.0]),
    "n": jnp.int32(7),
    "low": jnp.asarray([[0.1]], jnp.float32),
    "key": jax.random.key(5),
    "flag": jnp.asarray([True, False]),
}
META = {"settings": "abc", "history": [{"loss": 0.1 + 0.2}], "best_loss": 1e-17}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "fit.npz"
    save_checkpoint(path, TREE, META)
    return path


def plain(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(plain(x), plain(y))


def test_checkpoint_round_trip(checkpoint):
    like = jax.tree.map(lambda x: x if x.dtype == TREE["key"].dtype else jnp.zeros_like(x), TREE)
    tree, meta = load_checkpoint(checkpoint, like)
    assert jax.tree.structure(tree) == jax.tree.structure(TREE)
    assert_same(tree, TREE)
    assert meta == META
    assert os.listdir(checkpoint.parent) == ["fit.npz"]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.95, "text"])
def test_damaged_checkpoint(checkpoint, kept):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(b"not an archive" if kept == "text" else whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match="fit.npz cannot be read .*delete it"):
        load_checkpoint(checkpoint, TREE)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match="none.npz cannot be read"):
        load_checkpoint(tmp_path / "none.npz", TREE)


@pytest.mark.parametrize("change", [{"x": jnp.zeros(3)}, {"more": jnp.zeros(1)}])
def test_checkpoint_of_another_structure(checkpoint, change):
    with pytest.raises(InputError, match="another fit"):
        load_checkpoint(checkpoint, {**TREE, **change})


@pytest.mark.parametrize(
    "where", ["difmd.fitting.checkpoint.os.replace", "difmd.fitting.checkpoint.np.savez"]
)
def test_full_disk_keeps_the_previous_checkpoint(checkpoint, monkeypatch, where):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(where, full)
    with pytest.raises(InputError, match="No space left on device"):
        save_checkpoint(checkpoint, {"x": jnp.zeros(2)}, {})
    monkeypatch.undo()
    assert os.listdir(checkpoint.parent) == ["fit.npz"]
    tree, meta = load_checkpoint(checkpoint, TREE)
    assert_same(tree, TREE)
    assert meta == META


def test_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        ensure_writable(file / "run")
    with pytest.raises(InputError, match="cannot write"):
        ensure_writable(file)
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        save_checkpoint(file / "fit.npz", TREE, META)
    assert file.read_text() == "x"
    ensure_writable(tmp_path / "new" / "run")
    assert os.listdir(tmp_path / "new" / "run") == []


def test_fingerprint():
    settings = (Sampling(), {"sigma": jnp.asarray([3.6])}, 1.5, True)

    def of(sampling, params, number, flag):
        return fingerprint(dataclasses.astuple(sampling), params, number, flag)

    same = of(Sampling(), {"sigma": jnp.asarray([3.6])}, 1.5, True)
    assert of(*settings) == same and len(same) == 16
    others = [
        of(dataclasses.replace(Sampling(), n_replicas=63), *settings[1:]),
        of(dataclasses.replace(Sampling(), skin=1.0), *settings[1:]),
        of(settings[0], {"sigma": jnp.asarray([np.nextafter(3.6, 4)])}, 1.5, True),
        of(settings[0], {"sigma": jnp.asarray([[3.6]])}, 1.5, True),
        of(*settings[:2], 1.5000001, True),
        of(*settings[:3], False),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_fingerprint_keeps_neighbours_apart():
    assert fingerprint(1, 23) != fingerprint(12, 3)


# Optimiser and coordinates


def newton(optimizer, residual, x, n_steps):
    """Iterates of a fit with an exact Jacobian."""
    state, path = optimizer.init(x), [x]
    for _ in range(n_steps):
        jacobian = jax.jacfwd(residual)(x)
        step, state = optimizer.update(
            x,
            state,
            x,
            residuals=residual(x),
            jacobian=jacobian,
            jacobian_stderr=jax.tree.map(jnp.zeros_like, jacobian),
        )
        x = optax.apply_updates(x, step)
        path.append(x)
    return path


def test_gauss_newton_solves_a_nonlinear_least_squares_problem():
    t = jnp.linspace(0.0, 2.0, 7)
    data = 2.5 * jnp.exp(-1.3 * t)

    def residual(x):
        return x["a"][0] * jnp.exp(-x["b"] * t) - data

    start = {"a": jnp.asarray([2.0]), "b": jnp.asarray(1.0)}
    path = newton(gauss_newton(max_step=0.4, full_steps=20), residual, start, 9)
    assert path[-1]["a"][0] == pytest.approx(2.5, rel=1e-9)
    assert path[-1]["b"] == pytest.approx(1.3, rel=1e-9)


def test_gauss_newton_averages_after_the_full_steps():
    """For r = x a step of gain g leaves (1 − g) x; with the origin moved along, steps show the gains."""
    optimizer = gauss_newton(max_step=1e9, full_steps=2)
    state, gains = optimizer.init(jnp.zeros(1)), []
    for _ in range(5):
        step, state = optimizer.update(
            jnp.zeros(1),
            state,
            residuals=jnp.ones(1),
            jacobian=jnp.ones((1, 1)),
            jacobian_stderr=jnp.zeros((1, 1)),
        )
        gains.append(-float(step[0]))
    np.testing.assert_allclose(gains, [1, 1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-12)


def test_gauss_newton_respects_the_largest_step():
    optimizer = gauss_newton(max_step=0.05)
    jacobian = jnp.asarray([[1.0, 0.0], [0.0, 2.0]])
    kwargs = {"jacobian": jacobian, "jacobian_stderr": jnp.zeros((2, 2))}
    step, _ = optimizer.update(
        jnp.zeros(2), optimizer.init(jnp.zeros(2)), residuals=jnp.asarray([3.0, -3.0]), **kwargs
    )
    np.testing.assert_allclose(step, [-0.05, 0.025], rtol=1e-12)
    step, _ = optimizer.update(
        jnp.zeros(2), optimizer.init(jnp.zeros(2)), residuals=jnp.asarray([0.03, 0.02]), **kwargs
    )
    np.testing.assert_allclose(step, [-0.03, -0.01], rtol=1e-12)


def test_gauss_newton_leaves_an_undetermined_direction_alone():
    """The Jacobian of the second coordinate is noise s; a damped step is at most |r|/(2 s √n)."""
    n, noise, rng = 3, 0.5, np.random.default_rng(0)
    residuals = jnp.asarray([0.02, 0.015, 0.025])
    bound = float(jnp.linalg.norm(residuals)) / (2 * noise * np.sqrt(n))
    optimizer = gauss_newton(max_step=1e9)
    steps = {True: [], False: []}
    for _ in range(60):
        jacobian = jnp.stack([jnp.full(n, 5.0), jnp.asarray(rng.normal(0, noise, n))], axis=1)
        for known in steps:
            error = jnp.zeros((n, 2)).at[:, 1].set(noise if known else 0.0)
            step, _ = optimizer.update(
                jnp.zeros(2),
                optimizer.init(jnp.zeros(2)),
                residuals=residuals,
                jacobian=jacobian,
                jacobian_stderr=error,
            )
            steps[known].append(np.asarray(step))
    damped, plain = np.array(steps[True]), np.array(steps[False])
    assert np.abs(damped[:, 1]).max() < bound
    assert np.abs(plain[:, 1]).max() > 2 * bound
    np.testing.assert_allclose(damped[:, 0], -0.004, rtol=0.1)


def test_coordinates():
    params = {"sigma": jnp.asarray([3.6]), "epsilon": jnp.asarray([0.012])}
    log = logarithmic()
    np.testing.assert_allclose(log.to_free(params)["sigma"], np.log([3.6]))
    back = log.from_free(log.to_free(params))
    np.testing.assert_allclose(back["epsilon"], params["epsilon"], rtol=1e-15)
    with pytest.raises(InputError, match="epsilon.*identity"):
        log.to_free({**params, "epsilon": jnp.asarray([-0.1])})
    assert identity().from_free(identity().to_free(params)) is params


def test_residuals():
    value, measured = jnp.asarray([2.0, 3.0]), jnp.asarray([1.0, 3.0])
    np.testing.assert_allclose(relative_residual(value, measured), [np.log(2), 0])
    np.testing.assert_allclose(absolute_residual(value, measured), [1 / np.sqrt(5), 0])


# Gradients


def test_equilibrium_gradient_of_an_oscillator():
    """⟨x(t)²⟩ = kT/k for starts from the canonical ensemble, so that d⟨x(t)²⟩/dk = −kT/k² exactly.

    Only the sum of both terms gives it: along the trajectory x(t) = x cos ωt + v sin ωt/ω, and through
    the distribution of its start.
    """
    k, mass, time, temperature = 2.0, 1.5, 0.9, 300.0
    kt = units.KB * temperature
    x, v = np.random.default_rng(8).normal(size=(2, 40_000, 5))
    x, v = jnp.asarray(x * np.sqrt(kt / k)), jnp.asarray(v * np.sqrt(kt / mass))

    def value(k, x, v):
        omega = jnp.sqrt(k / mass)
        return (x * jnp.cos(omega * time) + v * jnp.sin(omega * time) / omega) ** 2

    along = jax.vmap(jax.grad(value), (None, 0, 0))(k, x[:, 0], v[:, 0])
    data = (value(k, x, v), {"k": 0.5 * x**2}, {"k": along})
    found = equilibrium_gradient(*data, temperature=temperature)
    exact = -kt / k**2
    assert found.gradient_stderr["k"] < 0.05 * abs(exact)
    assert abs(found.gradient["k"] - exact) < 5 * found.gradient_stderr["k"]
    assert abs(found.value - kt / k) < 5 * found.value_stderr
    assert found.value_stderr < 0.02 * kt / k
    np.testing.assert_allclose(found.along["k"] + found.initial["k"], found.gradient["k"], rtol=1e-12)
    part = equilibrium_gradient(*data, temperature=temperature, initial_state_term=False)
    assert abs(part.gradient["k"] - exact) > 20 * part.gradient_stderr["k"]
    assert part.gradient["k"] == pytest.approx(float(found.along["k"]), rel=1e-12)


def test_equilibrium_gradient_errors_are_those_of_repeats():
    """The error bar of ⟨x²⟩'s gradient agrees with the scatter of independent repeats."""
    kt = units.KB * 300.0
    x = jnp.asarray(np.random.default_rng(9).normal(size=(50, 200, 2)) * np.sqrt(kt))
    none = jnp.zeros(2)

    def gradient(x):
        found = equilibrium_gradient(x**2, 0.5 * x**2, none, temperature=300.0)
        return found.gradient, found.gradient_stderr

    values, errors = jax.vmap(gradient)(x)
    assert jnp.std(values) == pytest.approx(float(jnp.mean(errors)), rel=0.35)
    # Unbiased: the means are those of the same sample.
    assert abs(jnp.mean(values) + kt) < 5 * jnp.std(values) / np.sqrt(50)


ARGON = lennard_jones(["Ar"], sigma=3.4, epsilon=120 * units.KB, cutoff=6.0, truncation=switched(5.0))


@pytest.fixture(scope="module")
def sample_and_gradient(argon):
    """A of a short window and its derivatives as a function of the parameters, compiled once."""
    window = DiffusionWindow(dt=5 * units.FS, save_every=4, rebuild_every=4, first=3, last=5, origins=1)
    neighbors = neighbor_list(argon, cutoff=6.0, skin=1.0, slack=1.4)
    momenta = draw_momenta(jax.random.key(2), argon, 100.0)

    def sample(params):
        return diffusion_sample(ARGON, params, argon, momenta, neighbors, window)

    return jax.jit(jax.value_and_grad(sample, has_aux=True)), momenta


@pytest.mark.parametrize("name", ["sigma", "epsilon"])
def test_diffusion_sample_against_central_differences(sample_and_gradient, name):
    compute, _ = sample_and_gradient
    params = ARGON.init(jax.random.key(0))
    (value, status), gradient = compute(params)
    assert int(status.flags) == 0
    step = 1e-5 * params[name]
    ahead, behind = (compute({**params, name: params[name] + s})[0][0] for s in (step, -step))
    expected = float(ahead - behind) / (2 * float(step[0]))
    assert gradient[name][0] == pytest.approx(expected, rel=1e-5)
    assert abs(expected * float(params[name][0])) > 0.01 * value


def test_diffusion_sample_of_free_flight(sample_and_gradient, argon):
    """Without forces r(s+t) − r(s−t) = 2vt, so that A = ⟨v²⟩ t̄/3."""
    compute, momenta = sample_and_gradient
    (value, status), _ = compute({"sigma": jnp.asarray([3.4]), "epsilon": jnp.asarray([1e-30])})
    assert int(status.flags) == 0
    square = np.mean(np.sum(np.asarray(momenta) ** 2, axis=1)) / float(argon.masses[0]) ** 2
    assert value == pytest.approx(square * 4 * 20 * units.FS / 3, rel=1e-9)


# Sampling


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"n_atoms": 100}, "n_atoms = 100"),
        ({"n_atoms": 4}, "n_atoms = 4"),
        ({"n_atoms": 0}, "n_atoms = 0"),
        ({"n_replicas": 1}, "n_replicas = 1"),
        ({"n_gradient_replicas": 65}, "n_gradient_replicas = 65"),
        ({"window": (2.0, 1.0)}, "window"),
        ({"window": (0.0, 1.0)}, "window"),
        ({"production_time": 4 * units.PS}, "production_time = 4"),
        ({"mass": -1.0}, "mass = -1"),
        ({"dt": 0.0}, "dt = 0"),
        ({"melt_time": np.nan}, "melt_time = nan"),
        ({"save_every": 0}, "save_every = 0"),
        ({"save_every": 300}, "save_every = 300"),
    ],
)
def test_sampling_refuses(change, culprit):
    with pytest.raises(InputError, match=culprit):
        Sampling(**change)


# The fit, with an exact model in place of the simulation


SAMPLING = Sampling(
    atomic_number=6,
    mass=16.043,
    n_atoms=32,
    n_replicas=3,
    n_gradient_replicas=2,
    melt_time=0.1 * units.PS,
    equilibration_time=0.1 * units.PS,
    relaxation_time=0.1 * units.PS,
    production_time=0.7 * units.PS,
    window=(0.16 * units.PS, 0.24 * units.PS),
    origin_time=0.03 * units.PS,
    save_every=2,
    skin=1.5,
)
METHANE_LJ = lennard_jones(["C"], sigma=3.7, epsilon=140 * units.KB, cutoff=6.0, truncation=switched(5.0))
TRUE = {"sigma": jnp.asarray([3.75]), "epsilon": jnp.asarray([150 * units.KB])}
START = {"sigma": jnp.asarray([3.60]), "epsilon": jnp.asarray([130 * units.KB])}


def exact_diffusivity(params, temperature):
    """A made-up law in which two temperatures determine both parameters."""
    beta = 1 / (units.KB * temperature)
    return (0.05 * (3.75 / params["sigma"]) ** 4 * jnp.exp(-2 * beta * params["epsilon"]))[0]


EXACT_TARGETS = tuple(
    DiffusivityTarget(
        temperature=t, diffusivity=float(exact_diffusivity(TRUE, t)) + correction, density=0.2, viscosity=0.01
    )
    for t, correction in ((90.0, 1e-3), (110.0, 2e-3))
)


@pytest.fixture
def exact(monkeypatch):
    """`fit_diffusivity` with the exact model; `calls` counts measurements, `bad` are spoilt."""
    calls, bad = [], {}

    def measure(potential, params, target, replicas, **kwargs):
        calls.append(target.temperature)
        value, gradient = jax.value_and_grad(exact_diffusivity)(params, target.temperature)
        spoil = bad.get(len(calls), "")
        value = np.nan if spoil == "value" else float(value)
        if spoil == "gradient":
            gradient = jax.tree.map(lambda x: x * jnp.nan, gradient)
        none = np.zeros(0)
        found = Diffusivity(
            einstein=Estimate(np.float64(value), np.float64(1e-4)),
            green_kubo=Estimate(np.float64(value), np.float64(1e-4)),
            times=none,
            msd=none,
            msd_stderr=none,
            vacf=none,
            vacf_stderr=none,
            window=(1.0, 2.0),
            samples=none,
            green_kubo_samples=none,
        )
        zero = jax.tree.map(jnp.zeros_like, gradient)
        slopes = EquilibriumGradient(jnp.asarray(value), jnp.asarray(0.0), gradient, zero, gradient, zero)
        return StatePoint(found, 1e-3 if target.temperature == 90 else 2e-3, slopes), replicas

    monkeypatch.setattr(FIT, "measure_diffusivity", measure)
    monkeypatch.setattr(FIT, "equilibrate", lambda potential, params, replicas, **kwargs: replicas)
    monkeypatch.setattr(FIT, "keep_liquid", lambda replicas, **kwargs: replicas)
    one = crystal(0.2, SAMPLING)
    systems = jax.tree.map(lambda x: jnp.stack([x] * 3), one)
    lists = neighbor_list(systems, cutoff=6.0, skin=1.5)

    def fit(**changes):
        kwargs = {"sampling": SAMPLING, "n_iterations": 3, "key": jax.random.key(0), "progress": False}
        kwargs["replicas"] = [Replicas(systems, lists)] * 2
        # The moments of optax's own optimisers mix dtypes.
        with jax.numpy_dtype_promotion("standard" if "optimizer" in changes else "strict"):
            return fit_diffusivity(METHANE_LJ, START, EXACT_TARGETS, **{**kwargs, **changes})

    fit.calls, fit.bad = calls, bad
    return fit


def interrupt(entry):
    raise KeyboardInterrupt


def same(first, second):
    return all(bool(jnp.all(x == y)) for x, y in zip(*map(jax.tree.leaves, (first, second)), strict=True))


@pytest.mark.parametrize("residual", [relative_residual, absolute_residual])
def test_fit_finds_the_parameters(exact, residual):
    found = exact(n_iterations=6, residual=residual, optimizer=gauss_newton(full_steps=6))
    for name in TRUE:
        assert found.params[name][0] == pytest.approx(float(TRUE[name][0]), rel=1e-6), name
    assert [len(found.history), len(exact.calls)] == [6, 12]
    first = found.history[0]
    for name in START:
        np.testing.assert_allclose(first["params"][name], START[name], rtol=1e-12)
    expected = [(float(exact_diffusivity(START, t)) + c) / UNIT for t, c in ((90.0, 1e-3), (110.0, 2e-3))]
    np.testing.assert_allclose(first["D_1e-9_m2_s"], expected, rtol=1e-12)
    losses = [entry["loss"] for entry in found.history]
    assert found.best_loss == min(losses) < 1e-6 * losses[0]
    best = found.history[int(np.argmin(losses))]["params"]
    assert found.best_params["sigma"][0] == pytest.approx(best["sigma"][0], rel=1e-12)


@pytest.mark.parametrize("coordinates", [logarithmic(), identity()], ids=["logarithmic", "identity"])
def test_gradient_of_the_loss(exact, coordinates):
    """A step of gradient descent is −rate × the central difference of the loss."""
    rate, step = 1e-6, 1e-6

    def loss(free):
        params = coordinates.from_free(free)
        value = np.array([float(exact_diffusivity(params, t.temperature)) for t in EXACT_TARGETS])
        measured = np.array([t.diffusivity for t in EXACT_TARGETS])
        return np.mean(np.log((value + [1e-3, 2e-3]) / measured) ** 2)

    found = exact(n_iterations=1, optimizer=optax.sgd(rate), transform=coordinates)
    free, moved = coordinates.to_free(START), coordinates.to_free(found.params)
    for name in START:
        ahead, behind = ({**free, name: free[name] * (1 + s)} for s in (step, -step))
        slope = (loss(ahead) - loss(behind)) / (2 * step * float(free[name][0]))
        assert float(moved[name][0] - free[name][0]) == pytest.approx(-rate * slope, rel=1e-4), name


def test_fit_with_adam(exact, tmp_path):
    found = exact(n_iterations=8, optimizer=optax.adam(0.02), folder=tmp_path)
    losses = [entry["loss"] for entry in found.history]
    assert losses[-1] < 0.5 * losses[0]
    # The first step of Adam is the learning rate in each coordinate.
    for name in START:
        moved = np.log(found.history[1]["params"][name][0] / float(START[name][0]))
        assert abs(moved) == pytest.approx(0.02, rel=1e-5)
    calls = len(exact.calls)
    assert same(exact(n_iterations=8, optimizer=optax.adam(0.02), folder=tmp_path).params, found.params)
    assert len(exact.calls) == calls


@pytest.mark.parametrize("optimizer", [None, optax.adam(0.02)], ids=["gauss_newton", "adam"])
def test_resumed_fit_equals_an_uninterrupted_one(exact, tmp_path, optimizer):
    whole = exact(optimizer=optimizer)
    with pytest.raises(FitInterrupted, match="1 of 3.*folder") as caught:
        exact(optimizer=optimizer, folder=tmp_path, on_iteration=interrupt)
    assert isinstance(caught.value, KeyboardInterrupt)
    assert len(caught.value.result.history) == 1
    exact.calls.clear()
    resumed = exact(optimizer=optimizer, folder=tmp_path)
    assert len(exact.calls) == 4
    assert same(resumed.params, whole.params) and same(resumed.best_params, whole.best_params)
    assert resumed.history == whole.history and resumed.best_loss == whole.best_loss


@pytest.mark.parametrize("what", ["value", "gradient"])
def test_fit_that_is_not_finite(exact, tmp_path, what):
    """The second of three iterations is spoilt: the error holds the first, and the fit can go on."""
    whole = exact()
    exact.calls.clear()
    exact.bad[3] = what
    with pytest.raises(FitError, match="iteration 2: .*not finite") as caught:
        exact(folder=tmp_path)
    result = caught.value.result
    assert len(result.history) == 1
    assert same(result.best_params, logarithmic().from_free(logarithmic().to_free(START)))
    assert np.isfinite(result.best_loss) and result.best_loss == result.history[0]["loss"]
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(result.params))
    assert not same(result.params, result.best_params)
    exact.bad.clear()
    assert same(exact(folder=tmp_path).params, whole.params)


@pytest.mark.parametrize(
    "change",
    [
        {"key": jax.random.key(1)},
        {"sampling": dataclasses.replace(SAMPLING, friction=0.5)},
        {"initial_state_term": False},
    ],
    ids=["seed", "sampling", "initial_state_term"],
)
def test_checkpoint_of_another_fit_is_refused(exact, tmp_path, change):
    exact(n_iterations=1, folder=tmp_path)
    before = (tmp_path / "fit.npz").read_bytes()
    with pytest.raises(InputError, match="delete it, or choose another folder"):
        exact(folder=tmp_path, **change)
    assert (tmp_path / "fit.npz").read_bytes() == before


def test_damaged_checkpoint_of_a_fit_is_refused(exact, tmp_path):
    (tmp_path / "fit.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="cannot be read"):
        exact(folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"n_iterations": 0}, "n_iterations = 0"),
        ({"replicas": []}, "0 sets of replicas for 2 targets"),
    ],
)
def test_fit_refuses(exact, change, culprit):
    with pytest.raises(InputError, match=culprit):
        exact(**change)
    assert exact.calls == []


def test_fit_refuses_before_it_measures(exact, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="cannot write to the run folder"):
        exact(folder=file / "run")
    kwargs = {"sampling": SAMPLING, "n_iterations": 1, "key": jax.random.key(0), "progress": False}
    with pytest.raises(InputError, match="no targets"):
        fit_diffusivity(METHANE_LJ, START, [], **kwargs)
    with pytest.raises(InputError, match="sigma.*not finite"):
        fit_diffusivity(METHANE_LJ, {**START, "sigma": jnp.asarray([jnp.inf])}, EXACT_TARGETS, **kwargs)
    with pytest.raises(InputError, match="sigma.*not positive"):
        fit_diffusivity(METHANE_LJ, {**START, "sigma": jnp.asarray([-3.0])}, EXACT_TARGETS, **kwargs)
    assert exact.calls == []


def test_species_of_the_sampling_must_be_known(exact):
    """Argon is the default of `Sampling`; the potential is for methane."""
    with pytest.raises(InputError, match="Ar"):
        exact(sampling=dataclasses.replace(SAMPLING, atomic_number=18), replicas=None)


# The fit itself


def test_interrupted_fit_of_a_liquid_resumes_bit_for_bit(tmp_path):
    """A warm dense gas of 32 atoms, in which the criterion for a crystal is safe so small a box."""
    target = DiffusivityTarget(
        temperature=200.0, diffusivity=40 * UNIT, density=200 * units.KG_PER_M3, viscosity=12e-6 * units.PA_S
    )

    def fit(**changes):
        return fit_diffusivity(
            METHANE_LJ,
            START,
            [target],
            sampling=SAMPLING,
            n_iterations=2,
            key=jax.random.key(0),
            progress=False,
            **changes,
        )

    whole = fit()
    with pytest.raises(FitInterrupted) as caught:
        fit(folder=tmp_path, on_iteration=interrupt)
    assert len(caught.value.result.history) == 1
    resumed = fit(folder=tmp_path)
    assert same(resumed.params, whole.params)
    assert resumed.history == whole.history
    assert not same(whole.params, START)
    for entry in whole.history:
        assert 10 < entry["D_1e-9_m2_s"][0] < 200
        assert entry["D_stderr_1e-9_m2_s"][0] > 0
