"""One table that every potential must pass; a new one adds a row to potentials.py."""

import dataclasses
import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from potentials import CUTOFF, N_ATOMS, ONSET, ROWS, liquid, perturbed, roomy_list

from difmd._internal.fixed_point import rounded
from difmd.errors import InputError
from difmd.forces import evaluate, forces
from difmd.neighbors import neighbor_list, rebuild

WEIGHTS = np.array([1, -8, 8, -1]) / 12
STENCIL = np.array([-2, -1, 1, 2])


@functools.cache
def setup(name):
    """What the tests of one potential share, compiled once."""
    row = ROWS[name]
    potential = row.make()
    system = liquid(row.numbers)
    neighbors = roomy_list(system)
    params = perturbed(potential.init(jax.random.key(0)))
    evaluated = jax.jit(lambda p, s: evaluate(potential, p, s, rebuild(s, neighbors)))
    return SimpleNamespace(
        row=row,
        potential=potential,
        system=system,
        neighbors=neighbors,
        params=params,
        evaluated=evaluated,
        at_rest=evaluated(params, system),
    )


# One for each engine: sums over pairs, functions of sums, bond orders, networks. Tests that compile much run
# with some of these in the quick suite, and with all rows in `make test-slow`.
ENGINES = ("mixture", "embedded_atom", "tersoff", "mace")

# Rows that only `make test-slow` checks.
VARIATIONS = (
    "truncated", "shifted", "switched", "sum", "morse", "buckingham", "pair_prior", "zbl, unequal cut-offs",
    "prior and network", "truncated with tail", "switched with tail", "coulomb", "nequip", "invariant",
    "mace, distances held", "mace, three factors",
)  # fmt: skip


def marked(quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in ROWS]


@pytest.fixture(params=marked(set(ROWS) - set(VARIATIONS)), scope="module")
def case(request):
    return setup(request.param)


@pytest.fixture(params=marked(ENGINES), scope="module")
def engine(request):
    return setup(request.param)


def differences(function, size, step):
    """Central differences of fourth order of `function`, mapped over [n, size], for each direction."""
    grid = step * STENCIL[None, :, None] * np.eye(size)[:, None, :]
    values = jax.jit(jax.vmap(function))(jnp.asarray(grid.reshape(-1, size)))

    def combine(x):
        x = np.asarray(x)
        return np.tensordot(WEIGHTS, x.reshape(size, 4, *x.shape[1:]), (0, 1)) / step

    return jax.tree.map(combine, values)


def close(actual, expected, relative):
    expected = np.asarray(expected)
    scale = np.max(np.abs(expected))
    assert scale > 0
    np.testing.assert_allclose(actual, expected, rtol=relative, atol=0.1 * relative * scale)


def moved(case, positions, **changes):
    return case.evaluated(case.params, case.system.replace(positions=jnp.asarray(positions), **changes))


def assert_same(found, expected, turn=None):
    turn = np.eye(3) if turn is None else turn
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-11)
    np.testing.assert_allclose(found.forces, expected.forces @ turn, atol=1e-11)
    np.testing.assert_allclose(found.stress, turn.T @ expected.stress @ turn, atol=1e-12)


@pytest.mark.parametrize("reflect", [False, True], ids=["rotation", "reflection"])
def test_rotation_and_reflection(case, reflect):
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turn = turn * np.linalg.det(turn) * (-1 if reflect else 1)
    assert np.isclose(np.linalg.det(turn), -1 if reflect else 1)
    found = moved(case, case.system.positions @ turn, cell=case.system.cell @ turn)
    assert_same(found, case.at_rest, turn)


def test_translation(case):
    assert_same(moved(case, case.system.positions + np.array([[3.1, -20.0, 0.7]])), case.at_rest)


def test_lattice_shift_of_one_atom(case):
    shift = np.array([2.0, -1.0, 3.0]) @ case.system.cell
    assert_same(moved(case, case.system.positions.at[2].add(shift)), case.at_rest)


def test_permutation(case):
    order = np.random.default_rng(4).permutation(case.system.n_atoms)
    found = moved(case, case.system.positions[order], atomic_numbers=case.system.atomic_numbers[order])
    assert_same(found._replace(forces=found.forces[np.argsort(order)]), case.at_rest)


