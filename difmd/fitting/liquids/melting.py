"""Liquids of one species from a crystal: built, melted, and checked for crystallised replicas."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd.errors import DifmdError, check_positive
from difmd.fitting.liquids.dynamics import equilibrate
from difmd.fitting.liquids.replicas import Replicas, first_replica, liquid_neighbors
from difmd.fitting.liquids.sampling import Sampling
from difmd.observables import is_liquid
from difmd.potentials import Params, Potential, validate_inputs
from difmd.system import System, make_system


def box_length(density: float, sampling: Sampling) -> float:
    """Edge of the cubic box of a liquid of one species.

    Args:
        density: mass density [amu/Å³].
        sampling: number and mass of the atoms.

    Returns:
        The edge [Å].

    Raises:
        InputError: the sampling has no species.
    """
    return float((sampling.n_atoms * sampling.simple[1] / density) ** (1 / 3))


def crystal(density: float, sampling: Sampling, dtype: Any = None) -> System:
    """An fcc crystal of a mass density [amu/Å³], the configuration that is melted.

    Where n_atoms is not 4 n³, some sites, evenly spaced in the list of sites, remain empty.
    """
    number, mass = sampling.simple
    cells = _cells(sampling)
    length = box_length(density, sampling)
    corners = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    sites = (corners + basis).reshape(-1, 3) * length / cells
    n = sampling.n_atoms
    positions = sites[np.arange(n) * len(sites) // n]
    return make_system(positions, np.full(n, number), masses=np.full(n, mass), cell=[length] * 3, dtype=dtype)


def _cells(sampling: Sampling) -> int:
    """Cubic fcc cells along an edge that hold all atoms."""
    return next(cells for cells in itertools.count(1) if 4 * cells**3 >= sampling.n_atoms)


def crystals(density: float, sampling: Sampling) -> System:
    """The same crystal for every replica; [replicas, ...]."""
    n = sampling.n_replicas
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), crystal(density, sampling))


def neighbor_distance(density: float, sampling: Sampling) -> float:
    """Distance of nearest neighbours in an fcc crystal of this density [Å]."""
    return float((np.sqrt(2) * sampling.simple[1] / density) ** (1 / 3))


def melt(
    potential: Potential,
    params: Params,
    *,
    temperature: float,
    density: float,
    sampling: Sampling,
    key: Key[Array, ""],
    like: Replicas | None = None,
) -> Replicas:
    """Melt a crystal at high temperature, cool it to the state point, and check that it is liquid.

    Args:
        potential: the energy model.
        params: its parameters.
        temperature: of the state point [K].
        density: mass density [amu/Å³].
        sampling: sizes, times and time step.
        key: seed.
        like: replicas of another state point, whose compiled functions are reused.

    Returns:
        Equilibrated replicas.

    Raises:
        InputError: a temperature or density that is not positive, no species in the sampling, or one that
            the potential has no parameters for.
        DifmdError: more than half of the replicas crystallised.
        SimulationError: a run failed.
    """
    check_positive("temperature", temperature, "K")
    check_positive("density", density, "amu/Å³")
    systems = crystals(density, sampling)
    validate_inputs(potential, params, first_replica(systems))
    # Thermal displacements, so that the measured capacity is that of a liquid and not of a perfect crystal.
    # With empty sites the lattice is denser, and displacements must not let atoms overlap.
    filled = sampling.n_atoms / (4 * _cells(sampling) ** 3)
    spacing = filled ** (4 / 3) * neighbor_distance(density, sampling)
    keys = jax.random.split(key, 4)
    noise = 0.15 * spacing * jax.random.normal(keys[3], systems.positions.shape)
    shaken = systems.replace(positions=systems.positions + noise.astype(systems.positions.dtype))
    neighbors = liquid_neighbors(potential, shaken, sampling, None if like is None else like.neighbors)
    replicas = Replicas(systems, neighbors)
    for kelvin, time, stage_key in (
        (sampling.melt_factor * temperature, sampling.melt_time, keys[0]),
        (temperature, sampling.equilibration_time, keys[1]),
    ):
        replicas = equilibrate(
            potential, params, replicas, temperature=kelvin, time=time, sampling=sampling, key=stage_key
        )
    return keep_liquid(replicas, density=density, sampling=sampling, key=keys[2])


def keep_liquid(replicas: Replicas, *, density: float, sampling: Sampling, key: Key[Array, ""]) -> Replicas:
    """Replace crystallised replicas by copies of liquid ones.

    Near and below the melting point a small box may crystallise; its diffusivity is then that of a solid.

    Args:
        replicas: of one state point.
        density: mass density [amu/Å³], from which the wave vectors of the Bragg peaks follow.
        sampling: mass of an atom.
        key: seed of the choice of copies.

    Returns:
        The replicas; `n_refrozen` counts those that were replaced.

    Raises:
        DifmdError: more than half of them crystallised: the model is solid at this state point.
        InputError: the sampling has no species.
    """
    liquid = is_liquid(replicas.systems, spacing=neighbor_distance(density, sampling))
    n_solid = int(np.sum(~liquid))
    if n_solid == 0:
        return replicas
    if n_solid > len(liquid) // 2:
        raise DifmdError(
            f"{n_solid} of {len(liquid)} replicas crystallised at density "
            f"{density / units.KG_PER_M3:.4g} kg/m³: the model is solid there; raise the temperature, "
            "lower ε or σ, or shorten the run"
        )
    sources = jax.random.choice(key, np.flatnonzero(liquid), (n_solid,))
    index = jnp.arange(len(liquid)).at[np.flatnonzero(~liquid)].set(sources)
    systems = jax.tree.map(lambda x: x[index], replicas.systems)
    return replicas._replace(systems=systems, n_refrozen=replicas.n_refrozen + n_solid)
