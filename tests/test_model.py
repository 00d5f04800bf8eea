"""Models in a file: what is loaded is what was saved, and a damaged file is named."""

import jax
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.model import load, save
from difmd.neighbors import neighbor_list
from difmd.potentials import atomic_energies, lennard_jones, mace, nequip, switched
from difmd.system import make_system

SYSTEM = make_system([[0.0, 0.0, 0.0], [0.1, 2.3, 0.2], [2.0, 0.3, -0.4]], [1, 8, 1])

POTENTIALS = {
    "lennard_jones": lambda: lennard_jones(("H", "O"), sigma=[2.0, 2.5], epsilon=0.01, cutoff=4.0),
    "mace": lambda: mace(["H", "O"], cutoff=4.0, channels=2, max_ell=1, scale=np.array([0.5, 2.0])),
    "sum": lambda: (
        nequip(["H", "O"], cutoff=4.0, num_features=2, num_layers=2)
        + lennard_jones(["H", "O"], sigma=2.0, epsilon=0.02, cutoff=5.0)
        + atomic_energies([1, 8], energies=[-13.6, -430.0])
    ),
}


@pytest.mark.parametrize("name", list(POTENTIALS))
def test_what_is_loaded_is_what_was_saved(name, tmp_path):
    potential = POTENTIALS[name]()
    params = jax.tree.map(lambda x: 1.01 * x, potential.init(jax.random.key(4)))
    path = tmp_path / "model.npz"
    save(path, potential, params, provenance={"data": "made up", "seed": 4})
    found = load(path)
    assert found.provenance == {"data": "made up", "seed": 4}
    assert (found.potential.cutoff, found.potential.species) == (potential.cutoff, potential.species)
    neighbors = neighbor_list(SYSTEM, cutoff=potential.cutoff)
    ours = difmd.evaluate(found.potential, found.params, SYSTEM, neighbors)
    expected = difmd.evaluate(potential, params, SYSTEM, neighbors)
    np.testing.assert_array_equal(ours.energy, expected.energy)
    np.testing.assert_array_equal(ours.forces, expected.forces)
    assert b"pickle" not in path.read_bytes()


def test_what_cannot_be_saved_or_loaded_is_said(tmp_path):
    path = tmp_path / "model.npz"
    potential = POTENTIALS["mace"]()
    params = potential.init(jax.random.key(0))
    with pytest.raises(InputError, match="no file"):
        load(path)
    with pytest.raises(InputError, match="cannot be saved"):
        ended = lennard_jones(["H"], sigma=1.0, epsilon=1.0, cutoff=3.0, truncation=switched(2.0))
        save(path, ended, ended.init(jax.random.key(0)))
    with pytest.raises(InputError, match="not those of this potential"):
        save(path, potential, {"scale": np.ones(2)})
    with pytest.raises(InputError, match="not finite"):
        save(path, potential, {**params, "scale": np.full(2, np.nan)})
    with pytest.raises(InputError, match="JSON"):
        save(path, potential, params, provenance={"when": object()})
    assert not path.exists()
    save(path, potential, params)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            load(path)
    with pytest.raises(InputError, match="cannot write"):
        save(tmp_path / "nowhere" / "model.npz", potential, params)


@pytest.mark.parametrize("name", list(POTENTIALS))
def test_what_can_be_saved_can_be_run(name):
    """A description, which has no hash, must not keep a potential from being compiled for."""
    potential = POTENTIALS[name]()
    params = potential.init(jax.random.key(0))
    run = difmd.simulate(
        potential, params, SYSTEM, difmd.velocity_verlet(dt=0.2 * difmd.units.FS), n_steps=4, save_every=2,
        temperature=100.0, key=jax.random.key(1), progress=False,
    )  # fmt: skip
    assert np.isfinite(run.positions).all()
