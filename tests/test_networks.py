"""Parts of networks against e3nn-jax, and properties of networks beyond the conformance table."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd import simulate, units, velocity_verlet
from difmd.errors import InputError
from difmd.forces import evaluate
from difmd.neighbors import neighbor_list
from difmd.potentials import atomic_energies, invariant, mace, nequip
from difmd.potentials.envelope import polynomial_envelope
from difmd.potentials.networks.environment import environment, held_above
from difmd.potentials.networks.equivariant import Convolution
from difmd.potentials.networks.harmonics import Irrep, natural, spherical_harmonics
from difmd.potentials.networks.product_basis import SymmetricContraction, symmetric_couplings
from difmd.potentials.networks.radial import RadialNetwork, bessel_functions
from difmd.system import make_system

RNG = np.random.default_rng(0)
CELL = np.array([[6.2, 0.0, 0.0], [1.1, 5.9, 0.0], [-0.7, 0.6, 6.6]])


def water(n=6, seed=2):
    """Atoms of two elements in a sheared cell that is smaller than the receptive field of a network."""
    rng = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3)[:n]
    return make_system(corners @ CELL + rng.uniform(-0.4, 0.4, (n, 3)), [8, 1, 1, 8, 1, 1][:n], cell=CELL)


@pytest.mark.parametrize("l", range(6))
def test_harmonics_agree_with_e3nn(l):  # noqa: E741
    v = RNG.normal(size=(7, 3))
    found = spherical_harmonics(5, tuple(jnp.asarray(v.T)), jnp.linalg.norm(v, axis=1))[l]
    expected = e3nn.spherical_harmonics(
        [l], e3nn.IrrepsArray("1o", jnp.asarray(v)), normalize=True, normalization="component"
    )
    np.testing.assert_allclose(found, expected.array, atol=1e-13)


def test_bessel_functions_and_envelope():
    r = np.linspace(0.3, 4.999, 50)
    n = np.arange(1, 9)[None]
    expected = np.sqrt(2 / 5.0) * np.sin(n * np.pi * r[:, None] / 5.0) / r[:, None]
    np.testing.assert_allclose(bessel_functions(jnp.asarray(r), 8, 5.0), expected, atol=1e-13)
    at = lambda x: polynomial_envelope(jnp.asarray(x), 5.0, 6)  # noqa: E731
    for order, value in ((at, 1.0), (jax.grad(at), 0.0)):
        assert order(0.0) == pytest.approx(value, abs=1e-14)
    for order in (at, jax.grad(at), jax.grad(jax.grad(at))):
        assert order(5.0 - 1e-9) == pytest.approx(0, abs=1e-6) and order(5.1) == 0
    assert at(2.5) == pytest.approx(1 - 28 / 64 + 48 / 128 - 21 / 256)


@pytest.mark.parametrize(("output", "orders"), [(0, (1, 4, 8)), (1, (1, 3, 12)), (2, (1, 5, 14))])
def test_couplings_span_the_same_space_as_those_of_e3nn(output, orders):
    irreps = e3nn.Irreps("0e+1o+2e+3o")
    for order, n_paths in enumerate(orders, start=1):
        table = symmetric_couplings(3, order, natural(output))
        assert table.shape == (n_paths, *[16] * order, 2 * output + 1)
        for axes in ([1, 0, 2], [0, 2, 1])[: order - 1]:
            np.testing.assert_allclose(
                table, np.transpose(table, [0, *(1 + a for a in axes[:order]), order + 1]), atol=1e-12
            )
        if order == 1:
            continue
        basis = e3nn.reduced_symmetric_tensor_product_basis(
            irreps, order, keep_ir=[e3nn.Irrep(output, (-1) ** output)]
        )
        assert basis.irreps.num_irreps == n_paths
        theirs = np.asarray(basis.array).reshape(-1, n_paths, 2 * output + 1)
        theirs = np.moveaxis(theirs, 1, 0).reshape(n_paths, -1)
        ours = table.reshape(n_paths, -1)
        left, *_ = np.linalg.lstsq(theirs.T, ours.T, rcond=None)
        np.testing.assert_allclose(theirs.T @ left, ours.T, atol=1e-10)


@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_product_basis_is_the_sum_over_paths(correlation):
    n, channels, outputs = 5, 3, [natural(0), natural(1)]
    module = SymmetricContraction(outputs=outputs, correlation=correlation, n_species=2)
    features = {natural(l): jnp.asarray(RNG.normal(size=(n, 2 * l + 1, channels))) for l in range(3)}  # noqa: E741
    types = jnp.array([0, 1, 1, 0, 1], jnp.int32)
    params = module.init(jax.random.key(0), features, types)
    found = module.apply(params, features, types)
    a = np.concatenate([features[natural(l)] for l in range(3)], axis=1)  # noqa: E741
    subscripts = {1: "npc,pim,nic->nmc", 2: "npc,pijm,nic,njc->nmc", 3: "npc,pijkm,nic,njc,nkc->nmc"}
    for irrep in outputs:
        expected = 0
        for order in range(1, correlation + 1):
            weights = np.asarray(params["params"][f"w{order}_{irrep.name}"])[np.asarray(types)]
            table = symmetric_couplings(2, order, irrep)
            expected = expected + np.einsum(subscripts[order], weights, table, *[a] * order, optimize=True)
        np.testing.assert_allclose(found[irrep], expected, atol=1e-12)


@pytest.mark.slow
def test_convolution_is_a_sum_of_tensor_products_of_e3nn():
    system = water()
    neighbors = neighbor_list(system, cutoff=4.0)
    env, _ = environment(system, neighbors, numbers=(1, 8), cutoff=4.0)
    channels, n = 2, len(env.types)
    irreps = [Irrep(0, 1), Irrep(1, -1), Irrep(1, 1)]
    outputs = [Irrep(0, 1), Irrep(0, -1), Irrep(1, -1), Irrep(1, 1), Irrep(2, 1)]
    features = {i: jnp.asarray(RNG.normal(size=(n, i.dim, channels))) for i in irreps}
    harmonics = spherical_harmonics(2, env.vectors, env.distances)
    module = Convolution(outputs=outputs, hidden=(5,), n_radial=4, p=6, cutoff=4.0)
    params = module.init(jax.random.key(1), features, harmonics, env)
    found = jax.jit(module.apply)(params, features, harmonics, env)

    # Entry by entry, in the order in which the module has its paths.
    paths = [
        (one, l2, out)
        for out in outputs
        for one in irreps
        for l2 in range(3)
        if abs(one.l - l2) <= out.l <= one.l + l2 and one.parity * (-1) ** l2 == out.parity
    ]
    radial = RadialNetwork(widths=[channels] * len(paths), hidden=(5,), n_radial=4, cutoff=4.0, p=6)
    (radial_params,) = params["params"].values()
    is_near = np.asarray(env.distances) < 4.0
    weights = radial.apply({"params": radial_params}, env.distances.reshape(-1))
    expected = {out: [] for out in outputs}
    for k, (one, l2, out) in enumerate(paths):
        total = np.zeros((n, out.dim, channels))
        for i, slot in zip(*np.nonzero(is_near), strict=True):
            h = e3nn.IrrepsArray(
                f"{channels}x{e3nn.Irrep(one.l, one.parity)}",
                features[one][env.senders[i, slot]].T.reshape(-1),
            )
            y = e3nn.IrrepsArray(str(e3nn.Irrep(l2, (-1) ** l2)), harmonics[l2][i, slot])
            product = e3nn.tensor_product(h, y, filter_ir_out=[e3nn.Irrep(out.l, out.parity)])
            message = np.asarray(product.array).reshape(channels, out.dim).T
            total[i] += message * np.asarray(weights[k]).reshape(*is_near.shape, channels)[i, slot]
        expected[out].append(total)
    for out in outputs:
        np.testing.assert_allclose(found[out], np.concatenate(expected[out], axis=-1), atol=1e-11)


NETWORKS = {
    "mace": lambda **k: mace(
        ["H", "O"], cutoff=4.0, n_features=3, l_max_features=1, l_max=2, radial_hidden=(8,), **k
    ),
    "nequip": lambda **k: nequip(["H", "O"], cutoff=4.0, n_features=3, n_layers=2, radial_hidden=(8,), **k),
    "invariant": lambda **k: invariant(["H", "O"], cutoff=4.0, n_features=3, n_radial=4, **k),
    "invariant l = 0": lambda **k: invariant(["H", "O"], cutoff=4.0, n_features=3, l_max=0, **k),
    "nequip l = 0": lambda **k: nequip(["H", "O"], cutoff=4.0, n_features=3, l_max=0, n_layers=2, **k),
    "nequip l = 2": lambda **k: nequip(
        ["H", "O"], cutoff=4.0, n_features=2, l_max=2, parity=False, n_layers=3, radial_hidden=(8,), **k
    ),
}


@pytest.mark.quick("mace")
@pytest.mark.parametrize("name", list(NETWORKS))
def test_energy_of_an_isolated_atom_is_its_shift(name):
    potential = NETWORKS[name](scale=[0.3, 2.0], shift=[-13.6, -430.0])
    params = potential.init(jax.random.key(3))
    for number, energy in ((1, -13.6), (8, -430.0)):
        atom = make_system([[0.0, 0.0, 0.0]], [number])
        found = jax.jit(potential.apply)(params, atom, neighbor_list(atom, cutoff=4.0))
        assert found == pytest.approx(energy, abs=1e-12)


@pytest.mark.quick("mace")
@pytest.mark.parametrize("name", list(NETWORKS))
def test_energy_depends_on_every_weight(name):
    """A weight without a derivative would be useless."""
    potential, system = NETWORKS[name](), water()
    neighbors = neighbor_list(system, cutoff=4.0)
    params = potential.init(jax.random.key(3))
    slopes = jax.jit(jax.grad(lambda p: potential.apply(p, system, neighbors)))(params)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert np.any(np.asarray(slope) != 0), jax.tree_util.keystr(path)


def test_limited_distances_are_smooth():
    def at(r):
        return held_above(jnp.asarray([r]), jnp.asarray([2.0]))[0]

    assert at(2.0) == 2.0 and at(2.3) == 2.3
    for r in (1.8, 1.0, 0.01):
        assert at(r) == pytest.approx(1.9, abs=1e-12)
    for order in (at, jax.grad(at), jax.grad(jax.grad(at))):
        for end in (1.8, 2.0):
            assert float(order(end - 1e-7)) == pytest.approx(float(order(end + 1e-7)), abs=1e-4)
    assert all(jax.grad(at)(r) >= 0 for r in np.linspace(1.7, 2.1, 41))


@pytest.mark.quick("invariant")
@pytest.mark.parametrize("name", list(NETWORKS))
def test_distances_below_the_limit_are_those_at_the_limit(name):
    table = np.array([[1.5, 0.9], [0.9, 2.4]])
    held, plain = NETWORKS[name](nearest=table), NETWORKS[name]()
    params = plain.init(jax.random.key(3))

    def energy(potential, numbers, r):
        pair = make_system([[0.0, 0.0, 0.0], [0.0, 0.6 * r, 0.8 * r]], numbers)
        return float(jax.jit(potential.apply)(params, pair, neighbor_list(pair, cutoff=4.0)))

    for numbers, nearest in (([1, 1], 1.5), ([1, 8], 0.9), ([8, 8], 2.4)):
        for r in (1.001 * nearest, 1.3 * nearest):
            assert energy(held, numbers, r) == pytest.approx(energy(plain, numbers, r), abs=1e-12)
        floor = energy(plain, numbers, 0.95 * nearest)
        for r in (0.85 * nearest, 0.3 * nearest):
            assert energy(held, numbers, r) == pytest.approx(floor, abs=1e-12)
            assert energy(plain, numbers, r) != pytest.approx(floor, abs=1e-9)


@pytest.mark.parametrize("nearest", [0.0, [[1.0, 2.0]], [[1.0, 2.0], [3.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]])
def test_invalid_shortest_distances_are_refused(nearest):
    with pytest.raises(InputError, match="nearest = .*(symmetric table|must be positive)"):
        mace(["H", "O"], nearest=nearest)


def test_weights_of_another_network_are_refused():
    system = water()
    neighbors = neighbor_list(system, cutoff=4.0)
    wider = mace(["H", "O"], cutoff=4.0, n_features=4, l_max_features=1, l_max=2, radial_hidden=(8,))
    params = wider.init(jax.random.key(0))
    with pytest.raises(InputError, match="not those of this potential"):
        evaluate(NETWORKS["mace"](), params, system, neighbors)
    with pytest.raises(InputError, match="scale"):
        mace(["H", "O"], scale=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=r"lack \['(network|scale)'\]"):
        evaluate(wider, params["network"], system, neighbors)
    with pytest.raises(InputError, match=r"params lack \[0\].* more and hold .* more: they are not those"):
        evaluate(wider + wider, params, system, neighbors)


def test_invariant_depends_on_angles_from_degree_one_on():
    """One layer on distances alone cannot distinguish two molecules that differ in an angle."""
    bent, straight = (
        make_system([[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [1.5 * np.cos(a), 1.5 * np.sin(a), 0.0]], [8, 1, 1])
        for a in (1.9, np.pi)
    )
    for l_max, depends in ((0, False), (1, True)):
        # Hydrogens are out of each other's reach.
        potential = invariant(["H", "O"], cutoff=2.0, n_features=4, n_layers=1, l_max=l_max)
        params = potential.init(jax.random.key(0))
        one, other = (
            jax.jit(potential.apply)(params, system, neighbor_list(system, cutoff=2.0))
            for system in (bent, straight)
        )
        assert (abs(one - other) > 1e-8) == depends


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features": 0}, "n_features = 0"),
        ({"p": 0}, "p = 0"),
        ({"l_max": -1}, "l_max = -1"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors = 0.0"),
        ({"cutoff": -5.0}, "cutoff = -5.0"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        invariant(["H"], **settings)


@pytest.mark.slow
def test_atomic_energies_add_and_exert_no_force():
    system = water()
    potential = atomic_energies(["H", 8], energies=[-13.6, -430.0])
    neighbors = neighbor_list(system, cutoff=4.0)
    found = evaluate(potential, potential.init(jax.random.key(0)), system, neighbors)
    assert found.energy == pytest.approx(4 * -13.6 + 2 * -430.0)
    assert not np.any(found.forces) and not np.any(found.stress)
    total = potential + NETWORKS["mace"]()
    params = total.init(jax.random.key(0))
    both = jax.jit(lambda p: evaluate(total, p, system, neighbors))(params)
    np.testing.assert_allclose(
        both.energy,
        found.energy + jax.jit(NETWORKS["mace"]().apply)(params[1], system, neighbors),
        rtol=1e-12,
    )
    with pytest.raises(InputError, match="finite"):
        atomic_energies(["H"], energies=[float("nan")])


@pytest.mark.slow
def test_dynamics_with_a_network_conserve_energy():
    """The list contains reverse edges, is rebuilt during the run, and grows when it is too small."""
    system = water()
    potential = mace(
        ["H", "O"], cutoff=3.0, n_features=2, l_max=1, correlation=2, radial_hidden=(8,), scale=0.3
    )
    params = potential.init(jax.random.key(0))
    pair = jax.tree.map(lambda x: jnp.stack([x, x]), system)
    run = simulate(
        potential, params, pair, velocity_verlet(dt=0.2 * units.FS), n_steps=80, save_every=4,
        initial_temperature=600.0, key=jax.random.key(1), skin=0.2, capacity=1, progress=False,
    )  # fmt: skip
    assert run.n_replays > 0
    kinetic = np.sum(np.asarray(run.momenta) ** 2 / np.asarray(system.masses)[:, None], axis=(2, 3)) / 2
    total = np.asarray(run.potential_energy) + kinetic
    assert np.all(np.ptp(kinetic, axis=0) > 1000 * np.ptp(total, axis=0))
    listed = neighbor_list(system, cutoff=3.0, skin=0.2, reverse_edges=potential.uses_reverse_edges)
    bare = neighbor_list(system, cutoff=3.0, skin=0.2)
    assert listed.reverse_edges is not None and bare.reverse_edges is None
    np.testing.assert_allclose(
        potential.apply(params, system, listed), potential.apply(params, system, bare), rtol=1e-13
    )
