"""Runs on disk: their files, and how they continue after interruptions and damage."""

import json
import signal
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from killed import run_killed

import difmd
from difmd import units
from difmd.errors import InputError

h5py = pytest.importorskip("h5py")

# A run of NPT that prints before it begins, with a file after every chunk.
SCRIPT = """
import sys
import jax
import numpy as np
import difmd
from difmd import units
import difmd.simulation.recorder

difmd.simulation.recorder.WRITE_EVERY = 0.0
folder, n_steps = sys.argv[1], int(sys.argv[2].split("/")[-1])
potential = difmd.lennard_jones(
    ["Ar"], sigma=3.4, epsilon=0.0103, cutoff=7.0, truncation=difmd.switched(6.0)
)
x = 5.5 * np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 1, 3)
x = (x + 2.75 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])).reshape(-1, 3)
system = difmd.make_system(x, np.full(108, 18), cell=[16.5] * 3)
bath = difmd.cell_rescaling(
    dt=4 * units.FS, temperature=100.0, pressure=300 * units.BAR, friction=2 / units.PS,
    time_constant=0.2 * units.PS, compressibility=2e-4 / units.BAR,
)
print("begins", flush=True)
difmd.simulate(
    potential, potential.init(jax.random.key(0)), system, bath, n_steps=n_steps, save_every=10,
    chunk_steps=100, initial_temperature=100.0, key=jax.random.key(0), folder=folder, progress=False,
)
"""

POTENTIAL = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=6.0, truncation=difmd.switched(5.0))
PARAMS = POTENTIAL.init(jax.random.key(0))


def crystal():
    x = 5.5 * np.stack(np.meshgrid(*[np.arange(2)] * 3), -1).reshape(-1, 1, 3)
    x = (x + 2.75 * np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])).reshape(-1, 3)
    return difmd.make_system(x, np.full(len(x), 18), masses=np.linspace(30, 50, len(x)), cell=[11.0] * 3)


def simulate(folder, n_steps=60, *, system=None, key=0, **more):
    bath = difmd.langevin(dt=4 * units.FS, temperature=60.0, friction=1 / units.PS)
    return difmd.simulate(
        POTENTIAL, PARAMS, crystal() if system is None else system, more.pop("integrator", bath),
        n_steps=n_steps, save_every=5, chunk_steps=10, initial_temperature=60.0, key=jax.random.key(key),
        folder=folder, progress=False, skin=1.0, **more,
    )  # fmt: skip


def content(folder):
    return (folder / "trajectory.h5").read_bytes()


@pytest.fixture
def each_chunk(monkeypatch):
    """A file after every chunk."""
    monkeypatch.setattr("difmd.simulation.recorder.WRITE_EVERY", 0.0)


