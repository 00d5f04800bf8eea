"""Gradient methods against central differences and each other, and their errors."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from difmd import units
from difmd.errors import Flag, InputError, flags_of
from difmd.gradients import checkpointed, direct, forward, reversible, truncated_backpropagation
from difmd.gradients.checkpointed import factors
from difmd.integrators import draw_momenta, langevin, velocity_verlet
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, mace, stillinger_weber, switched
from difmd.simulation.rollouts import initialize, rollout
from difmd.system import make_system

EXACT = {
    "checkpointed": checkpointed(),
    "checkpointed twice": checkpointed(levels=2),
    "reversible": reversible(),
}
DT, N_STEPS = 2 * units.FS, 200


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def crystal(kind):
    """A potential, its params and eight displaced atoms in a slightly triclinic cell."""
    rng = np.random.default_rng(5)
    corners = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    if kind == "lennard_jones":
        fractions = np.concatenate([corners, corners + [1, 0, 0]]) / [2, 1, 1]
        edge, number = [11.2, 5.6, 5.6], 18
        potential = lennard_jones(["Ar"], sigma=3.4, epsilon=0.0104, cutoff=5.6, truncation=switched(4.5))
    else:
        fractions, edge, number = np.concatenate([corners, corners + 0.25]), [5.43] * 3, 14
        if kind == "stillinger_weber":
            potential = stillinger_weber(["Si"], epsilon=2.1683, sigma=2.0951)
        else:
            potential = mace(
                ["Si"], cutoff=3.2, n_features=2, l_max=1, radial_hidden=(4,), readout_hidden=2,
                avg_num_neighbors=4.0,
            )  # fmt: skip
    cell = np.diag(edge) + rng.normal(0, 0.05, (3, 3))
    positions = fractions @ cell + rng.normal(0, 0.05, (8, 3))
    return potential, potential.init(jax.random.key(3)), make_system(positions, [number] * 8, cell=cell)


@functools.cache
def problem(kind):
    """A loss of 200 steps of Langevin dynamics as a function of all differentiable inputs."""
    potential, params, system = crystal(kind)
    neighbors = neighbor_list(
        system, cutoff=potential.cutoff, skin=0.8, slack=1.5, reverse_edges=potential.uses_reverse_edges
    )
    rng = np.random.default_rng(6)
    weights = jnp.asarray(rng.normal(size=(10, 8, 3)))
    varied = {
        "params": params,
        "positions": system.positions,
        "momenta": draw_momenta(jax.random.key(1), system, 60.0),
        "cell": system.cell,
        "masses": system.masses,
        "temperature": jnp.asarray(60.0),
    }
    start, unravel = ravel_pytree(varied)

    def loss(x, method):
        at = x if isinstance(x, dict) else unravel(x)
        moved = system.replace(positions=at["positions"], cell=at["cell"], masses=at["masses"])
        bath = langevin(dt=DT, temperature=at["temperature"], friction=1 / units.PS)
        state = initialize(
            potential, at["params"], moved, bath, neighbors, momenta=at["momenta"], key=jax.random.key(2)
        )
        run = rollout(
            potential, at["params"], state, bath, neighbors,
            n_steps=N_STEPS, save_every=20, rebuild_every=40, gradient=method,
        )  # fmt: skip
        values = jnp.sum(weights * run.frames.positions) + jnp.sum(jnp.sin(run.frames.momenta))
        return values, run.status.flags

    return loss, start, unravel


@functools.cache
def gradient_of(kind, name):
    loss, start, _ = problem(kind)
    method = {"direct": direct(), **EXACT}[name]
    gradient, flags = jax.jit(jax.grad(lambda x: loss(x, method), has_aux=True))(start)
    assert int(flags) == 0
    return np.asarray(gradient)


@pytest.mark.parametrize("kind", ["lennard_jones", slow("stillinger_weber"), slow("mace")])
def test_direct_agrees_with_central_differences(kind):
    """For every parameter, coordinate, momentum, component of the cell and mass, and the temperature."""
    loss, start, unravel = problem(kind)
    scale = jnp.clip(jnp.abs(start), 0.1, 1.0)
    # A compromise between rounding and higher derivatives, which are discontinuous at the onset of a switch.
    step = 2e-4

    @jax.jit
    @jax.vmap
    def difference(number):
        moves = jnp.outer(jnp.asarray([-3.0, -2, -1, 1, 2, 3]), step * scale * jnp.eye(len(start))[number])
        values = jax.vmap(lambda move: loss(start + move, direct())[0])(moves)
        return jnp.asarray([-1.0, 9, -45, 45, -9, 1]) / 60 @ values / (step * scale[number])

    expected = np.asarray(difference(jnp.arange(len(start))))
    found = gradient_of(kind, "direct")
    sizes = unravel(jnp.arange(len(start), dtype=float))
    for name, places in sizes.items():
        places = np.asarray(ravel_pytree(places)[0], int)
        assert np.abs(found[places]).max() > 1e-3, name
        size = np.abs(expected[places]).max()
        np.testing.assert_allclose(found[places], expected[places], rtol=1e-6, atol=1e-6 * size, err_msg=name)


@pytest.mark.quick("lennard_jones-reversible")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("lennard_jones", "checkpointed twice"),
        ("lennard_jones", "reversible"),
        ("lennard_jones", "checkpointed"),
        ("stillinger_weber", "checkpointed twice"),
        ("stillinger_weber", "reversible"),
        ("mace", "checkpointed twice"),
        ("mace", "reversible"),
    ],
)
def test_exact_methods_agree(kind, name):
    _, _, unravel = problem(kind)
    found, expected = (unravel(jnp.asarray(gradient_of(kind, which))) for which in (name, "direct"))
    for quantity in expected:
        one, other = (ravel_pytree(tree[quantity])[0] for tree in (found, expected))
        assert np.linalg.norm(one - other) < 1e-9 * np.linalg.norm(other), quantity


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lennard_jones", "stillinger_weber"])
def test_forward_mode_agrees_for_few_inputs(kind):
    """Parameters, the cell and the temperature."""
    loss, start, unravel = problem(kind)
    whole = unravel(start)
    names = ("params", "cell", "temperature")

    def few_of(at):
        return {name: at[name] for name in names}

    found = jax.jit(jax.grad(lambda few: loss({**whole, **few}, forward())[0]))(few_of(whole))
    expected = unravel(jnp.asarray(gradient_of(kind, "direct")))
    for quantity in names:
        one, other = (ravel_pytree(tree[quantity])[0] for tree in (found, expected))
        assert np.linalg.norm(one - other) < 1e-9 * np.linalg.norm(other), quantity


BATHS = {
    "velocity_verlet": velocity_verlet(dt=DT),
    "langevin": langevin(dt=DT, temperature=60.0, friction=1 / units.PS),
    # Words of bits fill up and are stored many times.
    "much friction": langevin(dt=DT, temperature=60.0, friction=50 / units.PS),
}


def last_positions(bath, dtype, n_steps, method, *, away=0.0, **steps):
    """Gradient of Σ r² at the end with respect to the initial momenta, and the flags."""
    potential, params, system = crystal("lennard_jones")
    params, system = jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x, (params, system)
    )
    system = system.replace(positions=system.positions + jnp.asarray(away, dtype))
    neighbors = neighbor_list(system, cutoff=potential.cutoff, skin=0.8, slack=1.5)

    def loss(momenta):
        state = initialize(potential, params, system, bath, neighbors, momenta=momenta, key=jax.random.key(2))
        run = rollout(potential, params, state, bath, neighbors, n_steps=n_steps, gradient=method, **steps)
        return jnp.sum(run.state.system.positions**2), run.status

    # Steps back are exact if both programs round forces alike, which the older emitters do not ensure.
    older = "--xla_cpu_use_fusion_emitters=false" in os.environ.get("XLA_FLAGS", "")
    options = {"xla_cpu_use_fusion_emitters": True} if older and repr(method) == "reversible()" else None
    gradient, status = jax.jit(jax.grad(loss, has_aux=True), compiler_options=options)(
        draw_momenta(jax.random.key(1), system, 60.0)
    )
    return np.asarray(gradient), flags_of(status)


@pytest.mark.quick("velocity_verlet-float32")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("velocity_verlet", jnp.float32),
        ("much friction", jnp.float64),
        ("velocity_verlet", jnp.float64),
        ("langevin", jnp.float32),
        ("langevin", jnp.float64),
        ("much friction", jnp.float32),
    ],
)
def test_backward_run_recovers_the_initial_state_exactly(name, dtype):
    """Otherwise the gradient would be NaN."""
    steps = {"save_every": 25, "rebuild_every": 25}
    gradient, flags = last_positions(BATHS[name], dtype, 2000, reversible(), **steps)
    assert flags == Flag(0) and np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.slow
def test_coordinates_outside_the_grid_are_flagged():
    """The grid of float32 reaches 64 Å."""
    gradient, flags = last_positions(
        BATHS["velocity_verlet"], jnp.float32, 100, reversible(), away=1000.0, save_every=10
    )
    assert Flag.OFF_GRID in flags and np.isnan(gradient).all()


@pytest.mark.slow
def test_uneven_blocks_and_updated_lists():
    """75 steps between frames are two blocks and a remainder; nothing is saved, and lists are updated."""
    steps = {"save_every": 75, "save": lambda state, neighbors: None}
    found, flags = last_positions(BATHS["langevin"], jnp.float64, 150, reversible(), **steps)
    expected, _ = last_positions(BATHS["langevin"], jnp.float64, 150, direct(), **steps)
    assert flags == Flag(0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_reversible_raises_for_other_integrators():
    bath = BATHS["velocity_verlet"]._replace(reversible=None)
    with pytest.raises(InputError, match="cannot undo a step of this integrator: use velocity_verlet"):
        last_positions(bath, jnp.float64, 2, reversible(), save_every=2)


@pytest.mark.slow
def test_friction_may_be_traced():
    """As a differentiated argument of a jitted function."""
    potential, params, system = crystal("lennard_jones")
    neighbors = neighbor_list(system, cutoff=potential.cutoff, skin=0.8, slack=1.5)
    momenta = draw_momenta(jax.random.key(1), system, 60.0)

    def loss(friction, method):
        bath = langevin(dt=4 * units.FS, temperature=60.0, friction=friction)
        state = initialize(potential, params, system, bath, neighbors, momenta=momenta, key=jax.random.key(2))
        run = rollout(potential, params, state, bath, neighbors, n_steps=20, save_every=20, gradient=method)
        return jnp.sum(run.state.momenta**2)

    found, expected = (
        jax.jit(jax.grad(functools.partial(loss, method=method)))(1 / units.PS)
        for method in (reversible(), direct())
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.slow
def test_truncated_gradient_is_that_of_its_last_window():
    """One window gives the full gradient; with more, only the last affects the last frame."""
    steps = {"save_every": 10, "rebuild_every": 10}
    bath = BATHS["velocity_verlet"]
    full, _ = last_positions(bath, jnp.float64, 40, direct(), **steps)
    one_window, _ = last_positions(bath, jnp.float64, 40, truncated_backpropagation(n_steps=40), **steps)
    np.testing.assert_allclose(one_window, full, rtol=1e-12, atol=1e-12)
    two_windows, _ = last_positions(bath, jnp.float64, 40, truncated_backpropagation(n_steps=20), **steps)
    assert not two_windows.any()

    potential, params, system = crystal("lennard_jones")
    neighbors = neighbor_list(system, cutoff=potential.cutoff, skin=0.8, slack=1.5)
    momenta = draw_momenta(jax.random.key(1), system, 60.0)

    def end(params, state, n_steps, method):
        run = rollout(potential, params, state, bath, neighbors, n_steps=n_steps, gradient=method, **steps)
        return jnp.sum(run.state.system.positions**2), run.state

    initial = initialize(potential, params, system, bath, neighbors, momenta=momenta, key=jax.random.key(2))
    gradient = jax.jit(jax.grad(end, has_aux=True), static_argnums=(2, 3))
    window = direct()
    _, middle = gradient(params, initial, 20, window)
    expected, _ = gradient(params, middle, 20, window)
    found, _ = gradient(params, initial, 40, truncated_backpropagation(n_steps=20))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: truncated_backpropagation(n_steps=0), "n_steps = 0 of truncated_backpropagation"),
        (lambda: checkpointed(levels=0), "levels = 0 must be at least 1"),
        (lambda: forward(max_inputs=0), "max_inputs = 0 of forward"),
        (
            lambda: last_positions(BATHS["langevin"], jnp.float64, 10, forward(max_inputs=23), save_every=10),
            r"respect to 24 numbers, but max_inputs = 23: differentiate fewer, or use",
        ),
        (
            lambda: last_positions(
                BATHS["langevin"], jnp.float64, 40, truncated_backpropagation(n_steps=15), save_every=10
            ),
            r"n_steps=15\) must be a multiple of the segment of 10 steps and divide the rollout of 40 steps",
        ),
    ],
)
def test_bad_settings_raise(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("number", "n_factors", "expected"),
    [(1000, 3, [10, 10, 10]), (12, 2, [4, 3]), (7, 2, [7]), (1, 3, [1]), (64, 1, [64])],
)
def test_factors(number, n_factors, expected):
    assert factors(number, n_factors) == expected


def test_summary_is_the_call_of_the_factory():
    methods = (direct(), checkpointed(), checkpointed(levels=2), reversible(), forward(max_inputs=9))
    names = ["direct()", "checkpointed()", "checkpointed(levels=2)", "reversible()", "forward(max_inputs=9)"]
    assert [repr(method) for method in methods] == names
    assert repr(truncated_backpropagation(n_steps=20)) == "truncated_backpropagation(n_steps=20)"
