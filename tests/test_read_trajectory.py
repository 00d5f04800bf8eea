"""`read_trajectory` returns the frames of `simulate` and reports damage; `Trajectory.to_ase`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd import units
from difmd.errors import InputError
from difmd.trajectory import h5md
from difmd.trajectory.run_folder import RunFolder, files_in

h5py = pytest.importorskip("h5py")

POTENTIAL = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=6.0, truncation=difmd.switched(5.0))
PARAMS = POTENTIAL.init(jax.random.key(0))
NVE = difmd.velocity_verlet(dt=4 * units.FS)
CSVR = difmd.csvr(dt=4 * units.FS, temperature=60.0, time_constant=0.1 * units.PS)
NPT = difmd.cell_rescaling(
    dt=4 * units.FS, temperature=60.0, pressure=100 * units.BAR, friction=1 / units.PS,
    time_constant=0.5 * units.PS,
)  # fmt: skip


def crystal(**more):
    x = 5.5 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 1, 3)
    x = (x + 2.75 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])).reshape(-1, 3)
    return difmd.make_system(
        x, np.full(len(x), 18), masses=np.linspace(30, 50, len(x)), cell=[11.0] * 3, **more
    )


def simulate(folder, system, integrator=NVE, n_steps=20, **more):
    start = {} if isinstance(system, difmd.integrators.MDState) else START
    return difmd.simulate(
        POTENTIAL, PARAMS, system, integrator, n_steps=n_steps, save_every=5, chunk_steps=10, folder=folder,
        progress=False, skin=1.0, **start, **more,
    )  # fmt: skip


START = {"initial_temperature": 60.0, "key": jax.random.key(0)}


def replicas(n=2):
    return jax.tree.map(lambda x: jnp.stack([x] * n), crystal())


def assert_same(result, expected):
    """Every field of two trajectories."""
    result, expected = (list(vars(run).values()) for run in (result, expected))
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    for (place, a), b in zip(
        jax.tree_util.tree_leaves_with_path(result), jax.tree.leaves(expected), strict=True
    ):
        if hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype, place
        np.testing.assert_array_equal(a, b, err_msg=str(place))


@pytest.mark.quick("NPT")
@pytest.mark.parametrize(
    ("system", "integrator", "needed"),
    [
        (crystal(), NVE, False),
        (crystal(fixed=[0, 3]), NVE, False),
        (replicas(), CSVR, True),
        (crystal(), NPT, True),
    ],
    ids=["NVE", "fixed", "replicas", "NPT"],
)
def test_read_trajectory_equals_that_of_simulate(tmp_path, system, integrator, needed):
    run = simulate(tmp_path, system, integrator)
    assert_same(difmd.read_trajectory(tmp_path, integrator=integrator), run)
    result = difmd.read_trajectory(tmp_path / "trajectory.h5")
    assert (result.state is None) == needed
    assert_same(dataclasses.replace(result, state=run.state), run)


def test_simulate_continues_from_the_state_that_was_read(tmp_path):
    complete = simulate(None, crystal(), n_steps=40)
    simulate(tmp_path / "first", crystal())
    state = difmd.read_trajectory(tmp_path / "first").state
    more = simulate(tmp_path / "more", state)
    np.testing.assert_array_equal(more.positions, complete.positions[4:])
    # Times are counted from step 0 of the first run.
    np.testing.assert_allclose(difmd.read_trajectory(tmp_path / "more").time, complete.time[4:], rtol=1e-15)


@pytest.mark.parametrize(
    "frames",
    [
        slice(1, 3),
        slice(None, None, 2),
        slice(None, None, -1),
        slice(-2, None),
        slice(3, 0, -2),
    ],
)
@pytest.mark.parametrize("system", [crystal(), replicas()], ids=["one", "replicas"])
def test_slices_of_frames(tmp_path, monkeypatch, system, frames):
    monkeypatch.setattr("difmd.trajectory.read._BLOCK", 2)
    run = simulate(tmp_path, system)
    result = difmd.read_trajectory(tmp_path, frames=frames)
    names = ("steps", "positions", "momenta", "potential_energy", "stress", "cells")
    for name in names:
        np.testing.assert_array_equal(getattr(result, name), getattr(run, name)[frames], err_msg=name)
    np.testing.assert_array_equal(result.frames.reservoir, run[frames].frames.reservoir)
    np.testing.assert_array_equal(result.state.momenta, run.state.momenta)


def test_slice_without_frames_raises(tmp_path):
    simulate(tmp_path, crystal())
    with pytest.raises(InputError, match="none of the 4 frames"):
        difmd.read_trajectory(tmp_path, frames=slice(9, None))


def test_run_in_progress(tmp_path, monkeypatch):
    """Its frames are in parts; each part by itself is a trajectory, too."""
    monkeypatch.setattr("difmd.simulation.recorder.WRITE_EVERY", 0.0)
    monkeypatch.setattr("difmd.trajectory.run_folder.RunFolder.join", lambda self: None)
    run = simulate(tmp_path, crystal())
    assert_same(difmd.read_trajectory(tmp_path), run)
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 2
    second = difmd.read_trajectory(parts[1])
    np.testing.assert_array_equal(second.positions, run.positions[2:])
    np.testing.assert_array_equal(second.time, run.time[2:])


@pytest.fixture
def in_parts(tmp_path, monkeypatch):
    """A run of four parts of two frames each that was not joined, and what it returned."""
    with monkeypatch.context() as patch:
        patch.setattr("difmd.simulation.recorder.WRITE_EVERY", 0.0)
        patch.setattr("difmd.trajectory.run_folder.RunFolder.join", lambda self: None)
        run = simulate(tmp_path, crystal(), n_steps=40)
    assert [path.name for path in parts_in(tmp_path)] == [f"{n:012d}.h5" for n in (2, 4, 6, 8)]
    return tmp_path, run


def parts_in(folder):
    return sorted((folder / "parts").iterdir())


def join(folder):
    """Join the parts, as the process of the run does when there are many."""
    settings = files_in(folder)[0][0].end.settings
    RunFolder(folder, crystal(), settings, every=5, dt=4 * units.FS).join()


@pytest.mark.parametrize(
    ("lost", "frames"), [((1,), "3 to 4"), ((0, 1), "1 to 4"), ((2,), "5 to 6"), ((0, 2), "1 to 2")]
)
def test_missing_parts_raise(in_parts, lost, frames):
    folder, _ = in_parts
    for path in [parts_in(folder)[k] for k in lost]:
        path.unlink()
    with pytest.raises(InputError, match=f"frames {frames} in .* are missing.*same call of simulate again"):
        difmd.read_trajectory(folder)


def test_damaged_parts_are_not_reported_as_missing(in_parts):
    folder, _ = in_parts
    parts_in(folder)[1].write_bytes(b"")
    with pytest.raises(InputError, match=r"000004.h5 is damaged") as caught:
        difmd.read_trajectory(folder)
    assert "frames" not in str(caught.value)


def test_superfluous_damaged_part_is_ignored(in_parts):
    folder, run = in_parts
    (folder / "parts" / "000000000003.h5").write_bytes(b"")
    assert_same(difmd.read_trajectory(folder), run)


def test_missing_trajectory_beside_an_older_one_raises(tmp_path):
    for n_steps in (20, 40):
        simulate(tmp_path, crystal(), n_steps=n_steps)
    (tmp_path / "trajectory.h5").unlink()
    with pytest.raises(InputError, match=r"trajectory.h5 is missing"):
        difmd.read_trajectory(tmp_path)


def once(action, function, *, before):
    """The function, with an action before or after its first call."""
    calls = []

    def wrapped(*args, **options):
        is_first = not calls
        calls.append(1)
        if is_first and before:
            action()
        result = function(*args, **options)
        if is_first and not before:
            action()
        return result

    return wrapped


@pytest.mark.parametrize(
    ("place", "function", "before"),
    [
        ("difmd.trajectory.read.files_in", files_in, True),
        ("difmd.trajectory.read.files_in", files_in, False),
        ("difmd.trajectory.h5md.read_end", h5md.read_end, True),
        ("difmd.trajectory.h5md.read_end", h5md.read_end, False),
        ("difmd.trajectory.h5md.read_start", h5md.read_start, True),
        ("difmd.trajectory.h5md.joined", h5md.joined, True),
    ],
)
@pytest.mark.parametrize("has_trajectory", [False, True])
def test_parts_that_are_joined_while_they_are_read(
    in_parts, monkeypatch, place, function, before, has_trajectory
):
    folder, run = in_parts
    if has_trajectory:
        # The first parts are joined already.
        later = {path: path.read_bytes() for path in parts_in(folder)[2:]}
        for path in later:
            path.unlink()
        join(folder)
        for path, contents in later.items():
            path.write_bytes(contents)

    def action():
        with monkeypatch.context() as patch:
            patch.setattr(place, function)
            join(folder)

    monkeypatch.setattr(place, once(action, function, before=before))
    assert_same(difmd.read_trajectory(folder), run)
    assert not parts_in(folder)


def test_parts_that_disappear_one_by_one_do_not_shorten_a_run(in_parts, monkeypatch):
    """The last ones disappear first, and are not listed."""
    folder, run = in_parts
    first_parts = {path: path.read_bytes() for path in parts_in(folder)[:2]}

    def action():
        join(folder)
        contents = (folder / "trajectory.h5").read_bytes()
        (folder / "trajectory.h5").unlink()
        for path, content in first_parts.items():
            path.write_bytes(content)
        monkeypatch.setattr("difmd.trajectory.read.files_in", once(later(contents), files_in, before=False))

    def later(contents):
        def write():
            (folder / "trajectory.h5").write_bytes(contents)

        return write

    def first(path):
        action()
        from difmd.trajectory import read as stored

        return stored.files_in(path)

    monkeypatch.setattr("difmd.trajectory.read.files_in", first)
    assert_same(difmd.read_trajectory(folder), run)


def test_files_that_remain_missing_raise(in_parts, monkeypatch):
    folder, _ = in_parts
    calls = []

    def gone(paths):
        calls.append(paths)
        raise FileNotFoundError("no such file")

    monkeypatch.setattr("difmd.trajectory.h5md.joined", gone)
    with pytest.raises(InputError, match=r"cannot be read \(no such file\): copy it again"):
        difmd.read_trajectory(folder)
    assert 1 < len(calls) < 10


def test_trajectory_converts_to_ase(tmp_path):
    simulate(tmp_path, crystal(fixed=[0, 3]), NVE)
    run = difmd.read_trajectory(tmp_path)
    atoms = run.to_ase()
    assert len(atoms) == 4
    last = atoms[-1]
    np.testing.assert_array_equal(last.positions, run.positions[-1])
    np.testing.assert_array_equal(last.cell, run.cells[-1])
    # Velocities in ASE's unit of time.
    from ase.units import fs

    moved = (run.positions[-1] - run.positions[-3]) / (40 * fs)
    np.testing.assert_allclose(atoms[-2].get_velocities(), moved, atol=0.05 * np.abs(moved).max())
    assert last.get_kinetic_energy() == pytest.approx(run.kinetic_energy[-1], rel=1e-12)
    assert last.get_potential_energy() == run.potential_energy[-1]
    np.testing.assert_array_equal(last.get_stress(voigt=False), run.stress[-1])
    assert last.info["time_ps"] == pytest.approx(0.08)
    assert [a.info["time_ps"] for a in run.to_ase(frames=slice(0, 1))] == pytest.approx([0.02])
    np.testing.assert_array_equal(last.constraints[0].get_indices(), [0, 3])


def test_a_trajectory_is_a_sequence_of_frames():
    run = simulate(None, replicas())
    assert len(run) == len(list(run)) == 4 and len(run[::2]) == 2 and len(run[:0]) == 0
    last = run[-1]
    assert last.step == 20 and last.time == pytest.approx(0.08) and last.to_ase
    np.testing.assert_array_equal(last.system.positions, run.positions[-1])
    for name in ("temperature", "pressure", "volume", "kinetic_energy", "potential_energy"):
        np.testing.assert_array_equal(getattr(last, name), getattr(run, name)[-1], err_msg=name)
        np.testing.assert_array_equal(getattr(run.replica(1), name), getattr(run, name)[:, 1], err_msg=name)
    with pytest.raises(IndexError):
        run[4]
    for value in (run, last, run[:0], run.frames):
        assert len(repr(value).splitlines()) <= 6
    assert "4 of 32 atoms in 2 replicas" in repr(run) and "energy drift" in run._repr_html_()


def test_replicas_without_a_cell_convert_to_ase():
    run = simulate(None, replicas())
    np.testing.assert_array_equal(run.to_ase(replica=1)[2].positions, run.positions[2, 1])
    for wrong in (2, -3, True):
        with pytest.raises(InputError, match=f"replica = {wrong} must be an integer from 0 to 1"):
            run.to_ase(replica=wrong)
    with pytest.raises(InputError, match="choose one of the 2 replicas"):
        run.to_ase()
    dimer = difmd.make_system([[0.0, 0, 0], [3.8, 0, 0]], [18, 18])
    run = simulate(None, dimer)
    (atoms,) = run.to_ase(frames=slice(-1, None))
    assert "stress" not in atoms.calc.results
    with pytest.raises(InputError, match="replica = 0, but this trajectory is of one system"):
        run.to_ase(replica=0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    simulate(folder, crystal(), CSVR)
    return folder / "trajectory.h5"


PLACES = (
    "particles/all/position/value", "particles/all/velocity/value", "particles/all/box/edges/value",
    "particles/all/species", "particles/all/mass", "observables/potential_energy/value",
    "observables/stress/value", "difmd/state_0", "difmd/start/positions",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_flipped_bits_raise(finished, tmp_path, place):
    damaged = bytearray(finished.read_bytes())
    with h5py.File(finished) as file:
        damaged[file[place].id.get_offset()] ^= 1
    (tmp_path / "damaged.h5").write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged.h5 cannot be read \(wrong checksum\)"):
        difmd.read_trajectory(tmp_path / "damaged.h5")


def test_corrupted_or_truncated_files_raise_or_are_correct(finished, tmp_path):
    """The only error is `InputError`, and frames are never wrong."""
    contents, path = finished.read_bytes(), tmp_path / "damaged.h5"
    expected = difmd.read_trajectory(finished)
    rng = np.random.default_rng(0)
    n_errors = 0
    for n in range(150):
        damaged = bytearray(contents)
        at = int(rng.integers(len(contents)))
        if n % 5 == 0:
            del damaged[at:]
        else:
            damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            result = difmd.read_trajectory(path)
        except InputError as error:
            assert "damaged.h5" in str(error)
            n_errors += 1
        else:
            assert_same(result, expected)
    assert n_errors >= 60


def test_error_of_a_damaged_file_contains_its_name_and_the_remedy(finished, tmp_path):
    (tmp_path / "trajectory.h5").write_bytes(finished.read_bytes()[:5000])
    with pytest.raises(
        InputError, match=r"trajectory.h5 is damaged .*truncated.*same call of simulate again"
    ):
        difmd.read_trajectory(tmp_path)


def test_another_integrator_raises(finished):
    with pytest.raises(InputError, match="integrator has another state than that of this run"):
        difmd.read_trajectory(finished, integrator=NVE)
