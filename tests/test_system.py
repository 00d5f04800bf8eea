"""`System`: conversion from and to ASE, validation, and its summary."""

import ase
import ase.build
import ase.constraints
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from difmd.errors import InputError
from difmd.system import atomic_number, from_ase, host_system, make_system, to_ase, validate_system

PAIR = [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]]
BOX = [5.0, 6.0, 7.0]


@pytest.mark.parametrize(
    "atoms",
    [
        ase.build.molecule("CH3CH2OH"),
        ase.build.bulk("NaCl", "rocksalt", a=5.64),
        ase.build.fcc111("Cu", (2, 2, 3), vacuum=5.0),
        ase.Atoms("CO", PAIR, cell=[[4, 0, 0], [2, 5, 0], [1, -1, 6]], pbc=[True, False, True]),
        ase.Atoms("Ar", [[40.0, -30.0, 2.0]], cell=BOX, pbc=True, masses=[36.0]),
    ],
    ids=["molecule", "crystal", "slab", "mixed", "unwrapped"],
)
def test_round_trip_with_ase(atoms):
    back = to_ase(from_ase(atoms))
    np.testing.assert_array_equal(back.positions, atoms.positions)
    np.testing.assert_array_equal(back.numbers, atoms.numbers)
    np.testing.assert_array_equal(back.get_masses(), atoms.get_masses())
    np.testing.assert_array_equal(back.pbc, atoms.pbc)
    np.testing.assert_array_equal(back.cell[:], atoms.cell[:])


def test_padding_is_omitted_in_ase_and_may_coincide():
    system = make_system([*PAIR, PAIR[0], PAIR[0]], [6, 8, 0, 0])
    assert system.n_atoms == 4
    assert to_ase(system).get_chemical_formula() == "CO"
    np.testing.assert_array_equal(to_ase(system).positions, PAIR)


def test_default_masses_cell_and_dtype():
    system = make_system(PAIR, [6, 8], cell=BOX)
    np.testing.assert_allclose(system.masses, [12.011, 15.999], rtol=1e-12)
    np.testing.assert_array_equal(system.cell, np.diag(BOX))
    assert system.pbc.all() and system.positions.dtype == jnp.float64
    assert system.volume == pytest.approx(5 * 6 * 7)
    assert not make_system(PAIR, [6, 8]).pbc.any()
    low = make_system(PAIR, [6, 8], cell=BOX, dtype=jnp.float32)
    assert {low.positions.dtype, low.masses.dtype, low.cell.dtype} == {jnp.dtype("float32")}


def test_a_dtype_that_is_not_enabled_warns():
    with jax.enable_x64(False), pytest.warns(UserWarning, match="float64"):
        make_system(PAIR, [6, 8], dtype=jnp.float64)


def test_left_handed_cell_is_accepted():
    cell = np.diag(BOX)[[1, 0, 2]]
    system = make_system(PAIR, [6, 8], cell=cell)
    np.testing.assert_array_equal(system.cell, cell)
    assert system.volume == pytest.approx(5 * 6 * 7)


def test_singular_rows_are_ignored_where_not_periodic():
    system = make_system(PAIR, [6, 8], cell=[[4.0, 0, 0], [8.0, 0, 0], [0, 0, 0]], pbc=[1 > 0, 0 > 1, 0 > 1])
    assert list(np.asarray(system.pbc)) == [True, False, False]