def test_two_far_fragments_add(case):
    needs_any_cell(case)
    if not case.row.additive:
        together, first, second = fragments(case)
        assert abs(together.energy - first.energy - second.energy) > 1e-6
        return
    together, first, second = fragments(case)
    assert abs(first.energy) > 1e-3 and abs(second.energy) > 1e-3
    np.testing.assert_allclose(together.energy, first.energy + second.energy, rtol=1e-12)
    np.testing.assert_allclose(together.forces, first.forces + second.forces, atol=1e-12)


def needs_any_cell(case):
    if not case.row.any_cell:
        pytest.skip("made for one cell; test_ewald.py varies the cut-off")


def fragments(case):
    """Two halves 30 Å apart in a cell of 100 Å; what is left out becomes padding."""
    first = np.arange(case.system.n_atoms) < N_ATOMS // 2
    positions = case.system.positions + np.where(first, 0.0, 30.0)[:, None]
    numbers = case.system.atomic_numbers
    cell = 100 * jnp.eye(3)
    keep = [jnp.where(jnp.asarray(mask), numbers, 0) for mask in (first | True, first, ~first)]
    return [moved(case, positions, cell=cell, atomic_numbers=n) for n in keep]


@pytest.mark.quick("mixture")
def test_end_at_the_cutoff_and_start_of_the_switch(engine):
    """Energy, force and second derivative of a dimer on both sides of the cut-off."""
    needs_any_cell(engine)
    numbers = engine.system.atomic_numbers.at[2:].set(0)
    apart = engine.system.replace(atomic_numbers=numbers, cell=100 * jnp.eye(3))

    def dimer(r):
        return apart.replace(positions=jnp.zeros_like(apart.positions).at[1, 0].set(r))

    def orders(r):
        neighbors = rebuild(dimer(r), engine.neighbors)
        energy = lambda r: engine.potential.apply(engine.params, dimer(r), neighbors)  # noqa: E731
        (value, slope), (_, curvature) = jax.jvp(jax.value_and_grad(energy), (r,), (1.0,))
        return jnp.stack([value, slope, curvature])

    gap = 1e-8
    radii = jnp.array([CUTOFF - gap, CUTOFF + gap, ONSET - gap, ONSET + gap, ONSET])
    values = np.asarray(jax.jit(jax.vmap(orders))(radii))
    jumps = np.abs(values[0] - values[1])
    scale = np.abs(values[4])
    for order in range(3):
        if order <= engine.row.smooth:
            assert jumps[order] < 1e-6 * scale[order]
        elif engine.row.smooth < 2:
            assert jumps[order] > 1e-3 * scale[order]
    assert (np.abs(values[2] - values[3]) < 1e-5 * np.abs(values[4]) + 1e-7).all()
    if engine.row.additive:
        # The energy of the atoms by themselves may be left.
        np.testing.assert_array_equal(values[1, 1:], 0)


def test_forces_are_central_differences(case):
    """Every component; also that padding atoms on top of others give nothing, not NaN."""
    at = case.system.positions.reshape(-1)
    step = 1e-3 if case.row.third else 3e-5
    slope = differences(lambda d: energy_at(case, at + d), len(at), step)
    forces = case.at_rest.forces
    close(forces[:N_ATOMS].reshape(-1), -slope[: 3 * N_ATOMS], 1e-8)
    assert not np.any(forces[N_ATOMS:])


def energy_at(case, r):
    return case.potential.apply(case.params, case.system.replace(positions=r.reshape(-1, 3)), case.neighbors)


@pytest.mark.quick("tersoff")
def test_second_derivatives_are_central_differences(engine):
    """Every component; also that padding atoms on top of others give nothing, not NaN."""
    at = engine.system.positions.reshape(-1)
    energy = functools.partial(energy_at, engine)
    # Differences that cross a jump of the third derivative are as good as their step is small.
    step = 1e-3 if engine.row.third else 3e-5
    curvature = differences(lambda d: jax.grad(energy)(at + d), len(at), step)
    hessian = jax.jit(jax.hessian(energy))(at)
    assert np.isfinite(hessian).all()
    tolerance = 1e-7 if engine.row.third else 1e-5
    close(hessian[: 3 * N_ATOMS, : 3 * N_ATOMS], curvature[: 3 * N_ATOMS, : 3 * N_ATOMS], tolerance)
    assert not np.any(hessian[3 * N_ATOMS :]) and not np.any(hessian[:, 3 * N_ATOMS :])


