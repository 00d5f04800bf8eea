"""Many-body potentials: limits, single bonds, and invalid arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.potentials import TERSOFF_1989, Contribution, embedding_potential


def evaluated(potential, system):
    neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff)
    return difmd.evaluate(potential, potential.init(jax.random.key(0)), system, neighbors)


@pytest.mark.slow
def test_embedding_continues_as_a_line():
    """Beyond the last density of the table energies follow a straight line."""
    r, rho = np.linspace(0, 6.0, 61), np.linspace(0, 2.0, 21)
    flat = difmd.embedded_atom(
        ["Cu"], dr=0.1, pair=np.zeros((1, 1, 61)), density=(1 - r / 6)[None], drho=0.1,
        embedding=(rho**2)[None], cutoff=6.0,
    )  # fmt: skip
    system = difmd.make_system(np.array([[0, 0, 0], [0.6, 0, 0], [0, 0.6, 0], [0, 0, 0.6]]), [29] * 4)
    density = 3 * 0.9  # of the first atom; of the others 0.9 + 2 (1 − 0.6 √2/6)
    other = 0.9 + 2 * (1 - 0.1 * np.sqrt(2))
    expected = sum(4 + 4 * (x - 2) for x in (density, other, other, other))
    np.testing.assert_allclose(evaluated(flat, system).energy, expected, rtol=1e-10)


def finnis_sinclair(cutoff=4.0):
    """−√ρ, whose slope at ρ = 0 is infinite."""

    def neighbor(tables, i, j, apart):
        r_squared = apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
        inside = r_squared < cutoff**2
        rho = jnp.where(inside, (1 - jnp.where(inside, r_squared, 0) / cutoff**2) ** 3, 0)
        return Contribution(2 * rho * rho, [rho], [rho])

    return embedding_potential(
        neighbor,
        lambda tables, i, sums: -tables * jnp.sqrt(sums[0]),
        init=lambda key: jnp.ones(()),
        tables=lambda params, dtype: jnp.asarray(params, dtype),
        species=["Cu"],
        cutoff=cutoff,
    )


@pytest.mark.slow
def test_padding_is_not_embedded():
    """The derivative of a root would be NaN at its density, which is zero."""
    potential = finnis_sinclair()
    positions = np.array([[0, 0, 0], [2.0, 0, 0], [0, 2.3, 0], [0, 0, 1.0]])
    cell = [9.0] * 3
    padded = evaluated(potential, difmd.make_system(positions, [29, 29, 29, 0], cell=cell))
    bare = evaluated(potential, difmd.make_system(positions[:3], [29, 29, 29], cell=cell))
    np.testing.assert_allclose(padded.energy, bare.energy, rtol=1e-13)
    np.testing.assert_allclose(padded.forces[:3], bare.forces, rtol=1e-12, atol=1e-15)
    assert not np.any(padded.forces[3])
    np.testing.assert_allclose(padded.stress, bare.stress, rtol=1e-12, atol=1e-16)
    system = difmd.make_system(positions, [29, 29, 29, 0], cell=cell)
    neighbors = difmd.neighbor_list(system, cutoff=4.0)
    assert np.isfinite(jax.grad(potential.apply)(jnp.ones(()), system, neighbors))


SILICON = {"epsilon": 2.1683, "sigma": 2.0951}


@pytest.mark.quick("tersoff-float32")
@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        pytest.param(lambda: difmd.tersoff(["Si"]), jnp.float32, id="tersoff-float32"),
        pytest.param(lambda: difmd.stillinger_weber(["Si"], **SILICON), jnp.float64, id="sw-float64"),
        # They take long to compile.
        pytest.param(
            lambda: difmd.tersoff(["Si"]), jnp.float64, id="tersoff-float64", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda: difmd.stillinger_weber(["Si"], **SILICON),
            jnp.float32,
            id="sw-float32",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_atoms_at_the_cutoff_have_finite_derivatives(make, dtype):
    """Alone, at the end of a bond, and with a third atom about to join it: ζⁿ has no slope at zero."""
    potential = make()
    params = jax.tree.map(lambda x: x.astype(dtype), potential.init(jax.random.key(0)))
    end = potential.cutoff

    def everything(positions):
        system = start.replace(positions=positions)
        energy = lambda p, r: potential.apply(p, system.replace(positions=r), neighbors)  # noqa: E731
        first = jax.grad(energy, (0, 1))(params, positions)
        return first, jax.grad(lambda r: jnp.sum(jax.grad(energy, 1)(params, r) ** 2))(positions)

    line = np.zeros((3, 3))
    line[1, 0], line[2, 1] = 2.3, 2.3
    start = difmd.make_system(line, [14] * 3)
    start = start.replace(positions=start.positions.astype(dtype), masses=start.masses.astype(dtype))
    start = start.replace(cell=start.cell.astype(dtype))
    neighbors = difmd.neighbor_list(start, cutoff=end, skin=0.5)
    compiled = jax.jit(everything)
    for first, second in ((2.3, 40.0), (40.0, 60.0), (2.3, end - 1e-4), (2.3, end - 1e-6), (2.3, end)):
        places = jnp.asarray(line, dtype).at[1, 0].set(first).at[2, 1].set(second)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(compiled(places))), (first, second)


def test_factors_of_unlike_pairs_come_with_the_published_elements():
    for elements in (TERSOFF_1989, {**TERSOFF_1989}):
        chi = difmd.tersoff(["Si", "C"], elements=elements).init(jax.random.key(0))["chi"]
        np.testing.assert_allclose(chi, [[1, 0.9776], [0.9776, 1]], rtol=1e-6)
    other = {**TERSOFF_1989, "C": TERSOFF_1989["C"]._replace(A=1400.0)}
    np.testing.assert_array_equal(difmd.tersoff([14, 6], elements=other).init(jax.random.key(0))["chi"], 1)


EAM = {
    "dr": 0.5, "pair": np.zeros((1, 1, 13)), "density": np.zeros((1, 13)), "drho": 0.1,
    "embedding": np.zeros((1, 8)), "cutoff": 6.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: difmd.stillinger_weber(["Si"], **SILICON, p=0, q=4), "greater than q = 4"),
        (lambda: difmd.stillinger_weber(["Si"], **SILICON, lambda_=np.ones(2)), r"a table \[1, 1, 1\]"),
        (lambda: difmd.stillinger_weber(["Si"], **SILICON, lambda_=-1.0), "not negative"),
        (lambda: difmd.stillinger_weber(["Si"], epsilon=-1.0, sigma=2.0), "epsilon = -1.0"),
        (lambda: difmd.stillinger_weber(["Si"], **SILICON, a=30.0), "would jump at the cut-off"),
        (lambda: difmd.tersoff(["Si", "O"]), "no parameters for O"),
        (lambda: difmd.tersoff([14, 8]), "no parameters for O"),
        (
            lambda: difmd.tersoff(["Si"], elements={"Si": TERSOFF_1989["Si"]._replace(S=2.0)}),
            "must be below S",
        ),
        (lambda: difmd.embedded_atom(["Cu"], **EAM | {"cutoff": 9.0}), "beyond the tables"),
        (lambda: difmd.embedded_atom(["Cu"], **EAM | {"embedding": np.zeros(8)}), "embedding has shape"),
        (lambda: difmd.read_eam("nowhere.alloy"), "no such file"),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_invalid_files_are_refused(tmp_path):
    file = tmp_path / "table.alloy"
    file.write_text("one\ntwo\nthree\n1 Cu\nnonsense\n", encoding="utf-8")
    with pytest.raises(InputError, match="not a table"):
        difmd.read_eam(file)
    with pytest.raises(InputError, match="must end in"):
        difmd.read_eam(file.rename(tmp_path / "table.txt"))
