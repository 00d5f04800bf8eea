"""Lennard-Jones reference calculations of the NIST Standard Reference Simulation Website.

Four configurations with plain truncation at rc = 3σ and 4σ: pair energy, virial and tail correction, every
printed digit. doi:10.18434/T4M88Q.
"""

import json

import jax
import numpy as np
import pytest

from difmd.forces import evaluate
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones
from difmd.system import make_system

# (configuration, atoms, edge, cutoff): energy, virial, tail, as printed; ε = σ = 1.
TABLE = {
    (1, 800, 10, 3): ("-4351.5", "-568.67", "-198.49"),
    (1, 800, 10, 4): ("-4467.5", "-1263.9", "-83.769"),
    (2, 200, 8, 3): ("-690.00", "-568.46", "-24.230"),
    (2, 200, 8, 4): ("-704.60", "-655.99", "-10.226"),
    (3, 400, 10, 3): ("-1146.7", "-1164.9", "-49.622"),
    (3, 400, 10, 4): ("-1175.4", "-1337.1", "-20.942"),
    (4, 30, 8, 3): ("-16.790", "-46.249", "-0.54517"),
    (4, 30, 8, 4): ("-17.060", "-47.869", "-0.23008"),
}
CASES = list(TABLE)


def as_printed(value, printed):
    """`value` with as many decimals as `printed` has."""
    return f"{float(value):.{len(printed.partition('.')[2])}f}"


@pytest.fixture(scope="module")
def evaluations(shared_data):
    """Energy, forces and stress without and with the tail, for each row of the table."""
    found = {}
    for case in CASES:
        number, n_atoms, edge, cutoff = case
        file = shared_data / "nist_srsw" / f"lj_sample_config_periodic{number}.txt"
        positions = np.loadtxt(file, skiprows=2)[:, 1:4]
        assert positions.shape == (n_atoms, 3)
        assert np.allclose(np.loadtxt(file, max_rows=1), edge)
        system = make_system(positions, np.full(n_atoms, 18), cell=[edge] * 3, masses=np.ones(n_atoms))
        neighbors = neighbor_list(system, cutoff=cutoff)
        one = {"sigma": 1.0, "epsilon": 1.0, "cutoff": cutoff}
        bare = lennard_jones(["Ar"], **one)
        corrected = lennard_jones(["Ar"], **one, tail_correction=True)
        params = bare.init(jax.random.key(0))
        found[case] = jax.jit(
            lambda p, s, n, bare=bare, corrected=corrected: (
                evaluate(bare, p, s, n),
                evaluate(corrected, p, s, n),
            )
        )(params, system, neighbors)
    return found


@pytest.mark.parametrize("case", CASES)
def test_energy_virial_and_tail_to_every_printed_digit(case, evaluations):
    energy, virial, tail = TABLE[case]
    bare, corrected = evaluations[case]
    volume = case[2] ** 3
    assert as_printed(bare.energy, energy) == energy
    # The tabulated virial is W = −Σ r·∂φ/∂r over the pairs, minus the trace of ∂U/∂strain.
    assert as_printed(-np.trace(bare.stress) * volume, virial) == virial
    assert as_printed(corrected.energy - bare.energy, tail) == tail


@pytest.mark.parametrize("case", CASES)
def test_tail_of_the_pressure(case, evaluations):
    _, n_atoms, edge, cutoff = case
    density = n_atoms / edge**3
    expected = 16 / 3 * np.pi * density**2 * (2 / 3 * cutoff**-9 - cutoff**-3)
    bare, corrected = evaluations[case]
    tail = corrected.stress - bare.stress
    np.testing.assert_allclose(tail, -expected * np.eye(3), rtol=1e-9, atol=1e-12 * abs(expected))


def test_table_is_that_of_the_downloaded_file(shared_data):
    reference = json.loads((shared_data / "nist_srsw" / "reference.json").read_text())
    rows = [row for row in reference["lj"]["rows"] if row[3] == "LRC"]
    assert {
        (number, n_atoms, edge, cutoff): tuple(values) for number, n_atoms, edge, _, cutoff, *values in rows
    } == {case: tuple(map(float, printed)) for case, printed in TABLE.items()}