def test_stress_is_central_differences_of_a_strain(engine):
    def strained(components):
        xx, yy, zz, yz, xz, xy = components
        strain = jnp.stack([xx, xy / 2, xz / 2, xy / 2, yy, yz / 2, xz / 2, yz / 2, zz])
        deform = jnp.eye(3) + strain.reshape(3, 3)
        system = engine.system.replace(
            positions=engine.system.positions @ deform, cell=engine.system.cell @ deform
        )
        return engine.potential.apply(engine.params, system, engine.neighbors)

    expected = differences(strained, 6, 1e-4 if engine.row.third else 3e-6) / engine.system.volume
    s = np.asarray(engine.at_rest.stress)
    np.testing.assert_array_equal(s, s.T)
    voigt = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
    if engine.row.stress_is_derivative:
        close(voigt, expected, 1e-8)
    else:
        close(voigt[3:], expected[3:], 1e-8)
        assert (np.abs(voigt[:3] - expected[:3]) > 1e-6).all()


@pytest.mark.quick("mixture")
def test_gradient_in_the_parameters_is_central_differences(engine):
    needs_params(engine)
    flat, unravel = ravel_pytree(engine.params)

    def energy(scale):
        return engine.potential.apply(unravel(flat * (1 + scale)), engine.system, engine.neighbors)

    found = jax.jit(jax.grad(energy))(jnp.zeros_like(flat))
    close(found, differences(energy, len(flat), 1e-3), 1e-8)


def needs_params(case):
    """Only where there are some."""
    if case.row.fixed:
        assert not jax.tree.leaves(case.params)
        pytest.skip("has no params")


@pytest.mark.quick("mixture")
def test_gradient_of_stress_in_the_parameters_is_central_differences(engine):
    needs_params(engine)
    flat, unravel = ravel_pytree(engine.params)

    def pressure(scale):
        found = evaluate(engine.potential, unravel(flat * (1 + scale)), engine.system, engine.neighbors)
        return jnp.trace(found.stress)

    found = jax.jit(jax.grad(pressure))(jnp.zeros_like(flat))
    close(found, differences(pressure, len(flat), 1e-3), 1e-7)


def test_wrong_input_is_refused(case):
    """Unknown species, foreign params and lists raise; under jit unknown species give NaN."""
    strange = case.system.replace(atomic_numbers=jnp.where(case.system.atomic_numbers > 0, 2, 0))
    short = case.neighbors.replace(cutoff=1.0)
    for function in (
        functools.partial(evaluate, case.potential),
        case.potential.apply,
        case.potential.atomic,
    ):
        with pytest.raises(InputError, match="no parameters for He"):
            function(case.params, strange, case.neighbors)
        with pytest.raises(InputError, match="not those of this potential"):
            function([case.params, 1.0], case.system, case.neighbors)
        with pytest.raises(InputError, match=r"reaches 1.0 Å"):
            function(case.params, case.system, short)
    found = case.evaluated(case.params, strange)
    assert np.isnan(found.energy) and np.isnan(found.forces).any()
    if case.row.fixed:
        with pytest.raises(InputError, match=r"params hold \['epsilon'\]: they are not those"):
            evaluate(case.potential, {"epsilon": jnp.ones(2)}, case.system, case.neighbors)
        return
    longer = jax.tree.map(lambda x: jnp.concatenate([x, x[-1:]]), case.params)
    with pytest.raises(InputError, match="not those of this potential"):
        evaluate(case.potential, longer, case.system, case.neighbors)
    if any(x.ndim > 2 for x in jax.tree.leaves(case.params)):
        deeper = jax.tree.map(lambda x: jnp.concatenate([x, x[..., -1:]], axis=-1), case.params)
        with pytest.raises(InputError, match="not those of this potential"):
            evaluate(case.potential, deeper, case.system, case.neighbors)


def test_atomic_energies_add_up(case):
    atomic = jax.jit(case.potential.atomic)(case.params, case.system, case.neighbors)
    assert atomic.shape == (case.system.n_atoms,)
    np.testing.assert_allclose(jnp.sum(atomic), case.at_rest.energy, rtol=1e-12)
    assert not np.any(atomic[N_ATOMS:])


