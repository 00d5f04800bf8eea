"""`evaluate` without a list, with ASE's atoms, and what it refuses."""

import ase.build
import jax
import numpy as np
import pytest

import difmd
from difmd.errors import InputError
from difmd.forces import evaluate, forces, forces_and_virial

ATOMS = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
SYSTEM = difmd.from_ase(ATOMS)
POTENTIAL = difmd.lennard_jones(["Ar"], epsilon=0.0104, sigma=3.4, cutoff=6.0)
PARAMS = POTENTIAL.init(jax.random.key(0))
LIST = difmd.neighbor_list(SYSTEM, cutoff=POTENTIAL.cutoff)


def test_the_list_is_built_where_none_is_given():
    expected = evaluate(POTENTIAL, PARAMS, SYSTEM, LIST)
    for structure in (SYSTEM, ATOMS):
        found = evaluate(POTENTIAL, PARAMS, structure)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    slope = jax.grad(lambda params: evaluate(POTENTIAL, params, SYSTEM).energy)(PARAMS)
    listed = jax.grad(lambda params: evaluate(POTENTIAL, params, SYSTEM, LIST).energy)(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, slope, listed)
    # A system that a compiled function closes over is concrete.
    energy = jax.jit(lambda params: evaluate(POTENTIAL, params, SYSTEM).energy)(PARAMS)
    np.testing.assert_allclose(energy, expected.energy, rtol=1e-14)


def test_a_list_cannot_be_built_under_jit():
    with pytest.raises(InputError, match="neighbour list is needed under jit, grad or vmap: build one"):
        jax.jit(lambda system: evaluate(POTENTIAL, PARAMS, system).energy)(SYSTEM)
    with pytest.raises(InputError, match="neighbor_list cannot run under jit"):
        jax.jit(lambda system: difmd.neighbor_list(system, cutoff=4.0).indices)(SYSTEM)


@pytest.mark.parametrize("function", [evaluate, forces, forces_and_virial])
def test_inputs_that_do_not_belong_together_are_refused(function):
    neon = SYSTEM.replace(atomic_numbers=np.full(4, 10))
    open_system = SYSTEM.replace(pbc=np.array([True, True, False]))
    other = difmd.neighbor_list(difmd.from_ase(ATOMS * (2, 1, 1)), cutoff=6.0)
    for arguments, message in (
        ((POTENTIAL, PARAMS, neon, LIST), "no parameters for Ne"),
        ((POTENTIAL, {"epsilon": PARAMS}, SYSTEM, LIST), "not those of this potential"),
        ((POTENTIAL, PARAMS, SYSTEM, other), "the neighbour list is for 8 atoms, but the system has 4"),
        ((POTENTIAL, PARAMS, open_system, LIST), "the neighbour list is for pbc = "),
        ((POTENTIAL, PARAMS, SYSTEM.replace(cell=1.1 * SYSTEM.cell), LIST), "is stale"),
        ((POTENTIAL, PARAMS, SYSTEM, difmd.neighbor_list(ATOMS, cutoff=5.0)), "reaches 5.0 Å"),
    ):
        with pytest.raises(InputError, match=message):
            function(*arguments)


def test_species_are_validated_without_a_list_too():
    with pytest.raises(InputError, match="no parameters for Cu"):
        evaluate(POTENTIAL, PARAMS, ase.build.bulk("Cu"))
    with pytest.raises(InputError, match="replicas"):
        evaluate(POTENTIAL, PARAMS, jax.tree.map(lambda x: np.stack([x, x]), SYSTEM))


def test_an_evaluation_prints_shapes():
    text = repr(evaluate(POTENTIAL, PARAMS, SYSTEM, LIST))
    assert "forces=float64[4, 3]" in text and len(text.splitlines()) <= 6
