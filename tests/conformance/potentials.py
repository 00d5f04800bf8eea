"""Every potential that has to pass test_potentials.py, and the systems they are tested on."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from difmd.neighbors import neighbor_list, rebuild
from difmd.potentials import (
    Potential,
    TersoffElement,
    buckingham,
    coulomb_damped_shifted,
    embedded_atom,
    ewald,
    invariant,
    lennard_jones,
    mace,
    morse,
    nequip,
    pair_prior,
    shifted,
    stillinger_weber,
    switched,
    tabulated,
    tersoff,
    truncated,
    zbl,
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
        additive: whether far fragments add; a tail correction depends on the mean density only.
        third: whether third derivatives are continuous, on which the error of differences depends.
        any_cell: whether the cell may be far from that of `liquid`.
        stress_is_derivative: whether the stress is the derivative of the energy returned; a tail with a
            plain truncation includes the impulse at the cut-off instead.
        forceless: params that forces do not depend on.
        fixed: whether it has no params.
    """

    make: Callable[[], Potential]
    numbers: tuple[int, ...] = (18,) * N_ATOMS
    smooth: int = -1
    additive: bool = True
    third: bool = True
    any_cell: bool = True
    stress_is_derivative: bool = True
    forceless: tuple[str, ...] = ()
    fixed: bool = False


ARGON = {"species": ["Ar"], "sigma": 3.4, "epsilon": 0.0104, "cutoff": CUTOFF}
MIXTURE = {"species": ["Ar", "Kr"], "sigma": [3.4, 3.65], "epsilon": [0.0104, 0.0141], "cutoff": CUTOFF}
MACE = {
    "species": ["Ar", "Kr"], "cutoff": CUTOFF, "n_features": 2, "l_max_features": 1, "l_max": 1,
    "radial_hidden": (4,), "readout_hidden": 3, "avg_num_neighbors": 30.0, "scale": [0.5, 0.7],
    "shift": [-1.0, 0.3], "correlation": 2, "n_radial": 3,
}  # fmt: skip
MIXED = (18, 36, 18, 18, 36, 36, 18, 36)

CELL = np.array([[7.2, 0.0, 0.0], [1.5, 6.9, 0.0], [-1.0, 0.8, 7.4]])


def table():
    """Morse-like energies of three pairs on a grid."""
    r = np.linspace(2.0, CUTOFF, 41)
    one = np.exp(-1.2 * (r - 3.8)) - 2 * np.exp(-0.6 * (r - 3.8))
    depth = np.array([[0.01, 0.013], [0.013, 0.012]])
    return {"distances": r, "energies": depth[:, :, None] * one}


def metals():
    """Functions of the embedded-atom method, with densities that depend on both atoms."""
    r = np.linspace(0, CUTOFF, 321)
    end = (1 - r / CUTOFF) ** 6
    depth = np.array([[0.6, 0.5], [0.5, 0.45]])[:, :, None]
    rho = np.linspace(0, 1.5, 50)
    embedding = np.array([[-0.9], [-0.7]]) * (np.sqrt(rho + 0.05) - np.sqrt(0.05))
    return {
        "dr": r[1], "pair": depth * 60 * r * np.exp(-0.9 * r) * end, "cutoff": CUTOFF,
        "density": np.array([[5.0, 6.0], [5.5, 4.5]])[:, :, None] * 3 * np.exp(-0.3 * r) * end,
        "drho": rho[1], "embedding": embedding,
    }  # fmt: skip


def prior():
    """Coefficients of four functions for three pairs."""
    pairs = np.array([[0.02, 0.03], [0.03, 0.025]])
    return pairs[:, :, None] * np.array([-1.0, 0.5, 0.7, -0.2])


