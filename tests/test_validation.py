"""A sound potential passes all checks; a defect fails only the checks of its kind."""

import dataclasses
import json
import re

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd import plots, units
from difmd.errors import REMEDIES, Flag, InputError, SimulationError, Status
from difmd.system import make_system
from difmd.validation import GROUPS, KineticEnergies, TimeSteps, Volumes, derivatives, sampling
from difmd.validation.configuration import displaced
from difmd.validation.driver import reason
from difmd.validation.energy_conservation import check_energy_conservation, check_fluctuation
from difmd.validation.ensembles import check_equipartition, check_kinetic_energy, check_volume
from difmd.validation.histograms import jackknife, log_ratio_slope

CUTOFF = 5.5
STATIC = GROUPS[:3]
slow = pytest.mark.slow
LJ = {"species": ["Ar"], "sigma": 3.4, "epsilon": 0.0104, "cutoff": CUTOFF}
SWITCHED = difmd.lennard_jones(**LJ, truncation=difmd.switched(4.5))
PARAMS = SWITCHED.init(jax.random.key(0))


def failures(certificate):
    return {check.name for check in certificate.checks if check.outcome == "failed"}


def row(certificate, name):
    (check,) = [check for check in certificate.checks if check.name == name]
    return check


def with_energy(apply):
    return dataclasses.replace(SWITCHED, apply=apply, pull_back=None, on_grid=None)


def lying(lie):
    """The right energy, with the derivatives `lie(r, cell, energy, of_r, of_cell)` in positions and cell."""

    def apply(params, system, neighbors):
        def truth(r, cell):
            return SWITCHED.apply(params, system.replace(positions=r, cell=cell), neighbors)

        def forward(r, cell):
            value, result = jax.value_and_grad(truth, (0, 1))(r, cell)
            return value, lie(r, cell, value, *result)

        energy = jax.custom_vjp(truth)
        energy.defvjp(forward, lambda saved, v: tuple(v * x for x in saved))
        return energy(system.positions, system.cell)

    return with_energy(apply)


def forces_too_large(r, cell, energy, of_r, of_cell):
    # The virial is unchanged.
    return 1.01 * of_r, of_cell - 0.01 * jnp.linalg.solve(cell.T, r.T @ of_r)


def pressure_too_large(r, cell, energy, of_r, of_cell):
    return of_r, of_cell + 0.1 * energy * jnp.linalg.inv(cell).T


def stretched(params, system, neighbors):
    """Distances are longer along x."""
    stretch = jnp.asarray([[1.03, 1.0, 1.0]])
    moved = system.replace(positions=system.positions * stretch, cell=system.cell * stretch)
    return SWITCHED.apply(params, moved, neighbors)


def chiral(params, system, neighbors):
    """A triple product of three vectors for each atom."""
    apart = system.positions[None, :] - system.positions[:, None]
    if all(neighbors.periodic):
        apart = apart - jnp.round(apart @ jnp.linalg.inv(system.cell)) @ system.cell
    square = jnp.sum(apart**2, axis=-1)
    real = system.atomic_numbers > 0
    inside = (square < CUTOFF**2) & real[:, None] & real[None, :]
    smooth = jnp.where(inside, (1 - square / CUTOFF**2) ** 4, 0)
    a, b, c = (jnp.sum((smooth * square**n)[..., None] * apart, axis=1) for n in range(3))
    return SWITCHED.apply(params, system, neighbors) + 0.01 * jnp.sum(jnp.cross(a, b) * c)


def in_a_field(params, system, neighbors):
    waves = jnp.cos(system.positions[:, 0] * (2 * np.pi / 11.4))
    return SWITCHED.apply(params, system, neighbors) + 0.01 * jnp.sum(
        jnp.where(system.atomic_numbers > 0, waves, 0)
    )


def by_place(params, system, neighbors):
    """Weights depend on the index of an atom."""
    weights = 1 + 0.01 * jnp.arange(system.n_atoms, dtype=system.positions.dtype)
    return jnp.sum(weights * SWITCHED.atomic(params, system, neighbors))


