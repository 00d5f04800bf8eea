"""The repulsion of nuclei against its formula in NumPy, LAMMPS and MACE."""

import functools

import ase.data
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.potentials import invariant, zbl
from difmd.units import BOHR, COULOMB


def dimers(potential, pairs, radii):
    """Energy and force of pairs of atoms [eV, eV/Å], all far from each other, in one evaluation."""
    far = 10 * potential.cutoff * np.arange(len(radii))
    positions = np.zeros((len(radii), 2, 3))
    positions[:, :, 0] = far[:, None]
    positions[:, 1, 0] += radii
    system = difmd.make_system(positions.reshape(-1, 3), np.array(pairs).reshape(-1))
    neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff)
    params = potential.init(jax.random.key(0))
    forces, energies = jax.jit(
        lambda s: (
            difmd.forces.forces(potential, params, s, neighbors),
            potential.atomic(params, s, neighbors),
        )
    )(system)
    np.testing.assert_allclose(forces[0::2], -forces[1::2], atol=1e-9)
    return np.asarray(energies).reshape(-1, 2).sum(axis=1), np.asarray(forces)[1::2, 0]


def formula(z, r, reach, *, exponent=0.23, length=0.8854 * BOHR, coulomb=COULOMB, p=6):
    """As printed; numbers of MACE are passed in."""
    x = r * (z[0] ** exponent + z[1] ** exponent) / length
    screening = np.array([0.1818, 0.5099, 0.2802, 0.02817]) @ np.exp(
        -np.outer([3.2, 0.9423, 0.4028, 0.2016], x)
    )
    y = np.minimum(r / reach, 1)
    end = 1 - (p + 1) * (p + 2) / 2 * y**p + p * (p + 2) * y ** (p + 1) - p * (p + 1) / 2 * y ** (p + 2)
    return coulomb * z[0] * z[1] / r * screening * end


@pytest.mark.parametrize("z", [(1, 8), (8, 8), (79, 14)])
@pytest.mark.parametrize("cutoff", [None, 2.2], ids=["bonds", "given"])
def test_energy_is_the_formula_and_force_its_slope(z, cutoff):
    bonds = sum(ase.data.covalent_radii[k] for k in z)
    reach = bonds if cutoff is None else cutoff
    r = np.append(np.linspace(0.05, 0.99, 9), [1 + 1e-9, 1.2]) * reach
    potential = zbl([1, 8, "Si", "Au"], cutoff=cutoff)
    assert potential.cutoff == pytest.approx(2 * 1.36 if cutoff is None else cutoff)
    at = functools.partial(formula, z, reach=reach)
    energy, pull = dimers(potential, [z] * len(r), r)
    np.testing.assert_allclose(energy, at(r), rtol=1e-11, atol=1e-12)
    h = 1e-4 * r
    slope = (8 * (at(r + h) - at(r - h)) - at(r + 2 * h) + at(r - 2 * h)) / (12 * h)
    np.testing.assert_allclose(pull, -slope, rtol=1e-8, atol=1e-5)
    assert not energy[-2:].any() and not pull[-2:].any()


def test_each_pair_ends_smoothly_at_its_cutoff():
    potential = zbl(["H", "O"], cutoff=[[1.5, 2.0], [2.0, 2.5]])
    for z, reach in (((1, 1), 1.5), ((1, 8), 2.0), ((8, 8), 2.5)):
        energy, pull = dimers(potential, [z] * 3, reach * np.array([0.5, 1 - 1e-5, 1 + 1e-9]))
        assert energy[0] > 0.1 and pull[0] > 1
        # A third derivative is what is left: (1e-5)³ and (1e-5)².
        assert 0 <= energy[1] < 1e-12 and 0 <= pull[1] < 1e-7
        assert energy[2] == 0 and pull[2] == 0


def test_forces_agree_with_lammps():
    """`pair_style zbl 30 31` of LAMMPS 22 Jul 2025, which has more digits of the screening function."""
    r = np.array([0.3, 1.1, 2.0])
    lammps = [59213.9150031, 398.962813427, 14.6899112529]
    # At 500 Å the envelope differs from 1 by less than 1e-12 here.
    _, pull = dimers(zbl(["Si", "Au"], cutoff=500.0), [(14, 79)] * 3, r)
    np.testing.assert_allclose(pull, lammps, rtol=1.2e-3)


def test_settings_of_mace():
    """Its Bohr radius and Coulomb constant have fewer digits."""
    r = np.array([0.2, 0.6, 0.9])
    potential = zbl(["H", "O"], p=5, exponent=0.3, prefactor=0.4543 * 0.529 / BOHR)
    theirs = formula((8, 1), r, 0.66 + 0.31, exponent=0.3, length=0.4543 * 0.529, coulomb=14.3996, p=5)
    np.testing.assert_allclose(dimers(potential, [(8, 1)] * 3, r)[0], theirs, rtol=5e-6)


@pytest.mark.slow
def test_sum_with_a_network_follows_the_precision_of_the_inputs():
    network = invariant(["H", "O"], cutoff=3.0, n_features=2, n_layers=1, l_max=0)
    prior = zbl(["O", "H"])
    total = prior + network
    params = total.init(jax.random.key(0))
    system = difmd.make_system([[0.0, 0.0, 0.0], [0.6, 0.0, 0.0], [0.0, 1.1, 0.3]], [8, 1, 1])
    neighbors = difmd.neighbor_list(system, cutoff=total.cutoff)
    both, one, two = jax.jit(
        lambda p, s: [
            difmd.evaluate(part, q, s, neighbors)[:2]
            for part, q in ((total, p), (prior, p[0]), (network, p[1]))
        ]
    )(params, system)
    assert one[0] > 1
    np.testing.assert_allclose(both[0], one[0] + two[0], rtol=1e-12)
    np.testing.assert_allclose(both[1], one[1] + two[1], atol=1e-12)
    names = ("positions", "cell", "masses")
    single = system.replace(**{name: getattr(system, name).astype(jnp.float32) for name in names})
    low = jax.jit(lambda s: prior.apply({}, s, neighbors))(single)
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, one[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"species": ["Xx"]}, "neither a chemical symbol"),
        ({"species": ["Bk", "H"]}, "no covalent radius of Bk: give a cutoff"),
        ({"cutoff": -1.0}, "cutoff = -1.0 must be positive"),
        ({"cutoff": float("nan")}, "cutoff = nan must be positive"),
        ({"cutoff": [[1.0, 2.0], [3.0, 1.0]]}, "symmetric table of 2 × 2"),
        ({"p": 0}, "p = 0"),
        ({"exponent": -0.3}, "exponent = -0.3"),
        ({"prefactor": 0.0}, "prefactor = 0.0"),
    ],
)
def test_invalid_arguments_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        zbl(**{"species": ["H", "O"], **settings})


def test_heavy_elements_need_a_cutoff():
    energy, _ = dimers(zbl(["Bk"], cutoff=2.0), [(97, 97)], np.array([1.0]))
    np.testing.assert_allclose(energy, formula((97, 97), np.array([1.0]), 2.0), rtol=1e-11)