def test_frames_on_disk_equal_those_in_memory(tmp_path):
    memory, disk = simulate(None), simulate(tmp_path)
    for name in ("positions", "cells", "potential_energy", "stress", "time"):
        np.testing.assert_array_equal(getattr(memory, name), getattr(disk, name))
    np.testing.assert_allclose(memory.momenta, disk.momenta, rtol=1e-14)
    assert np.isnan(disk.conserved).all()
    with h5py.File(tmp_path / "trajectory.h5") as file:
        assert tuple(file["h5md"].attrs["version"]) == (1, 1)
        particles = file["particles/all"]
        np.testing.assert_array_equal(particles["position/value"][-1], memory.positions[-1])
        np.testing.assert_allclose(particles["position/time"][:], memory.time)
        np.testing.assert_array_equal(particles["position/step"][:], np.arange(5, 61, 5))
        assert list(particles["box"].attrs["boundary"]) == ["periodic"] * 3
        assert particles["position/value"].attrs["unit"] == "Angstrom"
    lines = (tmp_path / "provenance.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["n_steps"] == 60 and json.loads(lines[0])["jax"] == jax.__version__


def test_mdanalysis_opens_the_file(tmp_path):
    mda = pytest.importorskip("MDAnalysis")
    run = simulate(tmp_path)
    universe = mda.Universe.empty(run.system.n_atoms, trajectory=True)
    universe.load_new(str(tmp_path / "trajectory.h5"), format="H5MD", convert_units=False)
    assert len(universe.trajectory) == len(run)
    np.testing.assert_allclose(universe.trajectory[-1].positions, run.positions[-1], rtol=1e-5, atol=1e-4)


def test_joined_parts_equal_the_file_of_one_run(tmp_path, each_chunk):
    simulate(tmp_path / "complete")
    for n_steps in (20, 45, 60):
        run = simulate(tmp_path / "parts", n_steps)
    # Chunks begin where runs ended, so that frames differ by rounding unless runs end with full chunks.
    assert len(run) == 12
    for n_steps in (20, 40, 60):
        simulate(tmp_path / "chunks", n_steps)
    assert content(tmp_path / "chunks") == content(tmp_path / "complete")
    assert not list((tmp_path / "chunks" / "parts").iterdir())


def test_run_killed_before_its_parts_are_joined(tmp_path, monkeypatch, each_chunk):
    simulate(tmp_path / "complete")
    with monkeypatch.context() as patch:
        patch.setattr("difmd.trajectory.run_folder.RunFolder.join", lambda self: None)
        simulate(tmp_path / "killed")
    assert not (tmp_path / "killed" / "trajectory.h5").exists()
    simulate(tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "complete")


@pytest.mark.slow
def test_replicas_and_runs_larger_than_memory(tmp_path):
    systems = jax.tree.map(lambda x: jnp.stack([x, x]), crystal())
    run = simulate(tmp_path, system=systems, load=False)
    assert run.positions.shape == (0, 2, 32, 3) and int(run.state.step[0]) == 60
    result = simulate(tmp_path, system=systems)
    np.testing.assert_array_equal(result.positions[-1], np.asarray(run.state.system.positions))
    frames = difmd.read_trajectory(tmp_path)
    assert frames.positions.shape == (12, 2, 32, 3) and frames.potential_energy.shape == (12, 2)


def test_conserved_energy_is_stored(tmp_path):
    run = simulate(tmp_path, integrator=difmd.velocity_verlet(dt=2 * units.FS))
    assert np.ptp(run.conserved) < 1e-3 * np.ptp(run.kinetic_energy)


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty"])
@pytest.mark.parametrize("which", ["part", "trajectory"])
def test_damaged_files_are_reported_and_computed_again(tmp_path, monkeypatch, damage, which, each_chunk):
    simulate(tmp_path / "complete")
    if which == "trajectory":
        simulate(tmp_path / "damaged", 40)
        simulate(tmp_path / "damaged", 60)
        path = tmp_path / "damaged" / "trajectory.h5"
    else:
        # Parts are not joined.
        with monkeypatch.context() as patch:
            patch.setattr("difmd.trajectory.run_folder.RunFolder.join", lambda self: None)
            simulate(tmp_path / "damaged", 40)
        path = sorted((tmp_path / "damaged" / "parts").iterdir())[2]
    contents = path.read_bytes()
    cut = {"cut off": contents[: len(contents) // 2], "empty": b"", "changed": bytearray(contents)}[damage]
    if damage == "changed":
        with h5py.File(path) as file:
            place = file["particles/all/position/value"].id.get_offset()
        cut[place + 8] ^= 1
    path.write_bytes(bytes(cut))
    with pytest.warns(UserWarning, match="damaged"):
        simulate(tmp_path / "damaged", 60)
    assert content(tmp_path / "damaged") == content(tmp_path / "complete")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(tmp_path / "damaged", 60)


@pytest.mark.parametrize(("lost", "frames"), [(1, "frames 3 to 4"), (0, "frames 1 to 2")])
def test_missing_parts_are_reported_and_computed_again(tmp_path, monkeypatch, lost, frames, each_chunk):
    simulate(tmp_path / "complete", 40)
    with monkeypatch.context() as patch:
        patch.setattr("difmd.trajectory.run_folder.RunFolder.join", lambda self: None)
        simulate(tmp_path / "gap", 40)
    sorted((tmp_path / "gap" / "parts").iterdir())[lost].unlink()
    begin = 2 * lost + 1
    with pytest.warns(
        UserWarning, match=f"{frames} in .* are missing: frames from {begin} on are computed again"
    ):
        simulate(tmp_path / "gap", 40)
    assert content(tmp_path / "gap") == content(tmp_path / "complete")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(tmp_path / "gap", 40)


def test_fewer_steps_than_on_disk_raise(tmp_path):
    simulate(tmp_path, 20)
    with pytest.raises(InputError, match="more than n_steps"):
        simulate(tmp_path, 10)


@pytest.mark.parametrize("changes", [{"key": 1}, {"integrator": difmd.velocity_verlet(dt=4 * units.FS)}])
def test_folder_of_another_run_raises(tmp_path, changes):
    simulate(tmp_path, 20)
    with pytest.raises(InputError, match="another run"):
        simulate(tmp_path, 20, **changes)


def test_folder_that_is_a_file_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        simulate(tmp_path / "file")


@pytest.mark.slow
def test_terminated_run_keeps_its_frames(tmp_path):
    """After SIGTERM there is a message, and no incomplete file."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), "200000"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    parts = tmp_path / "run" / "parts"
    while not (parts.is_dir() and list(parts.glob("[0-9]*.h5"))):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert "run it again to continue" in errors
    assert not list(parts.glob(".*partial"))


def killed(tmp_path, n_kills, n_steps):
    """Kill a run repeatedly, also while it starts, and compare its file with that of one run."""
    steps = str(n_steps)
    assert run_killed(SCRIPT, tmp_path / "complete", steps, None)
    rng = np.random.default_rng(0)
    n_killed = 0
    for _ in range(n_kills):
        # Starting takes some seconds, so that some kills happen meanwhile.
        n_killed += not run_killed(SCRIPT, tmp_path / "killed", steps, rng.uniform(0, 10.0))
    assert run_killed(SCRIPT, tmp_path / "killed", steps, None)
    assert content(tmp_path / "killed") == content(tmp_path / "complete")
    with h5py.File(tmp_path / "killed" / "trajectory.h5") as file:
        result = file["particles/all/position/step"][:]
    np.testing.assert_array_equal(result, np.arange(10, n_steps + 1, 10))
    return n_killed


@pytest.mark.slow
def test_run_killed_three_times_writes_the_same_file(tmp_path):
    assert killed(tmp_path, 3, 10_000) >= 1


@pytest.mark.slow
def test_run_killed_fifty_times_writes_the_same_file(tmp_path):
    assert killed(tmp_path, 50, 600_000) == 50
