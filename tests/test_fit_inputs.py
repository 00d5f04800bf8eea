"""Tables of targets, settings of the sampling, and checkpoints: round trips and bad input."""

import dataclasses
import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd import datasets, units
from difmd._internal.checkpoint import ensure_writable, fingerprint, load_checkpoint, save_checkpoint
from difmd.errors import InputError
from difmd.fitting import (
    DiffusivityTarget,
    Sampling,
    at_temperatures,
    read_targets,
)

HEADER = "temperature_K,diffusivity_1e-9_m2_s,density_kg_m3,viscosity_uPa_s"
GOOD = "99,3.03,440.26,160.0"


# Targets


# D [1e-9 m²/s], density [kg/m³] and viscosity [µPa·s] of SCIENCE.md.
METHANE = {
    91: (2.23, 451.07, 203.8),
    93: (2.41, 448.40, 191.0),
    95: (2.63, 445.71, 179.6),
    97: (2.77, 442.99, 169.3),
    99: (3.03, 440.26, 160.0),
    101: (3.18, 437.50, 151.5),
    103: (3.48, 434.72, 143.8),
    105: (3.73, 431.92, 136.7),
    107: (3.94, 429.08, 130.2),
    109: (4.04, 426.22, 124.2),
}


def test_table_that_ships():
    targets = read_targets(datasets.methane_liquid())
    assert [t.temperature for t in targets] == list(METHANE)
    for target in targets:
        d, density, viscosity = METHANE[round(target.temperature)]
        # D, density and viscosity in SI, from the definition of the internal units.
        time = 1e-10 * np.sqrt(1.66053906660e-27 / 1.602176634e-19)
        assert target.diffusivity * 1e-20 / time == pytest.approx(d * 1e-9, rel=1e-9)
        assert target.density * 1.66053906660e-27 * 1e30 == pytest.approx(density, rel=1e-9)
        assert target.viscosity * 1.602176634e-19 * 1e30 * time == pytest.approx(viscosity * 1e-6, rel=1e-9)


def test_comments_other_columns_and_no_finite_size(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(f"# source\n\nnote,{HEADER.rsplit(',', 1)[0]}\n# more\nx,99,3.03,440.26\n\n")
    (target,) = read_targets(table, finite_size=False)
    assert target.viscosity is None
    assert target.diffusivity == pytest.approx(3.03 * units.D)
    with pytest.raises(InputError, match="viscosity_uPa_s"):
        read_targets(table)


def test_byte_order_mark_of_spreadsheets(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8-sig")
    assert read_targets(table)[0].temperature == 99


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        (HEADER, "no rows"),
        (f"{HEADER.replace('density', 'rho')}\n{GOOD}", "no column density_kg_m3"),
        (f"{HEADER}\n{GOOD}\n91,-2.23,451.07,203.8", "line 3: diffusivity_1e-9_m2_s = '-2.23'"),
        (f"# c\n\n{HEADER}\n# c\n91,2.23,451.07,0", "line 5: viscosity_uPa_s = '0'"),
        (f"{HEADER}\n91,2.23,dense,203.8", "line 2: density_kg_m3 = 'dense'"),
        (f"{HEADER}\nnan,2.23,451.07,203.8", "line 2: temperature_K = 'nan'"),
        (f"{HEADER}\n91,inf,451.07,203.8", "line 2: diffusivity_1e-9_m2_s = 'inf'"),
        (f"{HEADER}\n91,2.23,451.07", "line 2: viscosity_uPa_s = None"),
        (f"{HEADER}\n91,,451.07,203.8", "line 2: diffusivity_1e-9_m2_s = ''"),
        (b"\xff\xfe\x00\x81", "t.csv"),
    ],
)
def test_bad_table(tmp_path, text, message):
    table = tmp_path / "t.csv"
    if text is not None:
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_targets(table)


