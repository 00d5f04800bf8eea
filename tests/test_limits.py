"""Runs that overflow, explode, collapse or jump raise, and similar runs without the cause do not."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

import difmd
from difmd import gradients, units
from difmd.errors import REMEDIES, Flag, InputError, SimulationError, Status, describe, flags_of
from difmd.neighbors import neighbor_list
from difmd.potentials import pair_potential
from difmd.relaxation import minimize
from difmd.simulation.limits import closeness

DT, TAU = 4 * units.FS, 0.1 * units.PS
LJ = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=7.0, truncation=difmd.switched(6.0))
PARAMS = LJ.init(jax.random.key(0))
KEY = jax.random.key(1)


def crystal(n=2):
    return difmd.from_ase(bulk("Ar", "fcc", a=5.4, cubic=True) * (n, n, n))


def barostat(pressure, **changes):
    settings = {"dt": DT, "temperature": 60.0, "friction": 1 / units.PS, "time_constant": units.PS, **changes}
    return difmd.cell_rescaling(pressure=pressure, **settings)


def run(integrator=None, *, potential=LJ, params=PARAMS, system=None, n_steps=40, **options):
    options = {"initial_temperature": 60.0, "save_every": 10, "chunk_steps": 20, **options}
    return difmd.simulate(
        potential, params, crystal() if system is None else system,
        difmd.velocity_verlet(dt=DT) if integrator is None else integrator,
        n_steps=n_steps, key=KEY, progress=False, **options,
    )  # fmt: skip


def well(depth):
    """A well without repulsion, as of a network at distances outside its training data."""
    return pair_potential(
        lambda pair, square: -pair["depth"] * jnp.exp(-square / 4),
        init=lambda key: {"depth": jnp.asarray([[depth]])},
        tables=lambda params: params, species=["Ar"], cutoff=7.0,
    )  # fmt: skip


def cliff(depth):
    """An energy without a force: pairs lose it below 3.8 Å."""
    return pair_potential(
        lambda pair, square: jnp.where(square < 14.4, -pair["depth"], 0.0),
        init=lambda key: {"depth": jnp.asarray([[depth]])},
        tables=lambda params: params, species=["Ar"], cutoff=7.0,
    )  # fmt: skip


# Run, message, and first bad step.
BROKEN = {
    "explodes at once": (
        lambda: run(difmd.velocity_verlet(dt=50 * DT), initial_temperature=1e6), r"TOO_FAST|NON_FINITE", 1,
    ),
    "explodes later": (
        lambda: run(difmd.velocity_verlet(dt=13 * DT), initial_temperature=300.0, n_steps=400),
        r"ENERGY_JUMP|TOO_FAST|NON_FINITE", None,
    ),
    "crosses a jump of the energy": (
        lambda: run(potential=cliff(1.0), params=cliff(1.0).init(KEY)), "ENERGY_JUMP.*smooth", None,
    ),
    "cell collapses in a step": (lambda: run(barostat(3.0)), "CELL_COLLAPSE.*units of the pressure", 1),
    "piston inverts the cell": (
        lambda: run(
            difmd.martyna_tobias_klein(
                dt=DT, temperature=60.0, pressure=100.0, time_constant=TAU, piston_time=TAU
            )
        ),
        "CELL_COLLAPSE|TOO_FAST|NON_FINITE", None,
    ),
}  # fmt: skip


def shows_failure(flags, before, at):
    """Whether the states show the cause of the flags."""
    moved = np.abs(at.momenta / at.system.masses[:, None]).max() * DT
    shrunk = np.abs(np.linalg.solve(before.system.cell, at.system.cell) - np.eye(3)).max()
    is_finite = np.isfinite(at.system.positions).all() and np.isfinite(at.momenta).all()
    seen = {
        # The longest time step here is 50 of these.
        Flag.TOO_FAST: not is_finite or moved > LJ.cutoff / 50,
        Flag.NON_FINITE: not is_finite,
        Flag.CELL_COLLAPSE: not is_finite or shrunk > 0.1,
        Flag.ENERGY_JUMP: not np.array_equal(before.system.positions, at.system.positions),
    }
    return any(seen[flag] for flag in seen if flag & flags)


@pytest.mark.quick("explodes at once", "explodes later", "crosses a jump of the energy")
@pytest.mark.parametrize("name", BROKEN)
def test_failed_run_reports_the_step_and_the_states_before_and_at_it(name):
    begin, message, step = BROKEN[name]
    with pytest.raises(SimulationError, match=message) as caught:
        begin()
    error = caught.value
    first = int(np.min(np.asarray(error.status.first_bad_step)))
    assert f"first at step {first}" in str(error) and first >= 1
    assert step is None or first == step
    before, at = error.states
    assert np.isfinite(before.system.positions).all()
    assert int(at.step) == first and int(before.step) < first
    assert shows_failure(flags_of(error.status), before, at)
    # Only frames before the failure are returned.
    assert len(error.partial_result) * 10 < first


def test_potential_without_repulsion_raises_too_close(tmp_path):
    potential = well(3.0)
    params = potential.init(KEY)
    bath = difmd.langevin(dt=DT / 4, temperature=60.0, friction=10 / units.PS)
    with pytest.raises(
        SimulationError, match=r"TOO_CLOSE.*zbl.*atoms \d+ and \d+ are 0\.\d+ Å apart"
    ) as caught:
        run(
            bath,
            potential=potential,
            params=params,
            n_steps=2000,
            folder=tmp_path,
            limits=difmd.Limits(energy_jump=9.0),
        )
    frames = read(tmp_path / "failed.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == [int(s.step) for s in caught.value.states]
    apart = frames[1].get_all_distances(mic=True)[np.triu_indices(32, 1)].min()
    assert apart < 0.3 * 2 * 1.06 + 1e-9
    np.testing.assert_allclose(frames[1].positions, caught.value.states[1].system.positions, atol=1e-7)
    # A continued run fails at the same step, and passes it with looser limits.
    again = {"potential": potential, "params": params, "n_steps": 2000, "folder": tmp_path}
    with pytest.raises(SimulationError, match="TOO_CLOSE") as second:
        run(bath, **again, limits=difmd.Limits(energy_jump=9.0))
    assert int(second.value.states[1].step) == int(caught.value.states[1].step)
    run(bath, **again, limits=difmd.Limits(energy_jump=99.0, closest=0.0))
    assert not (tmp_path / "failed.extxyz").exists()


def test_atoms_pass_through_each_other_where_closest_is_zero():
    gas = well(0.0)
    rng = np.random.default_rng(0)
    system = difmd.make_system(rng.uniform(0, 9, (40, 3)), [18] * 40, cell=[9.0] * 3)
    options = {"potential": gas, "params": gas.init(KEY), "system": system, "n_steps": 200}
    with pytest.raises(SimulationError, match="TOO_CLOSE"):
        run(**options)
    done = run(limits=difmd.Limits(closest=0.0), **options)
    assert len(done) == 20


@pytest.mark.slow
def test_failure_before_the_first_frame_raises():
    """Two atoms that overlap and a large time step: afterwards the energy is constant, but wrong."""
    pair = difmd.make_system([[0.0, 0, 0], [2.5, 0, 0]], [18, 18])
    options = {"system": pair, "n_steps": 400, "save_every": 100, "chunk_steps": 100}
    with pytest.raises(SimulationError, match="ENERGY_JUMP.*first at step 100") as caught:
        run(difmd.velocity_verlet(dt=9 * DT), **options)
    assert int(caught.value.states[0].step) == 0
    # With a small time step the energy is conserved, though K changes.
    done = run(difmd.velocity_verlet(dt=DT / 4), **options)
    assert done.kinetic_energy[0] > 10 * units.KB * 60


def test_jump_across_an_interruption_raises(tmp_path):
    """The first frame of a continued run is compared with the last frame on disk."""
    potential = cliff(1.0)
    params = potential.init(KEY)
    bath = difmd.langevin(dt=DT, temperature=300.0, friction=1 / units.PS)
    options = {"potential": potential, "params": params, "folder": tmp_path, "initial_temperature": 300.0}
    options |= {"save_every": 20, "limits": difmd.Limits(energy_jump=1e6)}
    run(bath, **options, n_steps=20)
    with pytest.raises(SimulationError, match="ENERGY_JUMP.*first at step 40"):
        run(bath, **options | {"limits": difmd.Limits(energy_jump=1e-3)}, n_steps=40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["temperature", "pressure", "unequal"])
def test_conserved_energy_is_nan_where_it_is_not_computed(kind):
    """With ramps and unequal pressures, a change of the otherwise conserved sum is no jump."""
    given = {"temperature": 60.0, "pressure": 0.0, "time_constant": TAU, "piston_time": 5 * TAU, "dt": DT}
    given |= {
        "temperature": {"temperature": difmd.ramp([0, 400], [60.0, 900.0])},
        "pressure": {"pressure": difmd.ramp([0, 400], [0.0, 20 * units.GPA])},
        "unequal": {"pressure": np.diag([1.0, 2.0, 3.0]) * units.GPA, "coupling": "triclinic"},
    }[kind]
    done = run(difmd.martyna_tobias_klein(**given), n_steps=400, save_every=100, chunk_steps=100)
    assert np.isnan(done.conserved).all() and len(done) == 4


@pytest.mark.slow
def test_unwritable_folder_does_not_hide_the_failure(tmp_path):
    (tmp_path / "failed.extxyz" / "file").mkdir(parents=True)
    with pytest.raises(SimulationError, match="CELL_COLLAPSE.*cannot write"):
        run(barostat(3.0), folder=tmp_path)


@pytest.mark.slow
def test_interrupt_during_the_analysis_of_a_failure_keeps_the_completed_part(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["difmd.simulation.engine"], "states_at", stop)
    with pytest.raises(SimulationError, match="CELL_COLLAPSE") as caught:
        run(barostat(3.0))
    assert caught.value.partial_result is not None and caught.value.states == ()


def test_failure_of_one_replica_is_reported():
    systems = jax.tree.map(lambda x: jnp.stack([x] * 3), crystal())
    momenta = jnp.zeros((3, 32, 3)).at[1, 4, 0].set(1e4)
    with pytest.raises(SimulationError, match="in 1 of 3 replicas") as caught:
        run(system=systems, initial_temperature=None, momenta=momenta)
    before, at = caught.value.states
    assert before.momenta.shape == (32, 3) and np.abs(at.momenta).max() > 1e3


def test_closeness_equals_that_of_all_pairs_of_images():
    rng = np.random.default_rng(3)
    numbers = rng.choice([1, 8, 18], 20)
    system = difmd.make_system(rng.uniform(0, 5, (20, 3)), numbers, cell=[[5, 0, 0], [1, 5, 0], [0, 1, 5]])
    from ase.data import covalent_radii

    from difmd._internal.pairs import find_pairs

    i, j, _, d = find_pairs(system.positions, system.cell, [True] * 3, 4.0)
    radii = covalent_radii[numbers]
    neighbors = neighbor_list(system, cutoff=4.0)
    np.testing.assert_allclose(closeness(system, neighbors), (d / (radii[i] + radii[j])).min(), rtol=1e-12)
    alone = difmd.make_system(np.zeros((1, 3)), [18])
    assert closeness(alone, neighbor_list(alone, cutoff=4.0)) > 1e5


@pytest.mark.parametrize("limits", [difmd.Limits(energy_jump=-1.0), difmd.Limits(closest=np.nan)])
def test_bad_limits_raise(limits):
    with pytest.raises(InputError, match="energy_jump|closest"):
        run(limits=limits)


def rolled(integrator, *, rebuild_every=20, momenta=None, system=None, slots=None, gradient=None):
    system = crystal() if system is None else system
    neighbors = neighbor_list(system, cutoff=7.0, skin=0.6)
    if slots is not None:
        neighbors = neighbors.replace(indices=neighbors.indices[:slots])
    momenta = jnp.zeros((32, 3)) if momenta is None else momenta
    state = difmd.initialize(
        LJ, PARAMS, system, integrator, neighbor_list(system, cutoff=7.0), momenta=momenta, key=KEY
    )
    return difmd.rollout(
        LJ, PARAMS, state, integrator, neighbors, n_steps=20, save_every=20, rebuild_every=rebuild_every,
        gradient=gradient,
    ).status  # fmt: skip


def relaxed(**options):
    system = difmd.from_ase(bulk("Ar", "fcc", a=5.4, cubic=True))
    rattled = system.replace(positions=system.positions.at[0, 0].add(0.2))
    return minimize(LJ, PARAMS, rattled, neighbor_list(system, cutoff=7.0, skin=1.0), **options).status


def simulated(function):
    """The status of a run that may fail."""
    try:
        function()
    except SimulationError as error:
        return error.status
    return Status.ok()


NVE = difmd.velocity_verlet(dt=DT)
kick = jnp.zeros((32, 3)).at[5, 0]
far = crystal().replace(positions=crystal().positions + 1e9)

# For each flag a run that sets it, and a similar run that does not.
FLAGS = {
    Flag.NEIGHBOR_OVERFLOW: (lambda: rolled(NVE, slots=8), lambda: rolled(NVE)),
    Flag.NEIGHBOR_STALE: (
        lambda: rolled(NVE, momenta=kick.set(300.0)), lambda: rolled(NVE, momenta=kick.set(0.3))
    ),
    Flag.CELL_TOO_SMALL: (
        lambda: rolled(barostat(0.05), rebuild_every=None), lambda: rolled(barostat(0.0), rebuild_every=None)
    ),
    Flag.NON_FINITE: (lambda: rolled(NVE, momenta=kick.set(jnp.nan)), lambda: rolled(NVE)),
    Flag.TOO_FAST: (lambda: rolled(NVE, momenta=kick.set(1e4)), lambda: rolled(NVE)),
    Flag.OFF_GRID: (
        lambda: rolled(NVE, system=far, gradient=gradients.reversible()),
        lambda: rolled(NVE, gradient=gradients.reversible()),
    ),
    Flag.NOT_CONVERGED: (lambda: relaxed(max_steps=1), lambda: relaxed()),
    Flag.ENERGY_JUMP: (
        lambda: simulated(BROKEN["crosses a jump of the energy"][0]), lambda: simulated(run)
    ),
    Flag.TOO_CLOSE: (
        lambda: simulated(lambda: run(limits=difmd.Limits(closest=2.0))), lambda: simulated(run)
    ),
    Flag.CELL_COLLAPSE: (
        lambda: rolled(barostat(3.0), rebuild_every=None), lambda: rolled(barostat(0.0), rebuild_every=None)
    ),
}  # fmt: skip


def test_every_flag_has_a_case_and_a_remedy():
    assert set(FLAGS) == set(Flag) == set(REMEDIES)


@pytest.mark.quick(
    "CELL_TOO_SMALL",
    "NEIGHBOR_OVERFLOW",
    "ENERGY_JUMP",
    "OFF_GRID",
    "NON_FINITE",
    "TOO_FAST",
    "NEIGHBOR_STALE",
    "TOO_CLOSE",
)
@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_flag_is_set_by_its_cause_and_not_by_similar_runs(flag):
    sets, does_not = FLAGS[flag]
    status = sets()
    assert flag in flags_of(status)
    assert int(np.max(status.first_bad_step)) >= 0
    assert f"{flag.name}: {REMEDIES[flag]}" in describe(status)
    assert flags_of(does_not()) == Flag(0)
