"""Warnings of `simulate` about values that are likely to be in a wrong unit."""

import jax
import numpy as np
import pytest
from ase.build import bulk, molecule

import difmd
from difmd import units
from difmd.simulation.unit_warnings import suspicious_units

METHANE = difmd.from_ase(molecule("CH4", vacuum=4.0))
ARGON = difmd.from_ase(bulk("Ar", "fcc", a=5.4, cubic=True))


def nve(dt):
    return difmd.velocity_verlet(dt=dt)


def langevin(friction):
    return difmd.langevin(dt=4 * units.FS, temperature=90.0, friction=friction)


def barostat(pressure):
    return difmd.cell_rescaling(
        dt=4 * units.FS, temperature=90.0, friction=1 / units.PS, time_constant=units.PS, pressure=pressure
    )


def csvr(time_constant):
    return difmd.csvr(dt=4 * units.FS, temperature=90.0, time_constant=time_constant)


SUSPICIOUS = {
    "20 fs at C–H bonds": (nve(20 * units.FS), METHANE, "is 20 fs", "dt=0.59 * units.FS"),
    "time step without unit": (nve(2.0), ARGON, "is 20.4 fs", "dt=2 * units.FS"),
    "time step of tens of fs": (nve(50 * units.FS), ARGON, "is 50 fs", "dt=3.7 * units.FS"),
    "friction times a time": (langevin(2 * units.PS), ARGON, "/ps", "friction=2 / units.PS"),
    "damping time of 10 ns": (langevin(1e-4 / units.PS), ARGON, "1e+04 ps", "friction=1 / units.PS"),
    "time constant over a time": (csvr(0.5 / units.PS), ARGON, "ps", "time_constant=0.5 * units.PS"),
    "100 GPa": (barostat(100 * units.GPA), ARGON, "is 100 GPa or 1e+06 bar", "pressure=100 * units.BAR"),
    "100 GPa at the end of a ramp": (
        barostat(difmd.ramp([0, 9], [0.0, 100 * units.GPA])), ARGON, "is 100 GPa", "pressure=100 * units.BAR",
    ),
}  # fmt: skip

USUAL = {
    "half a fs at C–H bonds": (nve(0.5 * units.FS), METHANE),
    "2 fs at C–H bonds": (nve(2 * units.FS), METHANE),
    "10 fs of argon": (nve(10 * units.FS), ARGON),
    "no friction": (langevin(0.0), ARGON),
    "weak friction": (langevin(0.01 / units.PS), ARGON),
    "strong friction": (langevin(50 / units.PS), ARGON),
    "1 GPa": (barostat(units.GPA), ARGON),
    "a tensor": (barostat(np.diag([1.0, 2.0, 3.0]) * units.BAR), ARGON),
    "a cluster": (langevin(1 / units.PS), difmd.make_system(3.8 * np.eye(3), [18] * 3)),
}


@pytest.mark.parametrize("case", SUSPICIOUS)
def test_suspicious_values_are_reported_in_both_units_with_the_likely_expression(case):
    integrator, system, value, expression = SUSPICIOUS[case]
    (message,) = suspicious_units(integrator, system)
    assert value in message and f"`{expression}`" in message


@pytest.mark.parametrize("case", USUAL)
def test_usual_values_pass(case):
    assert list(suspicious_units(*USUAL[case])) == []


def test_simulate_warns():
    potential = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0103, cutoff=5.0)
    params = potential.init(jax.random.key(0))
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
    options = {"n_steps": 2, "save_every": 1, "key": jax.random.key(0), "progress": False}
    with pytest.warns(UserWarning, match="friction=1 / units.PS"):
        run = difmd.simulate(potential, params, atoms, langevin(units.PS), initial_temperature=9.0, **options)
    assert len(run) == 2
