"""Energy, forces and stress of ASE's own Lennard-Jones calculator."""

import jax
import numpy as np
from ase.calculators.lj import LennardJones

from difmd.forces import evaluate
from difmd.neighbors import neighbor_list
from difmd.potentials import lennard_jones, shifted
from difmd.system import to_ase


def test_lennard_jones(argon):
    model = {"sigma": 3.4, "epsilon": 0.0104}
    # ASE shifts the energy to zero at the cut-off. The cut-off exceeds half the cell.
    potential = lennard_jones(["Ar"], **model, cutoff=8.0, truncation=shifted())
    neighbors = neighbor_list(argon, cutoff=8.0)
    params = potential.init(jax.random.key(0))
    found = jax.jit(evaluate, static_argnums=0)(potential, params, argon, neighbors)
    atoms = to_ase(argon)
    atoms.calc = LennardJones(**model, rc=8.0, smooth=False)
    np.testing.assert_allclose(found.energy, atoms.get_potential_energy(), rtol=1e-12)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-13)
    np.testing.assert_allclose(found.stress, atoms.get_stress(voigt=False), atol=1e-15)
