"""Ewald sums: Madelung constants, reference energies of water, and invalid arguments."""

import ase.build
import jax
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


@pytest.mark.quick("5.0-rocksalt")
@pytest.mark.parametrize("structure", MADELUNG)
@pytest.mark.parametrize("cutoff", [5.0, 9.0])
def test_madelung_constants(structure, cutoff):
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


def test_background_neutralises_a_charge():
    """A lattice of charges in a uniform background: −1.41865 k q²/L."""
    system = difmd.make_system([[0.3, 0.1, 0.2]], [11], cell=[4.0] * 3)
    ewald = difmd.ewald(["Na"], charges=1.0, cell=system.cell, cutoff=6.0, accuracy=1e-12)
    np.testing.assert_allclose(evaluated(ewald, system).energy, -1.418648739756 * COULOMB / 4, rtol=1e-9)


@pytest.mark.quick("1")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_energies_agree_with_nist(shared_data, number):
    """SPC/E water, doi:10.18434/T4M88Q: all terms together, without the pairs of each molecule."""
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


def test_a_stretched_cell_is_refused():
    system = difmd.make_system([[0, 0, 0], [3, 0, 0]], [11, 17], cell=[6.0] * 3)
    ewald = difmd.ewald(["Na", "Cl"], charges=[1.0, -1.0], cell=system.cell, cutoff=5.0)
    longer = system.replace(cell=system.cell.at[2].multiply(1.2))
    params = ewald.init(jax.random.key(0))
    # In a sum, too.
    charged = ewald + difmd.lennard_jones(["Na", "Cl"], sigma=2.0, epsilon=0.01, cutoff=5.0)
    for potential in (ewald, charged):
        with pytest.raises(InputError, match="1.20 times as long"):
            evaluated(potential, longer)
        with pytest.raises(InputError, match="1.20 times as long"):
            difmd.simulate(
                potential, potential.init(jax.random.key(0)), longer, difmd.velocity_verlet(dt=0.1),
                n_steps=1, save_every=1, initial_temperature=10.0, key=jax.random.key(0), progress=False,
            )  # fmt: skip
    neighbors = difmd.neighbor_list(longer, cutoff=5.0)
    assert np.isnan(jax.jit(ewald.apply)(params, longer, neighbors))
    open_ = difmd.make_system([[0, 0, 0], [3, 0, 0]], [11, 17])
    with pytest.raises(InputError, match="three periodic directions"):
        evaluated(ewald, open_)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: difmd.ewald(["Na"], charges=1.0, cell=[5.0] * 3, accuracy=0.5), "accuracy = 0.5"),
        (lambda: difmd.ewald(["Na"], charges=1.0, cell=np.zeros((3, 3))), "with a volume"),
        (
            lambda: difmd.ewald(["Na"], charges=[1.0, 2.0], cell=[5.0] * 3),
            "charges has 2 values",
        ),
        (lambda: difmd.ewald(["Na"], charges=1.0, cell=[2000.0] * 3), "raise the cutoff"),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
