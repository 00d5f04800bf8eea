"""Morse, Buckingham and damped-shifted Coulomb against closed forms; and invalid arguments."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd._internal import cpu_layout
from difmd.errors import InputError
from difmd.potentials import slots
from difmd.units import COULOMB


def energy_of_pair(potential, r, numbers=(18, 36)):
    system = difmd.make_system([[0, 0, 0], [r, 0, 0]], numbers)
    neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff)
    return difmd.evaluate(potential, potential.init(jax.random.key(0)), system, neighbors)


def test_minimum_of_morse():
    distance = [[3.0, 3.5], [3.5, 4.0]]
    morse = difmd.morse(["Ar", "Kr"], depth=0.02, width=1.4, distance=distance, cutoff=9.0)
    found = energy_of_pair(morse, 3.5)
    np.testing.assert_allclose(found.energy, -0.02, rtol=1e-12)
    np.testing.assert_allclose(found.forces, 0, atol=1e-12)
    expected = 0.02 * ((1 - np.exp(-1.4 * (4.2 - 3.0))) ** 2 - 1)
    np.testing.assert_allclose(energy_of_pair(morse, 4.2, (18, 18)).energy, expected, rtol=1e-12)


def test_buckingham_follows_its_formula():
    buckingham = difmd.buckingham(["Ar", "Kr"], repulsion=1200.0, range=0.3, dispersion=50.0, cutoff=9.0)
    expected = 1200 * np.exp(-3.1 / 0.3) - 50 / 3.1**6
    np.testing.assert_allclose(energy_of_pair(buckingham, 3.1).energy, expected, rtol=1e-12)


def test_madelung_energy_of_rock_salt():
    """−1.747565 k/r₀ per pair of ions, in the limit of a large cut-off."""
    system = difmd.from_ase(ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 2))
    errors = []
    for cutoff in (9.0, 18.0):
        coulomb = difmd.coulomb_damped_shifted(
            ["Na", "Cl"], charges=[1.0, -1.0], damping=3.0 / cutoff, cutoff=cutoff
        )
        neighbors = difmd.neighbor_list(system, cutoff=cutoff)
        energy = coulomb.apply(coulomb.init(jax.random.key(0)), system, neighbors)
        errors.append(float(energy) / (system.n_atoms / 2) / (-1.747564594633 * COULOMB / 2.82) - 1)
    assert abs(errors[0]) < 1e-2 and abs(errors[1]) < 2e-3, errors


@pytest.mark.slow
def test_sums_in_blocks_agree_with_a_single_sum(monkeypatch):
    """Energies, forces, stress and a gradient of them, with a last block that overlaps the one before."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 1)
    atoms.numbers[::3] = 36
    atoms.rattle(0.1, seed=0)
    system = difmd.from_ase(atoms[:15])
    for potential in (
        difmd.lennard_jones(["Ar", "Kr"], sigma=3.4, epsilon=0.01, cutoff=6.0),
        difmd.stillinger_weber(["Ar", "Kr"], epsilon=0.5, sigma=3.0),
    ):
        params = potential.init(jax.random.key(0))
        neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff)

        def work(params, neighbors=neighbors, potential=potential):
            result = difmd.evaluate(potential, params, system, neighbors)
            return jnp.sum(result.forces**2) + jnp.sum(result.stress**2), result

        results = []
        for size in (cpu_layout.SUMMED, 4):
            with monkeypatch.context() as patch:
                patch.setattr(cpu_layout, "SUMMED", size)
                patch.setattr(slots, "_UNROLL", 1)
                # A new function each time, so that it is traced anew.
                results.append(jax.jit(jax.grad(lambda p, work=work: work(p), has_aux=True))(params))
        unsplit, parts = results
        for one, other in zip(jax.tree.leaves(unsplit), jax.tree.leaves(parts), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: difmd.morse(["Ar"], depth=-1.0, width=1.0, distance=3.0, cutoff=9.0), "depth = -1.0"),
        (
            lambda: difmd.morse(
                ["Ar", "Kr"], depth=[[1.0, 2.0], [3.0, 1.0]], width=1.0, distance=3.0, cutoff=9.0
            ),
            "symmetric table of 2 × 2",
        ),
        (
            lambda: difmd.buckingham(["Ar"], repulsion=1.0, range=0.0, dispersion=1.0, cutoff=9.0),
            "range = 0.0",
        ),
        (
            lambda: difmd.coulomb_damped_shifted(["Na", "Cl"], charges=[1.0], damping=0.2, cutoff=9.0),
            "charges has 1 values for 2 species",
        ),
        (
            lambda: difmd.coulomb_damped_shifted(["Na"], charges=1.0, damping=-0.2, cutoff=9.0),
            "damping = -0.2",
        ),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("species", ["Ar", 18, np.int64(18), ["Ar"], (18,), np.array([18])])
def test_one_species_needs_no_list(species):
    """A symbol, a number, or a sequence; parameters of all species may be numbers."""
    potentials = (
        difmd.lennard_jones(species, sigma=3.4, epsilon=0.01, cutoff=8.0),
        difmd.coulomb_damped_shifted(species, charges=0.1, damping=0.2, cutoff=9.0),
        difmd.potentials.atomic_energies(species, energies=-1.5),
        difmd.zbl(species),
        difmd.invariant(species, n_features=2),
    )
    assert all(potential.species == {18} for potential in potentials)
    assert potentials[0].init(jax.random.key(0))["sigma"].shape == (1,)