ACROSS = {"cell": [[5, 0, 0], [2, 5, 0], [0, 0, 5]]}
REFUSED = {
    "nan position": (([[0, 0, 0], [0, np.nan, 1]], [6, 8]), {}, r"positions\[1, 1\] = nan"),
    "infinite position": (([[0, 0, np.inf], [0, 0, 1]], [6, 8]), {}, r"positions\[0, 2\] = inf"),
    "text": (([["a", "b", "c"]], [6]), {}, "positions is not an array of numbers"),
    "ragged": (([[0, 0, 0], [1, 1]], [6, 8]), {}, "positions is not an array of numbers"),
    "planar": (([[0, 0], [1, 1]], [6, 8]), {}, r"positions must have shape .* got \[2, 2\]"),
    "flat": (([0, 0, 0], [6]), {}, r"positions must have shape .* got \[3\]"),
    "empty": ((np.zeros((0, 3)), []), {}, r"positions must have shape .* got \[0, 3\]"),
    "too few numbers": ((PAIR, [6]), {}, r"atomic_numbers has shape \[1\] but .* 2 atoms"),
    "fractional numbers": ((PAIR, [6.0, 8.0]), {}, "atomic_numbers must be integers.*float64"),
    "unknown number": ((PAIR, [6, 130]), {}, r"atomic_numbers\[1\] = 130"),
    "negative number": ((PAIR, [-1, 6]), {}, r"atomic_numbers\[0\] = -1"),
    "negative mass": ((PAIR, [6, 8]), {"masses": [12, -16]}, r"masses\[1\] = -16.0 amu"),
    "zero mass": ((PAIR, [6, 8]), {"masses": [0, 16]}, r"masses\[0\] = 0.0 amu"),
    "nan mass": ((PAIR, [6, 8]), {"masses": [12, np.nan]}, r"masses\[1\] = nan"),
    "too many masses": ((PAIR, [6, 8]), {"masses": [1, 2, 3]}, r"masses has shape \[3\]"),
    "cell shape": ((PAIR, [6, 8]), {"cell": [[5, 5, 5]]}, r"cell must have shape .* got \[1, 3\]"),
    "infinite cell": ((PAIR, [6, 8]), {"cell": [5, np.inf, 5]}, r"cell\[1\] = inf"),
    "flat cell": (
        (PAIR, [6, 8]),
        {"cell": [[5, 0, 0], [0, 5, 0], [5, 5, 0]]},
        r"cell is singular: .*\[5.0, 5.0, 0.0\]",
    ),
    "zero vector": ((PAIR, [6, 8]), {"cell": [5, 5, 0]}, "cell is singular"),
    "periodic without a cell": ((PAIR, [6, 8]), {"pbc": True}, "cell is singular"),
    "pbc of two": ((PAIR, [6, 8]), {"cell": BOX, "pbc": [True, False]}, "pbc must be a bool"),
    "pbc of integers": ((PAIR, [6, 8]), {"cell": BOX, "pbc": [1, 1, 0]}, r"pbc .* \[1, 1, 0\]"),
    "coinciding": (([*PAIR, PAIR[1]], [6, 8, 8]), {}, "atoms 1 and 2 coincide"),
    "coinciding behind padding": (
        ([PAIR[0], PAIR[1], PAIR[1]], [0, 8, 8]),
        {},
        "atoms 1 and 2 coincide",
    ),
    "coinciding across the cell": (
        ([[0, 0, 0], [1, 1, 1], [-7 + 1e-6, -5, 0]], [6, 6, 8]),
        ACROSS,
        "atoms 0 and 2 coincide",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_name_the_argument(case):
    arguments, options, message = REFUSED[case]
    for make in (make_system, host_system):
        with pytest.raises(InputError, match=message):
            make(*arguments, **options)


@pytest.mark.parametrize("n_atoms", [2, 64, 65, 300])
@pytest.mark.parametrize("periodic", [False, True])
def test_coinciding_atoms_are_detected_among_few_and_many(n_atoms, periodic):
    """All distances of few atoms, a search among many; in a skewed cell and far outside of it."""
    rng = np.random.default_rng(n_atoms)
    cell = np.array([[9.0, 0, 0], [7.0, 9.0, 0], [-8.0, 5.0, 9.0]])
    sites = np.stack(np.meshgrid(*[np.arange(7)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n_atoms]
    positions = (sites + rng.uniform(0, 0.5, (n_atoms, 3))) / 7 @ cell
    options = {"cell": cell, "pbc": periodic}
    numbers = np.full(n_atoms, 18)
    assert host_system(positions, numbers, **options).n_atoms == n_atoms
    shift = np.array([2, -1, 3]) @ cell if periodic else 0.0
    positions[-1] = positions[0] + shift + 3e-5
    with pytest.raises(InputError, match=f"atoms 0 and {n_atoms - 1} coincide .distance 5.2e-05"):
        host_system(positions, numbers, **options)
    positions[-1] += 1e-3
    assert host_system(positions, numbers, **options).n_atoms == n_atoms


def test_an_atom_on_its_image_is_detected():
    with pytest.raises(InputError, match="atoms 0 and 0 coincide"):
        host_system(np.zeros((2, 3)) + [[0, 0, 0], [0, 0, 0.5]], [6, 6], cell=[5e-5, 1.0, 1.0])


def test_host_system_is_numpy_and_independent_of_its_arguments():
    positions = np.array(PAIR)
    system = host_system(positions, [6, 8], cell=BOX)
    positions[0] = 7.0
    fields = [system.positions, system.atomic_numbers, system.masses, system.cell, system.pbc]
    assert all(type(field) is np.ndarray for field in fields)
    assert [field.dtype.name for field in fields] == ["float64", "int32", "float64", "float64", "bool"]
    np.testing.assert_array_equal(system.positions, PAIR)
    jax_system = make_system(PAIR, [6, 8], cell=BOX)
    for field, other in zip(fields, jax.tree.leaves(jax_system), strict=True):
        np.testing.assert_array_equal(field, other)


def test_atoms_apart_across_the_cell_are_accepted():
    assert make_system([[0, 0, 0], [-7 + 1e-3, -5, 0]], [6, 8], **ACROSS).n_atoms == 2


def test_validate_system_detects_later_changes():
    system = make_system(PAIR, [6, 8], cell=BOX)
    validate_system(system)
    with pytest.raises(InputError, match=r"positions\[0, 1\] = nan"):
        validate_system(system.replace(positions=system.positions.at[0, 1].set(jnp.nan)))
    with pytest.raises(InputError, match="atoms 0 and 1 coincide"):
        validate_system(system.replace(positions=jnp.zeros((2, 3))))


def test_summary_of_systems_replicas_and_traced_arrays():
    atoms = ase.Atoms("CO2", [*PAIR, [0, 0, 2.2]], cell=[[4, 0, 0], [2, 5, 0], [0, 0, 6]], pbc=[1, 1, 0])
    atoms.set_constraint(ase.constraints.FixAtoms([0]))
    system = from_ase(atoms)
    assert repr(system).splitlines() == [
        "System: 3 atoms, CO2",
        "  cell: 4 × 5.385 × 6 Å, angles 90° 90° 68.2°, periodic along a b",
        "  fixed: 1 atoms",
        "  positions: float64[3, 3]",
    ]
    assert "<td" in system._repr_html_() and "CO2" in system._repr_html_()
    assert repr(jax.tree.map(lambda x: jnp.stack([x, x]), system)).startswith("System: 2 replicas of 3 atoms")
    padded = make_system([*PAIR, PAIR[0]], [6, 8, 0])
    assert repr(padded).startswith("System: 3 atoms, CO and 1 of padding\n  cell: none")
    seen = []
    jax.jit(lambda system: seen.append(repr(system)))(system)
    jax.tree.map(lambda _: None, system).__repr__()
    assert seen == ["System: 3 atoms\n  positions: float64[3, 3]"]


def test_atomic_numbers_of_symbols_and_numbers():
    assert [atomic_number(x) for x in ("Ar", 18, np.int64(18))] == [18] * 3
    for wrong in ("Xx", 0, 119, True, 1.0, None):
        with pytest.raises(InputError, match="neither a chemical symbol nor a number from 1 to 118"):
            atomic_number(wrong)