ELEMENTS = {
    "Ar": TersoffElement(200.0, 30.0, 1.5, 0.8, 1e-3, 0.8, 30.0, 4.0, -0.4, 4.0, CUTOFF),
    "Kr": TersoffElement(240.0, 32.0, 1.6, 0.9, 2e-3, 0.9, 40.0, 5.0, -0.3, 4.0, CUTOFF),
}

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
    "ewald": Row(
        lambda: ewald(["Ar", "Kr"], charges=[0.1, -0.12], cell=CELL, cutoff=CUTOFF, accuracy=1e-8),
        numbers=MIXED,
        any_cell=False,
    ),
    "tabulated": Row(
        lambda: tabulated(["Ar", "Kr"], **table(), truncation=switched(ONSET)),
        numbers=MIXED,
        smooth=2,
        third=False,
    ),
    "stillinger_weber": Row(
        lambda: stillinger_weber(
            ["Ar", "Kr"],
            epsilon=[[0.9, 1.1], [1.1, 1.2]],
            sigma=[[3.0, 2.9], [2.9, 2.8]],
            a=[[2.0, CUTOFF / 2.9], [CUTOFF / 2.9, CUTOFF / 2.8]],
            lambda_=[[[3.0, 4.0], [4.0, 5.0]], [[6.0, 5.0], [5.0, 4.0]]],
        ),
        numbers=MIXED,
        smooth=2,
    ),
    "embedded_atom": Row(
        lambda: embedded_atom(["Ar", "Kr"], **metals()), numbers=MIXED, smooth=2, third=False
    ),
    "tersoff": Row(
        lambda: tersoff(["Ar", "Kr"], elements=ELEMENTS, chi=[[1.0, 0.9], [0.9, 1.0]]),
        numbers=MIXED,
        smooth=1,
    ),
    "mace": Row(lambda: mace(**MACE), numbers=MIXED, smooth=2, forceless=("shift",)),
    "mace, three factors": Row(
        lambda: mace(**{**MACE, "correlation": 3, "n_radial": 8}),
        numbers=MIXED,
        smooth=2,
        forceless=("shift",),
    ),
    # Of the sixteen entries that are held none is so near the end that differences cross it.
    "mace, distances held": Row(
        lambda: mace(**MACE, nearest=[[3.5, 3.6], [3.6, 3.4]]),
        numbers=MIXED,
        smooth=2,
        forceless=("shift",),
    ),
    "nequip": Row(
        lambda: nequip(
            ["Ar", "Kr"],
            cutoff=CUTOFF,
            n_features=2,
            l_max=1,
            n_layers=2,
            radial_hidden=(4,),
            avg_num_neighbors=30.0,
            scale=0.5,
            shift=[-1.0, 0.3],
        ),
        numbers=MIXED,
        smooth=2,
        forceless=("shift",),
    ),
    "invariant": Row(
        lambda: invariant(
            ["Ar", "Kr"],
            cutoff=CUTOFF,
            n_features=3,
            l_max=2,
            avg_num_neighbors=30.0,
            n_radial=4,
            scale=[0.5, 0.7],
            shift=[-1.0, 0.3],
        ),
        numbers=MIXED,
        smooth=2,
        forceless=("shift",),
    ),
    "zbl": Row(lambda: zbl(["Ar", "Kr"], cutoff=CUTOFF), numbers=MIXED, smooth=2, fixed=True),
    "zbl, unequal cut-offs": Row(
        lambda: zbl(["Ar", "Kr"], cutoff=[[5.0, CUTOFF], [CUTOFF, 4.5]], exponent=0.1),
        numbers=MIXED,
        smooth=2,
        third=False,
        fixed=True,
    ),
    "pair_prior": Row(
        lambda: pair_prior(["Ar", "Kr"], cutoff=CUTOFF, n_radial=4, coefficients=prior()),
        numbers=MIXED,
        smooth=2,
    ),
    "prior and network": Row(
        lambda: (
            zbl(["Kr", "Ar"], cutoff=CUTOFF)
            + invariant(["Ar", "Kr"], cutoff=CUTOFF, n_features=2, l_max=0, n_radial=3)
        ),
        numbers=MIXED,
        smooth=2,
        forceless=("shift",),
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
    corners = np.stack(np.meshgrid(*[[0.0, 0.5]] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = corners @ CELL + rng.uniform(-0.25, 0.25, (N_ATOMS, 3))
    n_padding = N_PADDING if padded else 0
    return make_system(
        np.concatenate([positions, positions[:n_padding]]),
        [*numbers, *[0] * n_padding],
        masses=np.ones(N_ATOMS + n_padding),
        cell=CELL,
    )


def roomy_list(system):
    """A list with a skin, so that it serves displaced atoms, and room for other arrangements.

    It has more columns than atoms, as those of some large systems.
    """
    neighbors = neighbor_list(system, cutoff=CUTOFF, skin=0.3, slack=1.6)
    behind = jnp.zeros(3, jnp.int32)
    neighbors = rebuild(
        system,
        neighbors.replace(
            centers=jnp.concatenate([neighbors.centers, behind]),
            order=jnp.concatenate([neighbors.order, behind]),
        ),
    )
    assert neighbors.indices.shape[-1] == system.n_atoms + 3
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