@pytest.mark.parametrize("field", ["temperature", "diffusivity", "density", "viscosity"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_target(field, value):
    good = {"temperature": 99.0, "diffusivity": 1.0, "density": 0.2, "viscosity": 0.01}
    with pytest.raises(InputError, match=field):
        DiffusivityTarget(**{**good, field: value})


def test_choice_of_temperatures():
    table = read_targets(datasets.methane_liquid())
    chosen = at_temperatures(table, (107.0, 91.0))
    assert chosen == (table[8], table[0])
    with pytest.raises(InputError, match="92"):
        at_temperatures(table, (91.0, 92.0))


# Checkpoints


TREE = {
    "x": jnp.asarray([1.5, -2.0]),
    "n": jnp.int32(7),
    "low": jnp.asarray([[0.1]], jnp.float32),
    "key": jax.random.key(5),
    "flag": jnp.asarray([True, False]),
}
META = {"settings": "abc", "history": [{"loss": 0.1 + 0.2}], "best_loss": 1e-17}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "fit.npz"
    save_checkpoint(path, TREE, META)
    return path


def plain(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(plain(x), plain(y))


def test_checkpoint_round_trip(checkpoint):
    like = jax.tree.map(lambda x: x if x.dtype == TREE["key"].dtype else jnp.zeros_like(x), TREE)
    tree, meta = load_checkpoint(checkpoint, like)
    assert jax.tree.structure(tree) == jax.tree.structure(TREE)
    assert_same(tree, TREE)
    assert meta == META
    assert os.listdir(checkpoint.parent) == ["fit.npz"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, "text"])
def test_damaged_checkpoint(checkpoint, share):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(b"not an archive" if share == "text" else content[: int(share * len(content))])
    with pytest.raises(InputError, match="fit.npz cannot be read .*delete it"):
        load_checkpoint(checkpoint, TREE)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match="none.npz cannot be read"):
        load_checkpoint(tmp_path / "none.npz", TREE)


@pytest.mark.parametrize("change", [{"x": jnp.zeros(3)}, {"more": jnp.zeros(1)}])
def test_checkpoint_of_another_structure(checkpoint, change):
    with pytest.raises(InputError, match="another fit"):
        load_checkpoint(checkpoint, {**TREE, **change})


@pytest.mark.parametrize(
    "where", ["difmd._internal.checkpoint.os.replace", "difmd._internal.checkpoint.np.savez"]
)
def test_full_disk_keeps_the_previous_checkpoint(checkpoint, monkeypatch, where):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(where, full)
    with pytest.raises(InputError, match="No space left on device"):
        save_checkpoint(checkpoint, {"x": jnp.zeros(2)}, {})
    monkeypatch.undo()
    assert os.listdir(checkpoint.parent) == ["fit.npz"]
    tree, meta = load_checkpoint(checkpoint, TREE)
    assert_same(tree, TREE)
    assert meta == META


def test_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        ensure_writable(file / "run")
    with pytest.raises(InputError, match="cannot write"):
        ensure_writable(file)
    with pytest.raises(InputError, match="cannot write the checkpoint"):
        save_checkpoint(file / "fit.npz", TREE, META)
    assert file.read_text() == "x"
    ensure_writable(tmp_path / "new" / "run")
    assert os.listdir(tmp_path / "new" / "run") == []


def test_fingerprint():
    argon = Sampling(atomic_number=18, mass=39.948)
    settings = (argon, {"sigma": jnp.asarray([3.6])}, 1.5, True)

    def of(sampling, params, number, flag):
        return fingerprint(dataclasses.astuple(sampling), params, number, flag)

    same = of(argon, {"sigma": jnp.asarray([3.6])}, 1.5, True)
    assert of(*settings) == same and len(same) == 16
    others = [
        of(dataclasses.replace(argon, n_replicas=30), *settings[1:]),
        of(dataclasses.replace(argon, skin=1.0), *settings[1:]),
        of(settings[0], {"sigma": jnp.asarray([np.nextafter(3.6, 4)])}, 1.5, True),
        of(settings[0], {"sigma": jnp.asarray([[3.6]])}, 1.5, True),
        of(*settings[:2], 1.5000001, True),
        of(*settings[:3], False),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_fingerprint_keeps_neighbours_apart():
    assert fingerprint(1, 23) != fingerprint(12, 3)


# Sampling


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"n_atoms": 31}, "n_atoms = 31"),
        ({"n_atoms": 4}, "n_atoms = 4"),
        ({"n_atoms": 0}, "n_atoms = 0"),
        ({"n_replicas": 1}, "n_replicas = 1"),
        ({"n_gradient_replicas": 65}, "n_gradient_replicas = 65"),
        ({"window": (2.0, 1.0)}, "window"),
        ({"window": (0.0, 1.0)}, "window"),
        ({"gradient_window": (0.5, 0.5)}, "gradient_window"),
        ({"production_time": 4 * units.PS}, "production_time = 4"),
        ({"mass": -1.0}, "mass = -1"),
        ({"dt": 0.0}, "dt = 0"),
        ({"melt_time": np.nan}, "melt_time = nan"),
        ({"save_every": 0}, "save_every = 0"),
        ({"save_every": 300}, "save_every = 300"),
    ],
)
def test_sampling_refuses(change, culprit):
    with pytest.raises(InputError, match=culprit):
        Sampling(**{"atomic_number": 18, "mass": 39.948} | change)
