"""Models in a file: loading returns what was saved, and damaged files are refused."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.neighbors import neighbor_list
from difmd.potentials import (
    TERSOFF_1989,
    Truncation,
    atomic_energies,
    embedded_atom,
    ewald,
    from_description,
    invariant,
    lennard_jones,
    mace,
    morse,
    nequip,
    pair_prior,
    shifted,
    switched,
    tabulated,
    tersoff,
    truncated,
    waldman_hagler,
    zbl,
)
from difmd.potentials.model_file import load, save
from difmd.system import make_system

SYSTEM = make_system([[0.0, 0.0, 0.0], [0.1, 2.3, 0.2], [2.0, 0.3, -0.4]], [1, 8, 1], cell=[9.0, 8.0, 8.5])

R = np.linspace(0.5, 4.0, 30)

POTENTIALS = {
    "truncated": lambda: morse(
        ["H", "O"], depth=0.1, width=1.0, distance=2.0, cutoff=4.0, truncation=truncated()
    ),
    "shifted": lambda: lennard_jones(
        ["H", "O"], sigma=[2.0, 2.5], epsilon=0.01, cutoff=4.0, truncation=shifted(), mixing=waldman_hagler
    ),
    "switched": lambda: lennard_jones(
        ["H", "O"], sigma=2.0, epsilon=0.01, cutoff=4.0, truncation=switched(3.25)
    ),
    "tabulated": lambda: tabulated(
        ["H", "O"], distances=R, energies=np.exp(-R), truncation=switched(onset=3.0)
    ),
    "ewald": lambda: ewald(["H", "O"], charges=[0.4, -0.8], cell=[9.0, 8.0, 8.5], cutoff=4.0, accuracy=1e-3),
    "embedded_atom": lambda: embedded_atom(
        ["H", "O"],
        dr=0.15,
        pair=np.broadcast_to(np.exp(-R), (2, 2, 30)),
        density=np.broadcast_to(np.exp(-2 * R), (2, 30)),
        drho=0.1,
        embedding=-np.broadcast_to(R, (2, 30)),
        cutoff=4.0,
    ),
    "tersoff": lambda: tersoff(["H", "O"], elements={"H": TERSOFF_1989["Si"], "O": TERSOFF_1989["C"]}),
    "lennard_jones": lambda: lennard_jones(("H", "O"), sigma=[2.0, 2.5], epsilon=0.01, cutoff=4.0),
    "mace": lambda: mace(["H", "O"], cutoff=4.0, n_features=2, l_max=1, scale=np.array([0.5, 2.0])),
    "mace, distances held": lambda: mace(
        ["H", "O"], cutoff=4.0, n_features=2, l_max=1, nearest=np.array([[1.4, 0.9], [0.9, 2.2]])
    ),
    "priors and network": lambda: (
        zbl(["H", "O"], cutoff=[[1.5, 2.5], [2.5, 3.0]])
        + pair_prior(["H", "O"], cutoff=4.0, coefficients=np.linspace(-0.1, 0.2, 8))
        + invariant(["H", "O"], cutoff=4.0, n_features=3, n_radial=3, shift=[-13.6, -430.0])
    ),
    "sum": lambda: (
        nequip(["H", "O"], cutoff=4.0, n_features=2, n_layers=2)
        + lennard_jones(["H", "O"], sigma=2.0, epsilon=0.02, cutoff=5.0)
        + atomic_energies([1, 8], energies=[-13.6, -430.0])
    ),
}


@pytest.mark.quick("truncated", "shifted", "switched", "ewald", "tabulated", "embedded_atom", "lennard_jones")
@pytest.mark.parametrize("name", list(POTENTIALS))
def test_loading_returns_what_was_saved(name, tmp_path):
    potential = POTENTIALS[name]()
    params = jax.tree.map(lambda x: 1.01 * x, potential.init(jax.random.key(4)))
    path = tmp_path / "model.npz"
    save(path, potential, params, provenance={"data": "made up", "seed": 4})
    found = load(path)
    assert found.provenance == {"data": "made up", "seed": 4}
    assert len(repr(found).splitlines()) == 4 and "provenance: {data, seed}" in repr(found)
    assert (found.potential.cutoff, found.potential.species) == (potential.cutoff, potential.species)
    neighbors = neighbor_list(SYSTEM, cutoff=potential.cutoff)
    ours, expected = (
        jax.jit(lambda params, which=which: difmd.evaluate(which, params, SYSTEM, neighbors))(params)
        for which, params in ((found.potential, found.params), (potential, params))
    )
    np.testing.assert_array_equal(ours.energy, expected.energy)
    np.testing.assert_array_equal(ours.forces, expected.forces)
    assert b"pickle" not in path.read_bytes()


def test_loading_a_network_imports_networks(tmp_path):
    """The module that registers networks is imported on first use."""
    potential = POTENTIALS["mace"]()
    path = tmp_path / "model.npz"
    save(path, potential, potential.init(jax.random.key(0)))
    code = f"import sys, difmd; assert 'flax' not in sys.modules; print(difmd.load({str(path)!r}).potential)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "mace(" in done.stdout, done.stderr


def potential_arguments():
    return POTENTIALS["lennard_jones"]().description["arguments"]


def test_repr_is_the_call_that_made_it():
    argon = lennard_jones("Ar", sigma=3.405, epsilon=0.0103, cutoff=8.5, truncation=switched(7.5))
    assert repr(argon) == "lennard_jones(Ar, sigma=3.405, epsilon=0.0103, cutoff=8.5 Å, switched(7.5 Å))"
    water = lennard_jones(["H", 8], sigma=2.0, epsilon=0.02, cutoff=4, mixing=waldman_hagler)
    text = " ".join(repr(water + POTENTIALS["mace"]()).split())
    assert text.startswith(
        "lennard_jones([H, O], sigma=2, epsilon=0.02, cutoff=4 Å, mixing=waldman_hagler) + "
    )
    assert text.endswith(" + mace([H, O], cutoff=4 Å, n_features=2, l_max=1, scale=[0.5, 2.0])")
    assert repr(switched(4.0)) == "switched(4 Å)" and repr(truncated()) == "truncated()"
    assert "pair=<table 2 × 2 × 30>" in " ".join(repr(POTENTIALS["embedded_atom"]()).split())
    custom = lennard_jones(["H"], sigma=1.0, epsilon=1.0, cutoff=3.0, mixing=lambda s, e: (s, e))
    assert repr(custom) == "Potential(H, cutoff=3 Å)"
    for make in POTENTIALS.values():
        assert len(repr(make()).splitlines()) <= 6


def test_potentials_and_files_that_are_refused(tmp_path):
    path = tmp_path / "model.npz"
    potential = POTENTIALS["mace"]()
    params = potential.init(jax.random.key(0))
    with pytest.raises(InputError, match="no file"):
        load(path)
    own = Truncation(end=lambda phi, cutoff: phi, missing=lambda phi, pair, cutoff: 0, onset=0.0, jumps=True)
    for strange in (
        lennard_jones(["H"], sigma=1.0, epsilon=1.0, cutoff=3.0, truncation=own),
        lennard_jones(["H"], sigma=1.0, epsilon=1.0, cutoff=3.0, mixing=lambda s, e: (s, e)),
    ):
        with pytest.raises(InputError, match="cannot be saved"):
            save(path, strange, strange.init(jax.random.key(0)))
    with pytest.raises(InputError, match=r"switched\(2 Å\) is not a potential"):
        from_description({"name": "switched", "arguments": {"onset": 2.0}})
    with pytest.raises(InputError, match="no function 'harmonic'"):
        arguments = {**potential_arguments(), "mixing": {"function": "harmonic"}}
        from_description({"name": "lennard_jones", "arguments": arguments})
    with pytest.raises(InputError, match="not those of this potential"):
        save(path, potential, {"scale": np.ones(2)})
    with pytest.raises(InputError, match="not finite"):
        save(path, potential, {**params, "scale": np.full(2, np.nan)})
    with pytest.raises(InputError, match="JSON"):
        save(path, potential, params, provenance={"when": object()})
    assert not path.exists()
    save(path, potential, params)
    content = path.read_bytes()
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = arrays["meta"].tobytes().replace(b'"format": 2', b'"format": 1')
    np.savez(path, **{**arrays, "meta": np.frombuffer(meta, np.uint8)})
    with pytest.raises(InputError, match="has format 1, but this version reads 2: save the model again"):
        load(path)
    for damaged in (content[: len(content) // 2], b"", b"something else"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            load(path)
    with pytest.raises(InputError, match="cannot write"):
        save(tmp_path / "nowhere" / "model.npz", potential, params)


def test_described_potentials_are_hashable_and_run():
    """A description has no hash, but a static argument of jit needs one."""
    for make in POTENTIALS.values():
        assert len({make()}) == 1
    potential = POTENTIALS["lennard_jones"]()
    params = potential.init(jax.random.key(0))
    run = difmd.simulate(
        potential, params, SYSTEM, difmd.velocity_verlet(dt=0.2 * difmd.units.FS), n_steps=4, save_every=2,
        initial_temperature=100.0, key=jax.random.key(1), progress=False,
    )  # fmt: skip
    assert np.isfinite(run.positions).all()
