"""Tabulated pair potentials and their splines."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.potentials.slots import Row
from difmd.potentials.splines import coefficients, spline


def evaluated(potential, system):
    neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff)
    return difmd.evaluate(potential, potential.init(jax.random.key(0)), system, neighbors)


def test_splines_agree_with_scipy():
    from scipy.interpolate import CubicSpline

    y = np.random.default_rng(0).normal(size=12)
    expected = CubicSpline(0.3 * np.arange(12), y)
    x = jnp.linspace(-0.5, 11.5, 200)
    row = Row(jnp.concatenate([jnp.zeros(5), jnp.asarray(coefficients(y))]), 5)
    np.testing.assert_allclose(spline(row, x, 12), expected(0.3 * x), rtol=1e-9, atol=1e-9)
    slopes = jax.vmap(jax.grad(lambda x: spline(row, x, 12)))(x) / 0.3
    np.testing.assert_allclose(slopes, expected(0.3 * x, 1), rtol=1e-8, atol=1e-8)


def test_table_of_a_cubic_is_exact():
    r = np.linspace(2.0, 6.0, 9)
    cubic = difmd.tabulated(["Ar"], distances=r, energies=(r - 6) ** 2 * (r - 3))
    for x in (2.0, 2.13, 3.5, 5.99):
        system = difmd.make_system([[0, 0, 0], [x, 0, 0]], [18, 18])
        found = evaluated(cubic, system)
        np.testing.assert_allclose(found.energy, (x - 6) ** 2 * (x - 3), rtol=1e-11, atol=1e-12)
        slope = 2 * (x - 6) * (x - 3) + (x - 6) ** 2
        np.testing.assert_allclose(found.forces[0, 0], slope, rtol=1e-10, atol=1e-11)


def test_table_reproduces_its_potential():
    argon = difmd.lennard_jones(["Ar"], sigma=3.4, epsilon=0.0104, cutoff=8.5, truncation=difmd.switched(7.0))
    atoms = ase.build.bulk("Ar", "fcc", a=5.4, cubic=True)
    atoms.rattle(0.2, seed=1)
    system = difmd.from_ase(atoms)
    r = np.linspace(2.5, 8.5, 601)
    dimers = jnp.zeros((len(r), 2, 3)).at[:, 1, 0].set(r)

    def energy(positions):
        pair = difmd.make_system([[0, 0, 0], [2.5, 0, 0]], [18, 18]).replace(positions=positions)
        return argon.apply(argon.init(jax.random.key(0)), pair, neighbors)

    neighbors = difmd.neighbor_list(
        difmd.make_system([[0, 0, 0], [2.5, 0, 0]], [18, 18]), cutoff=8.5, skin=1.0
    )
    energies = jax.vmap(energy)(dimers)
    table = difmd.tabulated(["Ar"], distances=r, energies=energies)
    found, expected = evaluated(table, system), evaluated(argon, system)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-6)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-5 * np.abs(expected.forces).max())


def test_params_of_another_table_are_refused():
    r = np.linspace(2.0, 6.0, 9)
    fine = difmd.tabulated(["Ar"], distances=np.linspace(2.0, 6.0, 17), energies=np.zeros(17))
    coarse = difmd.tabulated(["Ar"], distances=r, energies=np.zeros(9)).init(jax.random.key(0))
    system = difmd.make_system([[0, 0, 0], [3.0, 0, 0]], [18, 18])
    with pytest.raises(InputError, match=r"coefficients.*expected \[1, 1, 19\]"):
        difmd.evaluate(fine, coarse, system, difmd.neighbor_list(system, cutoff=6.0))


TABLE = {"distances": np.linspace(2.0, 6.0, 9), "energies": np.zeros(9)}


def test_printed_and_single_precision_grids_are_even_enough():
    for r in (np.round(np.linspace(2.0, 8.5, 602), 4), np.linspace(2.0, 8.5, 602, dtype=np.float32)):
        assert difmd.tabulated(["Ar"], distances=r, energies=np.zeros(602)).cutoff == r[-1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: difmd.tabulated(["Ar"], **TABLE | {"distances": np.geomspace(2.0, 6.0, 9)}),
            "evenly spaced",
        ),
        (lambda: difmd.tabulated(["Ar"], **TABLE | {"energies": np.zeros(8)}), "one per distance, 9 in all"),
        (lambda: difmd.tabulated(["Ar"], **TABLE | {"energies": np.full(9, np.inf)}), "must be finite"),
        (lambda: difmd.tabulated(["Ar"], distances=[1.0, 2.0], energies=[0.0, 0.0]), "at least four"),
        (lambda: difmd.tabulated(["Ar"], **TABLE | {"distances": np.linspace(-1, 7, 9)}), "not be negative"),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
