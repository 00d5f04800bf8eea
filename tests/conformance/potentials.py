"""Every potential that has to pass test_potentials.py, and the systems they are tested on."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from difmd.neighbors import neighbor_list
from difmd.potentials import (
    Potential,
    buckingham,
    coulomb_damped_shifted,
    lennard_jones,
    morse,
    shifted,
    switched,
    truncated,
)
from difmd.system import make_system

CUTOFF, ONSET = 6.0, 4.5
N_ATOMS, N_PADDING = 8, 2


@dataclasses.dataclass(frozen=True)
class Row:
    """A potential, and which rows of the table apply to it.

    Attributes:
        make: the potential.
        numbers: atomic numbers of the eight atoms.
        smooth: derivatives that are continuous at the cut-off: −1 none, 0 the energy, 1 the force too,
            2 up to the second.
        additive: whether far fragments add; a tail correction knows the mean density only.
        stress_is_derivative: whether the stress is the derivative of the energy returned; a tail with a
            plain truncation includes the impulse at the cut-off instead.
    """

    make: Callable[[], Potential]
    numbers: tuple[int, ...] = (18,) * N_ATOMS
    smooth: int = -1
    additive: bool = True
    stress_is_derivative: bool = True


ARGON = {"species": ["Ar"], "sigma": 3.4, "epsilon": 0.0104, "cutoff": CUTOFF}
MIXTURE = {"species": ["Ar", "Kr"], "sigma": [3.4, 3.65], "epsilon": [0.0104, 0.0141], "cutoff": CUTOFF}
MIXED = (18, 36, 18, 18, 36, 36, 18, 36)

ROWS = {
    "truncated": Row(lambda: lennard_jones(**ARGON, truncation=truncated())),
    "shifted": Row(lambda: lennard_jones(**ARGON, truncation=shifted()), smooth=0),
    "switched": Row(lambda: lennard_jones(**ARGON, truncation=switched(ONSET)), smooth=2),
    "mixture": Row(lambda: lennard_jones(**MIXTURE, truncation=switched(ONSET)), numbers=MIXED, smooth=2),
    "sum": Row(
        lambda: (
            lennard_jones(**MIXTURE, truncation=switched(ONSET))
            + lennard_jones(**{**MIXTURE, "sigma": 2.0, "cutoff": 5.0}, truncation=switched(3.5))
        ),
        numbers=MIXED,
        smooth=2,
    ),
    "morse": Row(
        lambda: morse(
            ["Ar", "Kr"],
            depth=[[0.01, 0.012], [0.012, 0.015]],
            width=1.6,
            distance=3.9,
            cutoff=CUTOFF,
            truncation=switched(ONSET),
        ),
        numbers=MIXED,
        smooth=2,
    ),
    "buckingham": Row(
        lambda: buckingham(
            ["Ar", "Kr"],
            repulsion=[[3000.0, 3500.0], [3500.0, 4000.0]],
            range=0.29,
            dispersion=60.0,
            cutoff=CUTOFF,
            truncation=switched(ONSET),
        ),
        numbers=MIXED,
        smooth=2,
    ),
    "coulomb": Row(
        lambda: coulomb_damped_shifted(["Ar", "Kr"], charges=[0.1, -0.12], damping=0.3, cutoff=CUTOFF),
        numbers=MIXED,
        smooth=1,
    ),
    "truncated with tail": Row(
        lambda: lennard_jones(**ARGON, tail_correction=True),
        additive=False,
        stress_is_derivative=False,
    ),
    "switched with tail": Row(
        lambda: lennard_jones(**MIXTURE, truncation=switched(ONSET), tail_correction=True),
        numbers=MIXED,
        smooth=2,
        additive=False,
    ),
}


def liquid(numbers, padded=True):
    """Eight atoms in a sheared cell smaller than the cut-off, and two padding atoms on top of them.

    No pair comes within 3e-3 Å of the cut-off, so that finite differences cross no jump.
    """
    rng = np.random.default_rng(11)
    cell = np.array([[7.2, 0.0, 0.0], [1.5, 6.9, 0.0], [-1.0, 0.8, 7.4]])
    corners = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = corners @ cell + rng.uniform(-0.25, 0.25, (N_ATOMS, 3))
    n_padding = N_PADDING if padded else 0
    return make_system(
        np.concatenate([positions, positions[:n_padding]]),
        [*numbers, *[0] * n_padding],
        masses=np.ones(N_ATOMS + n_padding),
        cell=cell,
    )


def roomy_list(system):
    """A list with a skin, so that it serves displaced atoms, and room for other arrangements."""
    neighbors = neighbor_list(system, cutoff=CUTOFF, skin=0.3, slack=1.6)
    real = np.asarray(system.atomic_numbers) > 0
    assert real.sum() == N_ATOMS
    return neighbors


def perturbed(params):
    """Params apart from their initial values, as after a fit."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    shaken = [
        x * (1 + 0.02 * jax.random.normal(k, jnp.shape(x), x.dtype))
        for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, shaken)
