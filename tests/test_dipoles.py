"""Charges of networks, and the dipoles that they make."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd.data import Frame, make_batches
from difmd.errors import InputError
from difmd.forces import evaluate
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, mace, nequip, network_potential
from difmd.system import host_system, make_system
from difmd.training import predict

CUTOFF = 4.0
SMALL = {"cutoff": CUTOFF, "radial_hidden": (4,), "avg_num_neighbors": 4.0, "charges": True}
NETWORKS = {
    "mace": lambda: mace(["H", "C", "O"], n_features=2, l_max=2, readout_hidden=3, **SMALL),
    "mace with dipoles": lambda: mace(
        ["H", "C", "O"],
        n_features=2,
        l_max_features=1,
        l_max=1,
        readout_hidden=3,
        atomic_dipoles=True,
        **SMALL,
    ),
    "nequip with dipoles": lambda: nequip(
        ["H", "C", "O"], n_features=4, n_layers=2, atomic_dipoles=True, **SMALL
    ),
}
FORMALDEHYDE = np.array([[0.0, 0.02, -0.6], [0.05, 0.0, 0.6], [0.1, 0.94, -1.2], [0.0, -0.9, -1.15]])
NUMBERS = np.array([6, 8, 1, 1])
WATER = np.array([[0.0, 0.1, 0.0], [0.9, 0.0, 0.2], [-0.3, 0.9, 0.0]])
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
ORDER = np.array([2, 0, 3, 1])

# All are padded to the size of the largest, so that they are compiled once.
CONFIGURATIONS = {
    "rest": (FORMALDEHYDE, NUMBERS),
    "turned": (FORMALDEHYDE @ TURN, NUMBERS),
    "inverted": (-FORMALDEHYDE, NUMBERS),
    "shifted": (FORMALDEHYDE + [30.0, -20.0, 7.0], NUMBERS),
    "swapped": (FORMALDEHYDE[ORDER], NUMBERS[ORDER]),
    "water": (WATER, [8, 1, 1]),
    "both": (np.concatenate([FORMALDEHYDE, WATER + 20.0]), [*NUMBERS, 8, 1, 1]),
    "alone": ([[1.0, 2.0, 3.0]], [8]),
}


@pytest.fixture(autouse=True)
def quick_compilation():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


# Each is compiled many times.
SLOW = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=[
        "mace with dipoles",
        *(pytest.param(name, marks=SLOW) for name in NETWORKS if name != "mace with dipoles"),
    ],
)
def case(request):
    """A network, its params, and what it makes of every configuration."""
    potential = NETWORKS[request.param]()
    params = potential.init(jax.random.key(1))
    frames = [Frame(system=host_system(np.asarray(r), z)) for r, z in CONFIGURATIONS.values()]
    (batch,) = make_batches(frames, cutoff=CUTOFF, batch_size=len(frames), max_shapes=1)
    predicted = jax.jit(lambda p, b: predict(potential, p, b))
    evaluated = predicted(params, batch)
    rows = {
        name: jax.tree.map(lambda x, k=k: np.asarray(x[k]), evaluated)
        for k, name in enumerate(CONFIGURATIONS)
    }
    return SimpleNamespace(potential=potential, params=params, batch=batch, predicted=predicted, **rows)


def listed(positions=FORMALDEHYDE, numbers=NUMBERS, skin=0.0, **cell):
    system = make_system(np.asarray(positions), numbers, **cell)
    return system, neighbor_list(system, cutoff=CUTOFF, skin=skin)


def test_dipole_is_a_vector(case):
    """It rotates and is inverted with the molecule, and is independent of its position."""
    rest = case.rest
    assert rest.dipole.shape == (3,) and np.linalg.norm(rest.dipole) > 0.01
    assert np.all(np.abs(rest.charges[:4]) > 1e-4)
    for name, matrix in (("turned", TURN), ("inverted", -np.eye(3)), ("shifted", np.eye(3))):
        moved = getattr(case, name)
        np.testing.assert_allclose(moved.dipole, rest.dipole @ matrix, atol=1e-12)
        np.testing.assert_allclose(moved.charges, rest.charges, atol=1e-12)
    np.testing.assert_allclose(case.swapped.dipole, rest.dipole, atol=1e-12)
    np.testing.assert_allclose(case.swapped.charges[:4], rest.charges[ORDER], atol=1e-12)


def test_separate_groups_of_atoms_are_neutral(case):
    """Far molecules add, and an atom by itself has neither charge nor dipole."""
    assert abs(np.sum(case.rest.charges)) < 1e-13 and abs(np.sum(case.water.charges)) < 1e-13
    apart = [*case.rest.charges[:4], *case.water.charges[:3]]
    np.testing.assert_allclose(case.both.charges, apart, atol=1e-12)
    np.testing.assert_allclose(case.both.dipole, case.rest.dipole + case.water.dipole, atol=1e-12)
    np.testing.assert_array_equal(case.alone.charges, 0)
    np.testing.assert_allclose(case.alone.dipole, 0, atol=1e-14)


def test_dipole_is_independent_of_padding_and_other_frames(case):
    system, neighbors = listed()
    evaluation = jax.jit(lambda p: evaluate(case.potential, p, system, neighbors))(case.params)
    np.testing.assert_allclose(case.rest.dipole, evaluation.dipole, atol=1e-12)
    np.testing.assert_allclose(case.rest.charges[:4], evaluation.charges, atol=1e-12)
    assert not np.any(case.rest.charges[4:])


def test_single_precision_follows_the_inputs(case):
    """Also far from the origin, where charges that nearly add up to zero would not do."""
    single = jax.tree.map(
        lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, (case.params, case.batch)
    )
    evaluation = case.predicted(*single)
    assert evaluation.dipole.dtype == np.float32 and evaluation.charges.dtype == np.float32
    for k, name in enumerate(CONFIGURATIONS):
        # Positions themselves are rounded to 2e-6 Å where they are large.
        close = 1e-5 if name in ("shifted", "both") else 1e-6
        np.testing.assert_allclose(evaluation.dipole[k], getattr(case, name).dipole, rtol=1e-6, atol=close)


def test_charges_do_not_change_energies_and_forces(case):
    """Charges are read out on the way, and only where they are asked for."""
    system, neighbors = listed()
    value = jax.jit(jax.value_and_grad(lambda r: plain(case, system.replace(positions=r), neighbors)))
    energy, gradient = value(system.positions)
    np.testing.assert_allclose(energy, case.rest.energy, rtol=1e-12)
    np.testing.assert_allclose(-gradient, case.rest.forces[:4], rtol=1e-9, atol=1e-12)


def plain(case, system, neighbors):
    return case.potential.apply(case.params, system, neighbors)


@pytest.mark.slow
def test_derivatives_of_a_dipole_agree_with_central_differences(case):
    """In positions and in weights, each of which affects the energy or the dipole."""
    system, neighbors = listed(skin=0.5)

    @jax.jit
    def component(params, positions):
        evaluation = evaluate(case.potential, params, system.replace(positions=positions), neighbors)
        return evaluation.dipole @ jnp.asarray([0.3, -0.5, 0.8]), evaluation.energy

    slopes, of_energy = jax.jit(jax.jacrev(component, (0, 1)))(case.params, system.positions)
    rng = np.random.default_rng(2)
    along = jax.tree.map(lambda x: rng.normal(size=x.shape), (case.params, system.positions))
    for k in (0, 1):
        step = 1e-5
        toward = [jax.tree.map(lambda a, own=k == j: a * own, x) for j, x in enumerate(along)]
        moved = [
            component(*jax.tree.map(lambda x, a, h=h: x + h * a, [case.params, system.positions], toward))[0]
            for h in (step, -step)
        ]
        slope = sum(map(np.vdot, jax.tree.leaves(along[k]), jax.tree.leaves(slopes[k])))
        np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), rtol=1e-6)
    both = jax.tree.map(lambda a, b: np.abs(a) + np.abs(b), slopes[0], of_energy[0])
    for path, leaf in jax.tree_util.tree_leaves_with_path(both["network"]):
        assert np.isfinite(leaf).all() and np.any(leaf != 0), jax.tree_util.keystr(path)


def test_periodic_system_has_charges_and_no_dipole(case):
    system, neighbors = listed(cell=np.diag([5.0, 6.0, 5.5]), pbc=[False, True, False])
    evaluation = jax.jit(lambda p: evaluate(case.potential, p, system, neighbors))(case.params)
    assert np.isfinite(evaluation.charges).all() and abs(np.sum(evaluation.charges)) < 1e-13
    assert np.isnan(evaluation.dipole).all()


@pytest.mark.slow
def test_sum_has_the_charges_of_its_terms(tmp_path):
    first, other = NETWORKS["mace with dipoles"](), NETWORKS["nequip with dipoles"]()
    bare = lennard_jones(["H", "C", "O"], sigma=1.0, epsilon=0.01, cutoff=CUTOFF)
    system, neighbors = listed()

    def evaluated(potential, params):
        return jax.jit(lambda p: evaluate(potential, p, system, neighbors))(params)

    both = (bare + first) + other
    params = both.init(jax.random.key(0))
    together = evaluated(both, params)
    parts = [evaluated(p, q) for p, q in zip((bare, first, other), (*params[0], params[1]), strict=True)]
    assert parts[0].dipole is None and parts[0].charges is None
    np.testing.assert_allclose(together.dipole, parts[1].dipole + parts[2].dipole, atol=1e-12)
    np.testing.assert_allclose(together.charges, parts[1].charges + parts[2].charges, atol=1e-12)
    np.testing.assert_allclose(together.energy, sum(p.energy for p in parts), rtol=1e-12)
    np.testing.assert_allclose(together.forces, sum(p.forces for p in parts), atol=1e-11)
    assert (bare + bare).with_multipoles is None
    difmd.save(tmp_path / "model.npz", both, params)
    again, loaded, _ = difmd.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(evaluated(again, loaded).dipole, together.dipole)


def test_charges_need_no_second_pass_through_the_network():
    """Operations of an evaluation with charges over those of one without."""
    system, neighbors = listed()
    counts = {}
    for charges in (False, True):
        network = mace(["H", "C", "O"], n_features=16, l_max=1, cutoff=CUTOFF, charges=charges)
        compiled = jax.jit(lambda p, network=network: evaluate(network, p, system, neighbors))
        shapes = jax.eval_shape(network.init, jax.random.key(0))
        counts[charges] = compiled.lower(shapes).cost_analysis()["flops"]
    assert counts[False] < counts[True] < 1.05 * counts[False]


class Nothing(nn.Module):
    """A network that yields energies only."""

    @nn.compact
    def __call__(self, env):
        return self.param("w", nn.initializers.zeros, (1,)) * jnp.where(env.is_atom, 1.0, 0.0)


def test_invalid_input_is_refused():
    with pytest.raises(InputError, match="charges=True"):
        mace(["H"], atomic_dipoles=True)
    with pytest.raises(InputError, match="l_max ≥ 1"):
        nequip(["H"], l_max=0, charges=True, atomic_dipoles=True)
    potential = network_potential(Nothing(), species=["H"], cutoff=CUTOFF, charges=True)
    with pytest.raises(InputError, match="returns no charges"):
        evaluate(potential, potential.init(jax.random.key(0)), *listed([[0.0, 0.0, 0.0]], [1]))