@pytest.mark.quick("mixture")
def test_padding_is_inert_and_jit_equals_eager(engine):
    bare = liquid(engine.row.numbers, padded=False)
    found = evaluate(engine.potential, engine.params, bare, roomy_list(bare))
    np.testing.assert_allclose(found.energy, engine.at_rest.energy, rtol=1e-12)
    np.testing.assert_allclose(found.forces, engine.at_rest.forces[:N_ATOMS], atol=1e-13)
    np.testing.assert_allclose(found.stress, engine.at_rest.stress, atol=1e-14)


@pytest.mark.quick("mixture", "mace")
def test_single_precision_follows_the_inputs_and_agrees(engine):
    def single(tree):
        return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, tree)

    found = engine.evaluated(single(engine.params), single(engine.system))
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    for low, high in zip(jax.tree.leaves(found), jax.tree.leaves(engine.at_rest), strict=True):
        np.testing.assert_allclose(low, high, rtol=2e-5, atol=2e-5 * np.max(np.abs(high)))


def test_one_trace(engine):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def energy(params, system):
        return engine.potential.apply(params, system, engine.neighbors)

    first = energy(engine.params, engine.system)
    warmer = engine.system.replace(positions=engine.system.positions * 1.001)
    scaled = jax.tree.map(lambda x: 1.01 * x, engine.params)
    assert energy(scaled, warmer) != first


@pytest.mark.quick("mixture")
def test_reverse_rule_of_forces_is_that_of_the_gradient(engine):
    potential, neighbors = engine.potential, engine.neighbors

    def plain(params, r, cell):
        return -jax.grad(
            lambda r: potential.apply(params, engine.system.replace(positions=r, cell=cell), neighbors)
        )(r)

    def ours(params, r, cell):
        system = engine.system.replace(positions=r, cell=cell)
        return forces(potential, params, system, neighbors)

    v = jnp.asarray(np.random.default_rng(9).normal(size=engine.system.positions.shape))
    inputs = (engine.params, engine.system.positions, engine.system.cell)

    @jax.jit
    def both(v):
        results = []
        for function in (ours, plain):
            value, pull = jax.vjp(function, *inputs)
            results.append((value, *pull(v)))
        return results

    (value, *found), (_, *expected) = both(v)
    np.testing.assert_allclose(value, engine.at_rest.forces, atol=1e-13)
    assert len(found) == 3
    leaves = jax.tree_util.tree_leaves_with_path(found)
    for (path, one), other in zip(leaves, jax.tree.leaves(expected), strict=True):
        if str(getattr(path[-1], "key", None)) in engine.row.forceless:
            assert not np.any(one) and not np.any(other)
        else:
            close(one, other, 1e-10)


def test_parameters_and_positions_are_pulled_back_in_one_pass(engine):
    potential = engine.potential
    if potential.pull_back is None:
        pytest.skip("JAX does it")
    v = jnp.asarray(np.random.default_rng(9).normal(size=engine.system.positions.shape))
    slow = dataclasses.replace(potential, pull_back=None)

    def work(potential, params, r):
        return jnp.sum(v * forces(potential, params, engine.system.replace(positions=r), engine.neighbors))

    found, expected = (
        jax.jit(jax.grad(functools.partial(work, p), (0, 1)))(engine.params, engine.system.positions)
        for p in (potential, slow)
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        close(one, other, 1e-12)


def test_forces_on_a_grid_do_not_depend_on_the_list(engine):
    if engine.potential.on_grid is None:
        pytest.skip("its sums are rounded")
    exponent = -40
    potential = engine.potential.on_grid(exponent)
    assert potential is engine.potential.on_grid(exponent)
    system = engine.system.replace(
        positions=rounded(engine.system.positions, exponent), cell=rounded(engine.system.cell, exponent)
    )
    shaken = np.random.default_rng(4).uniform(-0.2, 0.2, system.positions.shape)
    begun = system.replace(positions=system.positions + jnp.asarray(shaken))
    found = [
        np.asarray(jax.jit(functools.partial(forces, potential))(engine.params, system, neighbors))
        for neighbors in (
            neighbor_list(system, cutoff=potential.cutoff),
            neighbor_list(begun, cutoff=potential.cutoff, skin=1.0),
        )
    ]
    np.testing.assert_array_equal(*found)
    assert not np.any(found[0] % 2.0**exponent)
    np.testing.assert_allclose(found[0], engine.at_rest.forces, atol=1e-9)