def without_images(params, system, neighbors):
    apart = system.positions[:, None] - system.positions[None, :]
    real = system.atomic_numbers > 0
    both = real[:, None] & real[None, :]
    return SWITCHED.apply(params, system, neighbors) + 0.01 * jnp.sum(
        jnp.where(both, jnp.exp(-jnp.sum(apart**2, axis=-1) / 100), 0)
    )


def counting_padding(params, system, neighbors):
    return SWITCHED.apply(params, system, neighbors) + 0.01 * system.n_atoms


BROKEN = {
    "forces": (lying(forces_too_large), {"forces"}),
    "stress": (lying(pressure_too_large), {"stress"}),
    "rotation": (with_energy(stretched), {"rotation"}),
    "reflection": (with_energy(chiral), {"reflection"}),
    "translation": (with_energy(in_a_field), {"rotation", "translation", "lattice shift"}),
    "permutation": (with_energy(by_place), {"permutation"}),
    "lattice shift": (with_energy(without_images), {"lattice shift"}),
    "padding": (with_energy(counting_padding), {"padding"}),
    "truncated": (
        difmd.lennard_jones(**LJ, truncation=difmd.truncated()), {"energy jump Ar–Ar", "force jump Ar–Ar"},
    ),
    "shifted": (difmd.lennard_jones(**LJ, truncation=difmd.shifted()), {"force jump Ar–Ar"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(argon):
    return difmd.validate(SWITCHED, PARAMS, argon, only=STATIC, key=jax.random.key(1), progress=False)


# Each row compiles its own potential.
@pytest.mark.quick("forces")
@pytest.mark.parametrize("name", BROKEN)
def test_only_the_broken_check_fails(argon, name):
    potential, expected = BROKEN[name]
    result = difmd.validate(potential, PARAMS, argon, only=STATIC, key=jax.random.key(1), progress=False)
    assert failures(result) == expected
    assert not result.passed and "Not fit" in str(result)
    for check in result.failures:
        assert len(check.note) > 20


def test_sound_potential_passes(sound):
    assert sound.passed and not sound.failures
    assert [check.group for check in sound.checks] == 6 * ["symmetry"] + 3 * ["derivatives"] + 2 * ["cutoff"]
    assert all(check.outcome == "passed" for check in sound.checks)
    assert row(sound, "force jump Ar–Ar").note == "smooth"
    text = str(sound)
    assert "Ar32, float64" in text and "seed (0, 1)" in text and "11 passed" in text
    flat = sound.as_json()
    assert json.loads(json.dumps(flat)) == flat
    assert flat["derivatives.forces.outcome"] == "passed" and flat["derivatives.forces.error"] is None


def test_cutoff_of_one_term_of_a_sum_is_detected(argon):
    """The cut-off of the term is shorter than that of the sum."""
    short = difmd.lennard_jones(**(LJ | {"cutoff": 4.7}), truncation=difmd.truncated())
    result = difmd.validate(
        SWITCHED + short, (PARAMS, PARAMS), argon, only=("cutoff",), key=jax.random.key(1), progress=False
    )
    assert failures(result) == {"energy jump Ar–Ar"}
    assert row(result, "energy jump Ar–Ar").note.startswith("truncated, at 4.7 Å")


@pytest.mark.parametrize("what", ["energy", "force"])
def test_pair_without_finite_energy_or_force(argon, what):
    """At distances that do not occur in the system."""

    def apply(params, system, neighbors):
        energy = SWITCHED.apply(params, system, neighbors)
        if system.n_atoms > 2:
            return energy
        distance = jnp.linalg.norm(system.positions[1] - system.positions[0])
        inside = jnp.abs(distance - 4.55) < 0.05
        # A root whose derivative is infinite.
        root = 1e-9 * jnp.sqrt(jnp.where(inside, 0 * distance, 1.0))
        return energy + (root if what == "force" else jnp.where(inside, jnp.nan, 0.0))

    result = difmd.validate(
        with_energy(apply), PARAMS, argon, only=("cutoff",), key=jax.random.key(1), progress=False
    )
    assert failures(result) == {"energy jump Ar–Ar", "force jump Ar–Ar"}
    for check in result.failures:
        assert 4.5 <= float(re.search(r"not finite at (\S+) Å", check.note)[1]) < 4.52
    assert not result.scans


def test_summaries(sound):
    """Of the certificate, its checks and its data."""
    lines = repr(sound).splitlines()
    assert lines[0] == "Certificate" and "Ar32, float64, seed (0, 1)" in lines[1]
    assert "Fit for dynamics by the requested checks: 11 passed." in lines[2]
    html = sound._repr_html_()
    assert html.count("<tr>") == 12 and "force jump Ar–Ar" in html
    for value in (sound.checks[0], sound.scans[0], kinetic(), volumes(), sound):
        assert len(repr(value).splitlines()) <= 6 and "array(" not in repr(value)
    assert repr(sound.scans[0]).startswith(
        "CutoffScan(pair=('Ar', 'Ar'), kind=smooth, distances=float64[401]"
    )


def test_ase_atoms_are_systems(argon, sound):
    result = difmd.validate(
        SWITCHED, PARAMS, difmd.to_ase(argon), only=("symmetry",), key=jax.random.key(1), progress=False
    )
    assert result.checks == sound.checks[:6]


@pytest.fixture(scope="module")
def configuration(argon):
    return displaced(SWITCHED, PARAMS, argon, jax.random.key(1))


def disturbed(monkeypatch, directions, amount):
    """Shift the energy at one of the six displacements along each of these directions."""
    energies_of = derivatives.energies_of

    def wrong(*args):
        energies = energies_of(*args)
        # 36 energies belong to strains.
        return energies if len(energies) == 36 else energies.at[6 * np.array(directions) + 4].add(amount)

    monkeypatch.setattr(derivatives, "energies_of", wrong)


@pytest.mark.parametrize(
    "directions, amount, outcome, note",
    [
        ([5], np.nan, "failed", "1 of 48 derivatives"),
        (range(2), 1.0, "passed", "22 of 24 random directions of all atoms"),
        (range(3), 1.0, "inconclusive", "21 of 24 random directions of all atoms"),
        (range(45, 48), 1.0, "inconclusive", "21 of 24 of single atoms"),
    ],
)
def test_directions_across_discontinuities(monkeypatch, configuration, directions, amount, outcome, note):
    """A few of each kind may cross a discontinuity; none may be NaN."""
    monkeypatch.setattr(derivatives, "_MOST", 10)
    disturbed(monkeypatch, list(directions), amount)
    forces, stress = derivatives.check_derivatives(SWITCHED, PARAMS, configuration, np.random.default_rng(0))
    assert forces.outcome == outcome and note in forces.note
    assert stress.outcome == "passed"


def test_one_kind_of_directions_suffices_to_fail(monkeypatch, configuration):
    """Wrong forces are detected along one kind of directions where the other is inconclusive."""
    monkeypatch.setattr(derivatives, "_MOST", 10)
    disturbed(monkeypatch, list(range(24)), 1.0)
    evaluation = configuration.evaluation
    wrong = configuration._replace(evaluation=evaluation._replace(forces=1.01 * evaluation.forces))
    forces, _ = derivatives.check_derivatives(SWITCHED, PARAMS, wrong, np.random.default_rng(0))
    assert forces.outcome == "failed" and forces.value > forces.bound


@pytest.mark.slow
@pytest.mark.parametrize("only", [("kinetic_energy",), ("derivatives", "kinetic_energy")])
def test_forces_that_are_not_finite_at_high_symmetry(argon, only):
    """The length of a vector that vanishes at the input."""
    apart = np.asarray(argon.positions[1] - argon.positions[0])

    def kinked(params, system, neighbors):
        vector = system.positions[1] - system.positions[0] - apart
        return SWITCHED.apply(params, system, neighbors) + 1e-3 * jnp.sqrt(jnp.sum(vector**2))

    result = difmd.validate(
        with_energy(kinked), PARAMS, argon, temperature=60.0, n_steps=100, n_replicas=8, only=only,
        key=jax.random.key(1), progress=False,
    )  # fmt: skip
    assert failures(result) == {"non-finite values at the input", "kinetic energy"}
    # Forces on two atoms, and their stress.
    assert row(result, "non-finite values at the input").value == 6 + 9
    assert "forces at the start are not finite" in row(result, "kinetic energy").note


def test_certificate_without_applicable_checks_does_not_pass():
    atoms = ase.build.bulk("Ar", "fcc", a=5.4, cubic=True)
    cluster = make_system(atoms.positions, atoms.numbers)
    result = difmd.validate(
        SWITCHED, PARAMS, cluster, temperature=60.0, pressure=0.0, only=("volume",), progress=False
    )
    assert outcomes(result.checks) == ["not applicable"]
    assert not result.passed and not result.as_json()["passed"]
    assert "Not shown to be fit for dynamics by the requested checks: none applies." in str(result)


@pytest.mark.parametrize(
    "pbc", [pytest.param(False, marks=slow), (True, True, False)], ids=["cluster", "slab"]
)
def test_directions_that_are_not_periodic(pbc):
    """A mixture; checks that do not apply state the reason."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 1)
    atoms.rattle(0.1, seed=1)
    numbers = np.where(np.arange(len(atoms)) % 3, 18, 36)
    system = make_system(atoms.positions, numbers, cell=np.asarray(atoms.cell), pbc=np.broadcast_to(pbc, 3))
    lj = difmd.lennard_jones(
        ["Ar", "Kr"], sigma=[3.4, 3.6], epsilon=[0.0104, 0.014], cutoff=5.0, truncation=difmd.switched(4.0)
    )
    result = difmd.validate(lj, lj.init(jax.random.key(0)), system, pressure=0.0, progress=False)
    assert result.passed
    outcomes = {check.name: check.outcome for check in result.checks}
    assert outcomes["stress"] == "not applicable"
    assert outcomes["lattice shift"] == ("passed" if np.any(pbc) else "not applicable")
    assert {outcomes[name.replace("_", " ")] for name in GROUPS[3:]} == {"not requested"}
    assert {scan.pair for scan in result.scans} == {("Ar", "Ar"), ("Ar", "Kr"), ("Kr", "Kr")}


@pytest.mark.slow
def test_single_precision(argon):
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, (PARAMS, argon))
    result = difmd.validate(SWITCHED, *single, only=STATIC, key=jax.random.key(1), progress=False)
    assert result.passed and result.precision == "float32"
    broken = difmd.validate(
        lying(lambda r, cell, energy, of_r, of_cell: (1.1 * of_r, of_cell)), *single,
        only=("derivatives",), key=jax.random.key(1), progress=False,
    )  # fmt: skip
    assert {"forces"} <= failures(broken)


@slow
@pytest.mark.parametrize("name, is_sound", [("sound", True), ("truncated", False)])
def test_energy_conservation(argon, name, is_sound):
    potential = SWITCHED if is_sound else BROKEN[name][0]
    result = difmd.validate(
        potential, PARAMS, argon, temperature=60.0, dt=6 * units.FS, n_steps=400, n_replicas=8,
        only=("energy_conservation",), key=jax.random.key(2), progress=False,
    )  # fmt: skip
    exponent = row(result, "exponent of fluctuation in dt")
    if is_sound:
        assert result.passed
        assert exponent.error < 0.05
        assert 6 < result.time_steps.largest_dt / units.FS <= 12
    else:
        assert exponent.outcome == "failed" and exponent.value < 1.5


def test_exploding_run_fails_its_checks(argon):
    result = difmd.validate(
        SWITCHED, PARAMS, argon, temperature=60.0, dt=1000 * units.FS, n_steps=100, n_replicas=8,
        only=("cutoff", "energy_conservation"), progress=False,
    )  # fmt: skip
    assert failures(result) == {"energy conservation"}
    assert "time step" in row(result, "energy conservation").note
    assert row(result, "energy jump Ar–Ar").outcome == "passed"


@pytest.mark.slow
def test_limits_reach_every_run(argon, monkeypatch):
    """The note of a failure says how to change them."""
    limits = difmd.Limits(closest=3.0)
    result = difmd.validate(
        SWITCHED, PARAMS, argon, temperature=60.0, n_steps=100, n_replicas=8, only=("kinetic_energy",),
        limits=limits, progress=False,
    )  # fmt: skip
    assert "`validate(limits=difmd.Limits(closest=))`" in row(result, "kinetic energy").note

    def refuse(*args, **given):
        assert given["limits"] is limits
        raise SimulationError("seen")

    monkeypatch.setattr(sampling, "simulate", refuse)
    neighbors = difmd.neighbor_list(argon, cutoff=CUTOFF, skin=0.1)
    bath = difmd.velocity_verlet(dt=units.FS)
    key = jax.random.key(0)
    start = difmd.initialize(SWITCHED, PARAMS, argon, bath, neighbors, momenta=jnp.zeros((32, 3)), key=key)
    model, more = (SWITCHED, PARAMS), {"dt": units.FS, "n_steps": 100, "limits": limits, "temperature": 60.0}
    for run in (
        lambda: sampling.equilibrated(*model, argon, **more, n_replicas=8, key=key),
        lambda: sampling.kinetic_energies(*model, start, **more),
        lambda: sampling.volumes(*model, start, **more, pressure=0.0, key=key),
        lambda: check_energy_conservation(*model, start, **more, key=key),
    ):
        with pytest.raises(SimulationError, match="seen"):
            run()


@pytest.mark.parametrize("flag", REMEDIES)
def test_remedies_name_only_arguments_of_validate(flag):
    status = Status(flags=jnp.array([0, flag], jnp.int32), first_bad_step=jnp.array([-1, 7], jnp.int32))
    note = reason(SimulationError("", status=status))
    assert note.endswith("(first at step 7, in 1 of 2 replicas)")
    if flag in (Flag.OFF_GRID, Flag.NOT_CONVERGED):
        # Flags of gradients and relaxations.
        return
    assert not re.search("skin|slack|rebuild_every|neighbor_list|simulate|time constant|compressib", note)


@pytest.mark.parametrize(
    "changes, culprit",
    [
        ({"system": "Kr"}, "Kr"),
        ({"params": {"sigma": jnp.array([jnp.nan]), "epsilon": jnp.array([0.01])}}, "sigma"),
        ({"potential": dataclasses.replace(SWITCHED, cutoff=0.0)}, "potential.cutoff"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"temperature": 60.0, "dt": 0.0}, "dt = 0.0"),
        ({"pressure": np.nan}, "pressure = nan"),
        ({"n_replicas": 7}, "n_replicas = 7 must be at least 8"),
        ({"n_steps": 10}, "n_steps = 10"),
        ({"only": ("forces",)}, "only"),
        ({"only": ("volume",)}, "volume needs dynamics"),
        ({"only": ("volume",), "temperature": 60.0}, "volume needs a pressure"),
    ],
)
def test_bad_inputs_raise_before_anything_runs(argon, changes, culprit, monkeypatch):
    monkeypatch.setattr("difmd.validation.driver.displaced", None)
    given = {"potential": SWITCHED, "params": PARAMS, "system": argon, "progress": False} | changes
    if given["system"] == "Kr":
        given["system"] = argon.replace(atomic_numbers=jnp.full(32, 36))
    with pytest.raises(InputError, match=culprit):
        difmd.validate(**given)


def test_atoms_that_do_not_interact_raise():
    far = make_system([[0, 0, 0], [20.0, 0, 0]], [18, 18])
    with pytest.raises(InputError, match="no force"):
        difmd.validate(SWITCHED, PARAMS, far, progress=False)


def correlated(rng, shape, memory=0.8):
    """Correlated normal numbers; [frames, ...]."""
    result = rng.normal(size=shape)
    for k in range(1, len(result)):
        result[k] = memory * result[k - 1] + np.sqrt(1 - memory**2) * result[k]
    return result


def kinetic(width=1.0, heat=(1.0, 1.0), frames=400):
    """Kinetic energies of two kinds of 60 atoms, from the normal limit of gamma distributions."""
    n_free = np.array([180.0, 180.0])
    noise = correlated(np.random.default_rng(5), (frames, 16, 2))
    samples = n_free / 2 * np.array(heat) + width * np.sqrt(n_free / 2) * noise
    return KineticEnergies(("Ar", "Kr"), n_free, samples)


def volumes(width=1.0, frames=400, drift=0.0):
    """Volumes from normal distributions with the right means."""
    kT, mean, right = units.KB * 100.0, 5000.0, 150.0
    step = kT / right
    noise = correlated(np.random.default_rng(6), (frames, 3, 16)).swapaxes(0, 1)
    samples = mean - right * np.array([-1.0, 0.0, 1.0])[:, None, None] + width * right * noise
    samples = samples + drift * np.linspace(0, right, frames)[None, :, None]
    return Volumes(step * np.array([-1.0, 0.0, 1.0]), 100.0, samples)


def test_plot_draws_all_panels(sound, tmp_path):
    steps = TimeSteps(np.array([4.0, 2.0, 1.0]), np.array([16.0, 4.0, 1.0]), np.full(3, 0.1), 0.0, 0.1, 8.0)
    complete = sound._replace(time_steps=steps, kinetic=kinetic(), volumes=volumes())
    figure = plots.plot_certificate(complete, path=tmp_path / "certificate.png")
    assert (tmp_path / "certificate.png").read_bytes().startswith(b"\x89PNG")
    assert not any(text.get_text() == "not checked" for axis in figure.axes for text in axis.texts)
    bare = plots.plot_certificate(sound)
    assert sum(text.get_text() == "not checked" for axis in bare.axes for text in axis.texts) == 3


def outcomes(rows):
    return [check.outcome for check in rows]


def test_kinetic_energies_of_a_wrong_thermostat():
    """The Berendsen thermostat has the right mean and too small a variance."""
    assert outcomes(check_kinetic_energy(kinetic())) == ["passed", "passed"]
    assert outcomes(check_kinetic_energy(kinetic(width=np.sqrt(0.5)))) == ["passed", "failed"]
    assert outcomes(check_kinetic_energy(kinetic(heat=(1.05, 1.05))))[0] == "failed"
    assert outcomes(check_kinetic_energy(kinetic(frames=8)))[1] == "inconclusive"


@pytest.mark.parametrize(
    "value, error, outcome",
    [
        (0.01, 0.001, "passed"),
        (0.03, 0.001, "failed"),
        (0.021, 0.0, "failed"),
        (0.01, 0.003, "inconclusive"),
        (0.03, 0.003, "inconclusive"),
    ],
)
def test_fluctuation_is_judged_with_its_error(value, error, outcome):
    result = TimeSteps(np.array([4.0, 2.0, 1.0]), np.full(3, value), np.full(3, error), 0.0, 0.1, 8.0)
    check = check_fluctuation(result)
    assert check.outcome == outcome
    assert ("use a smaller dt" in check.note) == (outcome != "passed")


def test_equipartition_of_different_temperatures():
    assert outcomes(check_equipartition(kinetic())) == ["passed", "passed"]
    assert outcomes(check_equipartition(kinetic(heat=(1.05, 0.95)))) == ["failed", "failed"]


def test_volumes_of_a_wrong_barostat():
    """Half the variance and the right means."""
    assert outcomes(check_volume(volumes())) == ["passed", "passed"]
    assert outcomes(check_volume(volumes(width=np.sqrt(0.5)))) == ["failed", "failed"]
    assert outcomes(check_volume(volumes(frames=8))) == ["inconclusive", "inconclusive"]
    assert outcomes(check_volume(volumes(drift=2.0))) == ["inconclusive", "inconclusive"]


def test_jackknife_errors_include_correlation():
    """The spread of many estimates of mean and variance agrees with their errors within 25 %."""
    samples = correlated(np.random.default_rng(7), (200, 16 * 60), memory=0.9).reshape(200, 60, 16)
    for function in (np.mean, np.var):
        estimates = [jackknife(function, samples[:, k]) for k in range(60)]
        spread = np.std([x.value for x in estimates])
        assert np.mean([x.stderr for x in estimates]) == pytest.approx(spread, rel=0.25)


def test_slope_of_histograms_without_overlap_is_nan():
    assert np.isnan(log_ratio_slope(np.linspace(0, 1, 20), np.linspace(2, 3, 20)))
    assert log_ratio_slope(
        *np.random.default_rng(8).normal([[0.0], [1.0]], 1.0, (2, 20_000))
    ) == pytest.approx(1.0, abs=0.05)
