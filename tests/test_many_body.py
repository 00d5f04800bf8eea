"""Tables, Ewald sums and many-body potentials: closed forms, and what they refuse."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.units import COULOMB, KB


def evaluated(potential, system):
    neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff)
    return difmd.evaluate(potential, potential.init(jax.random.key(0)), system, neighbors)


# Madelung constants of the distance of nearest neighbours: Borwein et al., Lattice Sums Then and Now, 2013.
MADELUNG = {"rocksalt": ("NaCl", 1.747564594633182), "cesiumchloride": ("CsCl", 1.762674773070988)}


@pytest.mark.parametrize("structure", MADELUNG)
@pytest.mark.parametrize("cutoff", [5.0, 9.0])
def test_ewald_gives_madelung_constants(structure, cutoff):
    name, expected = MADELUNG[structure]
    atoms = ase.build.bulk(name, structure, a=5.0)
    nearest = 2.5 if structure == "rocksalt" else 5.0 * np.sqrt(3) / 2
    system = difmd.from_ase(atoms)
    ewald = difmd.ewald(
        [name[:2], "Cl"], charges=[1.0, -1.0], cell=system.cell, cutoff=cutoff, accuracy=1e-12
    )
    found = evaluated(ewald, system)
    np.testing.assert_allclose(found.energy, -expected * COULOMB / nearest, rtol=1e-10)
    # The energy goes as 1/length.
    np.testing.assert_allclose(np.trace(found.stress) * system.volume, -found.energy, rtol=1e-9)


def test_ewald_makes_up_for_a_charge_by_a_background():
    """A lattice of charges in an even background: −1.41865 k q²/L."""
    system = difmd.make_system([[0.3, 0.1, 0.2]], [11], cell=[4.0] * 3)
    ewald = difmd.ewald(["Na"], charges=1.0, cell=system.cell, cutoff=6.0, accuracy=1e-12)
    np.testing.assert_allclose(evaluated(ewald, system).energy, -1.418648739756 * COULOMB / 4, rtol=1e-9)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_ewald_gives_the_energies_of_nist(shared_data, number):
    """SPC/E water, doi:10.18434/T4M88Q: all terms together, with the pairs of each molecule taken out."""
    import json

    folder = shared_data / "nist_srsw"
    table = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["spce"]
    data = np.loadtxt(folder / f"spce_sample_config_periodic{number}.txt", skiprows=2, usecols=(1, 2, 3))
    edge = table["L_A"][number - 1]
    system = difmd.make_system(data, [8, 1, 1] * (len(data) // 3), cell=[edge] * 3)
    ewald = difmd.ewald(["O", "H"], charges=[-0.8476, 0.4238], cell=system.cell, accuracy=1e-9)
    molecules = data.reshape(-1, 3, 3)
    apart = molecules[:, [0, 0, 1]] - molecules[:, [1, 2, 2]]
    apart -= edge * np.round(apart / edge)
    products = COULOMB * np.array([-0.8476 * 0.4238] * 2 + [0.4238**2])
    inside = np.sum(products / np.linalg.norm(apart, axis=-1))
    terms = [table[name][number - 1] for name in ("Ereal", "Efourier", "Eself", "Eintra")]
    # Printed to six digits; that sum leaves out some 1e-5 of its first terms.
    tolerance = 1e-5 * max(np.abs(terms))
    np.testing.assert_allclose((evaluated(ewald, system).energy - inside) / KB, sum(terms), atol=tolerance)


def test_ewald_refuses_a_cell_it_was_not_made_for():
    system = difmd.make_system([[0, 0, 0], [3, 0, 0]], [11, 17], cell=[6.0] * 3)
    ewald = difmd.ewald(["Na", "Cl"], charges=[1.0, -1.0], cell=system.cell, cutoff=5.0)
    longer = system.replace(cell=system.cell.at[2].multiply(1.2))
    neighbors = difmd.neighbor_list(longer, cutoff=5.0)
    params = ewald.init(jax.random.key(0))
    with pytest.raises(InputError, match="1.20 times as long"):
        ewald.apply(params, longer, neighbors)
    assert np.isnan(jax.jit(ewald.apply)(params, longer, neighbors))
    open_ = difmd.make_system([[0, 0, 0], [3, 0, 0]], [11, 17])
    with pytest.raises(InputError, match="three periodic directions"):
        evaluated(ewald, open_)


def test_table_of_a_cubic_is_exact():
    r = np.linspace(2.0, 6.0, 9)
    cubic = difmd.tabulated(["Ar"], distances=r, energies=(r - 6) ** 2 * (r - 3))
    for x in (2.0, 2.13, 3.5, 5.99):
        system = difmd.make_system([[0, 0, 0], [x, 0, 0]], [18, 18])
        found = evaluated(cubic, system)
        np.testing.assert_allclose(found.energy, (x - 6) ** 2 * (x - 3), rtol=1e-11, atol=1e-12)
        slope = 2 * (x - 6) * (x - 3) + (x - 6) ** 2
        np.testing.assert_allclose(found.forces[0, 0], slope, rtol=1e-10, atol=1e-11)


def test_table_follows_the_potential_it_was_made_from():
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


def test_embedding_goes_on_as_a_line():
    """Past the last density of the table energies stay what a straight line makes of them."""
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


def test_lone_atoms_and_bonds_have_finite_derivatives():
    """Tersoff's ζⁿ has no slope at zero, Stillinger and Weber's exponent none at the cut-off."""
    for potential, numbers in (
        (difmd.tersoff(["Si", "C"]), [14, 6]),
        (difmd.stillinger_weber(["Si"], epsilon=2.1683, sigma=2.0951), [14, 14]),
    ):
        params = potential.init(jax.random.key(0))
        for x in (2.0, potential.cutoff - 1e-9, potential.cutoff, 20.0):
            system = difmd.make_system([[0, 0, 0], [x, 0, 0]], numbers)
            neighbors = difmd.neighbor_list(system, cutoff=potential.cutoff, skin=0.5)

            def energy(params, r, system=system, neighbors=neighbors, potential=potential):
                return potential.apply(params, system.replace(positions=r), neighbors)

            everything = jax.jit(jax.value_and_grad(energy, (0, 1)))(params, system.positions)
            curvature = jax.jit(jax.hessian(energy, 1))(params, system.positions)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((everything, curvature)))


TABLE = {"distances": np.linspace(2.0, 6.0, 9), "energies": np.zeros(9)}
EAM = {
    "dr": 0.5, "pair": np.zeros((1, 1, 13)), "density": np.zeros((1, 13)), "drho": 0.1,
    "embedding": np.zeros((1, 8)), "cutoff": 6.0,
}  # fmt: skip
SILICON = {"epsilon": 2.1683, "sigma": 2.0951}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: difmd.tabulated(["Ar"], **TABLE | {"distances": np.geomspace(2.0, 6.0, 9)}),
            "evenly spaced",
        ),
        (lambda: difmd.tabulated(["Ar"], **TABLE | {"energies": np.zeros(8)}), "one a distance, 9 in all"),
        (lambda: difmd.tabulated(["Ar"], **TABLE | {"energies": np.full(9, np.inf)}), "must be finite"),
        (lambda: difmd.tabulated(["Ar"], distances=[1.0, 2.0], energies=[0.0, 0.0]), "at least four"),
        (lambda: difmd.ewald(["Na"], charges=1.0, cell=[5.0] * 3, accuracy=0.5), "accuracy = 0.5"),
        (lambda: difmd.ewald(["Na"], charges=1.0, cell=np.zeros((3, 3))), "with a volume"),
        (lambda: difmd.ewald(["Na"], charges=[1.0, 2.0], cell=[5.0] * 3), "one finite charge a species"),
        (lambda: difmd.stillinger_weber(["Si"], **SILICON, p=0, q=4), "greater than q = 4"),
        (lambda: difmd.stillinger_weber(["Si"], **SILICON, lambda_=np.ones(2)), r"a table \[1, 1, 1\]"),
        (lambda: difmd.stillinger_weber(["Si"], **SILICON, lambda_=-1.0), "not negative"),
        (lambda: difmd.stillinger_weber(["Si"], epsilon=-1.0, sigma=2.0), "epsilon = -1.0"),
        (lambda: difmd.tersoff(["Si", "O"]), "no parameters for O"),
        (
            lambda: difmd.tersoff(
                ["Si"], elements={"Si": difmd.potentials.TERSOFF_1989["Si"]._replace(S=2.0)}
            ),
            "must be below S",
        ),
        (lambda: difmd.embedded_atom(["Cu"], **EAM | {"cutoff": 9.0}), "beyond the tables"),
        (lambda: difmd.embedded_atom(["Cu"], **EAM | {"embedding": np.zeros(8)}), "embedding has shape"),
        (lambda: difmd.read_eam("nowhere.alloy"), "no such file"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_file_that_is_no_table(tmp_path):
    file = tmp_path / "table.alloy"
    file.write_text("one\ntwo\nthree\n1 Cu\nnonsense\n", encoding="utf-8")
    with pytest.raises(InputError, match="not a table"):
        difmd.read_eam(file)
    with pytest.raises(InputError, match="must end in"):
        difmd.read_eam(file.rename(tmp_path / "table.txt"))
