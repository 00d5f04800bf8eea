"""Replicas of a liquid at a state point: melted, equilibrated, checked, and sampled."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from difmd import units
from difmd._internal.replicas import map_replicas, run_replicas
from difmd.errors import DifmdError, InputError, Status, check_positive
from difmd.integrators import Integrator, MDState, draw_momenta, langevin, velocity_verlet
from difmd.neighbors import Neighbors, neighbor_list, rebuild
from difmd.observables import is_liquid
from difmd.potentials import Params, Potential
from difmd.simulation.replay import replay_on_overflow
from difmd.simulation.rollouts import initialize, rollout
from difmd.system import System, make_system

# Skin over cut-off. Many replicas share a rebuild, and long steps of a cold liquid are usual here.
_SKIN = 0.15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a liquid is simulated for a diffusivity; the defaults suit simple liquids near 100 K.

    Times of melting, equilibration and relaxation are rounded up to whole chunks of 252 steps.

    Attributes:
        atomic_number: of the one species of a liquid that `melt` makes; None for liquids whose boxes are
            given (`given_replicas`), molecules and mixtures among them. Only the former are checked for
            having frozen.
        mass: of an atom of that species [amu].
        n_atoms: of a box; with fewer than about 100 the check for boxes that froze sees crystals where there
            are none.
        n_replicas: independent boxes.
        n_gradient_replicas: of these, how many are differentiated.
        dt: time step [Å√(amu/eV)].
        friction: of the thermostat that melts and equilibrates [1/time].
        melt_factor: melt at so many times the temperature.
        melt_time: [time].
        equilibration_time: after melting [time].
        relaxation_time: after a change of parameters [time].
        production_time: Newtonian trajectory of a replica [time].
        window: lags over which D(t) has its plateau [time].
        gradient_window: lags of the differentiated sample [time]. The noise of a derivative through the
            trajectory grows exponentially with the lag; so ∂lnD/∂θ is taken before the plateau, where
            the logarithmic slopes of D(t) are still a little too small.
        origin_time: time origins each way of a differentiated sample [time].
        save_every: steps between frames.
        skin: of the neighbour list [Å]; default: 0.15 × the cut-off.
    """

    atomic_number: int | None = None
    mass: float | None = None
    n_atoms: int = 256
    n_replicas: int = 32
    n_gradient_replicas: int = 12
    dt: float = 8 * units.FS
    friction: float = 1 / units.PS
    melt_factor: float = 4.0
    melt_time: float = 4 * units.PS
    equilibration_time: float = 10 * units.PS
    relaxation_time: float = 2 * units.PS
    production_time: float = 10 * units.PS
    window: tuple[float, float] = (2.0 * units.PS, 3.0 * units.PS)
    gradient_window: tuple[float, float] = (0.8 * units.PS, 1.2 * units.PS)
    origin_time: float = 0.25 * units.PS
    save_every: int = 6
    skin: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.n_atoms < 32:
            raise InputError(f"n_atoms = {self.n_atoms} must be at least 32")
        if self.n_replicas < 2 or not 2 <= self.n_gradient_replicas <= self.n_replicas:
            raise InputError(
                f"n_replicas = {self.n_replicas} must be at least 2 and n_gradient_replicas = "
                f"{self.n_gradient_replicas} between 2 and n_replicas"
            )
        if not 1 <= self.save_every <= _CHUNK:
            raise InputError(f"save_every = {self.save_every} must be between 1 and {_CHUNK}")
        if (self.atomic_number is None) != (self.mass is None):
            raise InputError("give atomic_number and mass of a liquid of one species, or neither of them")
        if self.mass is not None:
            check_positive("mass", self.mass, "amu")
        for name in (
            *("dt", "melt_factor", "melt_time", "equilibration_time", "relaxation_time"),
            *("production_time", "origin_time"),
        ):
            value = getattr(self, name)
            if not (value > 0 and np.isfinite(value)):
                raise InputError(f"{name} = {value} must be positive and finite")
        interval = self.dt * self.save_every
        for name in ("window", "gradient_window"):
            start, end = getattr(self, name)
            if not 0 < round(start / interval) < round(end / interval):
                raise InputError(
                    f"{name} = {(start, end)} must be 0 < start < end, at least one frame apart "
                    f"({interval:.3g})"
                )
            needed = max(2.5 * end, 2.2 * (end + self.origin_time))
            if self.production_time < needed:
                raise InputError(
                    f"production_time = {self.production_time / units.PS:.3g} ps is too short for {name}, "
                    f"which ends at {end / units.PS:.3g} ps: make it at least {needed / units.PS:.3g} ps"
                )

    @property
    def is_simple(self) -> bool:
        """Whether the liquid is of one species, made by melting."""
        return self.atomic_number is not None

    @property
    def simple(self) -> tuple[int, float]:
        """Atomic number and mass of the one species.

        Raises:
            InputError: there are none.
        """
        if self.atomic_number is None or self.mass is None:
            raise InputError(
                "the sampling has no atomic_number and mass, which melting, structures and box_length need: "
                "give them, or boxes (given_replicas)"
            )
        return self.atomic_number, self.mass

    def steps(self, time: float) -> int:
        """Number of steps in a time, rounded up."""
        return max(1, int(np.ceil(time / self.dt - 1e-9)))


class Replicas(NamedTuple):
    """Equilibrated boxes of one state point.

    Attributes:
        systems: [replicas, ...].
        neighbors: lists with the capacity they need.
        n_refrozen: replicas replaced so far because they had crystallised.
    """

    systems: System
    neighbors: Neighbors
    n_refrozen: int = 0


def box_length(density: float, sampling: Sampling) -> float:
    """Edge of the cubic box [Å] for a mass density [amu/Å³]."""
    return float((sampling.n_atoms * sampling.simple[1] / density) ** (1 / 3))


def crystal(density: float, sampling: Sampling, dtype: Any = None) -> System:
    """An fcc crystal of a mass density [amu/Å³], the configuration that is melted.

    Where n_atoms is not 4 n³, sites that are evenly spread over the list of them are left empty.
    """
    number, mass = sampling.simple
    cells = _cells(sampling)
    length = box_length(density, sampling)
    corners = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    sites = (corners + basis).reshape(-1, 3) * length / cells
    n = sampling.n_atoms
    positions = sites[np.arange(n) * len(sites) // n]
    return make_system(
        positions,
        np.full(n, number),
        masses=np.full(n, mass),
        cell=[length] * 3,
        dtype=dtype,
    )


def _cells(sampling: Sampling) -> int:
    """Cubic cells of fcc along an edge that have sites enough."""
    cells = 1
    while 4 * cells**3 < sampling.n_atoms:
        cells += 1
    return cells


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
    """Melt a crystal at high temperature, cool it to the state point, and see that it is liquid.

    Args:
        potential: the energy model.
        params: its parameters.
        temperature: [K].
        density: mass density [amu/Å³].
        sampling: how.
        key: seed.
        like: replicas of another state point, whose compiled functions are then used again.

    Returns:
        Equilibrated replicas.

    Raises:
        DifmdError: more than half of the replicas crystallised.
    """
    one = crystal(density, sampling)
    systems = jax.tree.map(lambda x: jnp.broadcast_to(x, (sampling.n_replicas, *x.shape)), one)
    # The perfect crystal is unlike any state that follows; thermal displacements make the measured
    # capacity that of a liquid.
    # With empty sites the others are closer, and atoms must not be put on top of each other.
    filled = sampling.n_atoms / (4 * _cells(sampling) ** 3)
    spacing = filled ** (4 / 3) * neighbor_distance(density, sampling)
    keys = jax.random.split(key, 4)
    noise = 0.15 * spacing * jax.random.normal(keys[3], systems.positions.shape)
    shaken = systems.replace(positions=systems.positions + noise.astype(systems.positions.dtype))
    neighbors = list_of(potential, shaken, sampling, None if like is None else like.neighbors)
    replicas = Replicas(systems, neighbors)
    hot = sampling.melt_factor * temperature
    replicas = equilibrate(
        potential,
        params,
        replicas,
        temperature=hot,
        time=sampling.melt_time,
        sampling=sampling,
        key=keys[0],
    )
    replicas = equilibrate(
        potential,
        params,
        replicas,
        temperature=temperature,
        time=sampling.equilibration_time,
        sampling=sampling,
        key=keys[1],
    )
    return keep_liquid(replicas, density=density, sampling=sampling, key=keys[2])


def given_replicas(potential: Potential, systems: Sequence[System], *, sampling: Sampling) -> Replicas:
    """Replicas of a liquid of any composition from boxes that are there, such as frames of a simulation.

    Args:
        potential: the energy model.
        systems: one a replica, of one composition and size; `equilibrate` them before they are measured.
        sampling: how they will be simulated.

    Raises:
        InputError: another number of boxes or atoms than the sampling has, or boxes that differ.
    """
    if len(systems) != sampling.n_replicas:
        raise InputError(f"{len(systems)} boxes, but the sampling has {sampling.n_replicas} replicas")
    first = systems[0]
    for k, system in enumerate(systems):
        if system.n_atoms != sampling.n_atoms:
            raise InputError(f"box {k} has {system.n_atoms} atoms, the sampling {sampling.n_atoms}")
        for name in ("atomic_numbers", "masses", "pbc"):
            if not np.array_equal(getattr(system, name), getattr(first, name)):
                raise InputError(f"boxes 0 and {k} differ in {name}: give replicas of one liquid")
        if not np.allclose(system.cell, first.cell, atol=1e-4):
            raise InputError(f"boxes 0 and {k} differ in their cells: give replicas of one liquid")
    batch = jax.tree.map(lambda *x: jnp.stack(x), *systems)
    return Replicas(batch, list_of(potential, batch, sampling, None))


def list_of(potential: Potential, systems: System, sampling: Sampling, like: Neighbors | None) -> Neighbors:
    """A neighbour list for replicas of a liquid, of the shape of `like` where that will do."""
    skin = _SKIN * potential.cutoff if sampling.skin is None else sampling.skin
    return neighbor_list(
        systems,
        cutoff=potential.cutoff,
        skin=skin,
        slack=1.1,
        like=like,
        reverse_edges=potential.uses_reverse_edges,
    )


def neighbor_distance(density: float, sampling: Sampling) -> float:
    """Distance of nearest neighbours in an fcc crystal of this density [Å]."""
    return float((np.sqrt(2) * sampling.simple[1] / density) ** (1 / 3))


def keep_liquid(replicas: Replicas, *, density: float, sampling: Sampling, key: Key[Array, ""]) -> Replicas:
    """Replace replicas that have crystallised by copies of liquid ones.

    Near and below the melting point a small box may freeze; its diffusivity is then that of a solid.

    Args:
        replicas: of one state point.
        density: mass density [amu/Å³], which tells where the Bragg peaks of a crystal would be.
        sampling: mass of an atom.
        key: seed of the choice of copies.

    Raises:
        DifmdError: more than half of them crystallised, so that the liquid is not what the model has.
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


def equilibrate(
    potential: Potential,
    params: Params,
    replicas: Replicas,
    *,
    temperature: float,
    time: float,
    sampling: Sampling,
    key: Key[Array, ""],
) -> Replicas:
    """Langevin dynamics of all replicas for a time, in whole chunks; overflow is repaired.

    Momenta are drawn anew every chunk, which is a thermostat as well.

    Args:
        potential: the energy model.
        params: its parameters.
        replicas: where to start.
        temperature: [K].
        time: [Å√(amu/eV)], rounded up to whole chunks of 252 steps.
        sampling: time step and friction.
        key: seed.

    Raises:
        SimulationError: non-finite values.
    """
    for chunk in range(-(-sampling.steps(time) // _CHUNK)):
        systems, lists = replicas.systems, replicas.neighbors
        keys = jax.random.split(jax.random.fold_in(key, chunk), len(systems.positions))
        momenta = _draw(keys, systems, temperature)

        def run(
            neighbors: Neighbors,
            systems: System = systems,
            momenta: Array = momenta,
            keys: Any = keys,
        ) -> _Advanced:
            integrator = langevin(dt=sampling.dt, temperature=temperature, friction=sampling.friction)
            static, batched = (potential, _CHUNK, _CHUNK, False), (systems, momenta, neighbors, keys)
            shared = (params, integrator)
            return run_replicas(_advance, static, shared, batched, n_atoms=systems.n_atoms)

        done, lists, _ = replay_on_overflow(run, systems, lists)
        replicas = replicas._replace(systems=done.systems, neighbors=lists)
    return replicas


class Production(NamedTuple):
    """Newtonian trajectories of all replicas.

    Attributes:
        positions: [replicas, frames, atoms, 3].
        momenta: [replicas, frames, atoms, 3].
        energies: U of each frame where ∂U/∂θ is kept, else None [eV]; [replicas, frames].
        energy_gradients: ∂U/∂θ of each frame, pytree of [replicas, frames, ...], or None.
    """

    positions: Array
    momenta: Array
    energies: Any
    energy_gradients: Any


def produce(
    potential: Potential,
    params: Params,
    replicas: Replicas,
    *,
    temperature: float,
    sampling: Sampling,
    key: Key[Array, ""],
    with_energy_gradients: bool = False,
) -> tuple[Production, Replicas]:
    """Draw momenta at the temperature and follow Newton's equations for the production time.

    Args:
        potential: the energy model.
        params: its parameters.
        replicas: equilibrated at this temperature.
        temperature: [K].
        sampling: time step, length, and steps between frames.
        key: seed of the momenta.
        with_energy_gradients: also keep U and ∂U/∂θ of every frame.

    Returns:
        The trajectories, and the replicas at their ends.

    Raises:
        SimulationError: non-finite values.
    """
    keys = jax.random.split(key, len(replicas.systems.positions))
    momenta = _draw(keys, replicas.systems, temperature)
    n_frames = -(-sampling.steps(sampling.production_time) // sampling.save_every)
    frames_per_chunk = _CHUNK // sampling.save_every
    parts = []
    for _ in range(-(-n_frames // frames_per_chunk)):
        systems, lists = replicas.systems, replicas.neighbors

        def run(neighbors: Neighbors, systems: System = systems, momenta: Array = momenta) -> _Advanced:
            every = sampling.save_every
            static = (potential, frames_per_chunk * every, every, with_energy_gradients)
            shared = (params, velocity_verlet(dt=sampling.dt))
            batched = (systems, momenta, neighbors, keys)
            return run_replicas(_advance, static, shared, batched, n_atoms=systems.n_atoms)

        done, lists, _ = replay_on_overflow(run, systems, lists)
        replicas = replicas._replace(systems=done.systems, neighbors=lists)
        momenta = done.momenta
        parts.append(done.frames)
    frames = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1)[:, :n_frames], *parts)
    return Production(*frames), replicas


# Long runs are made of chunks of so many steps, which all use one compiled function.
_CHUNK = 252

_draw = jax.jit(jax.vmap(draw_momenta, (0, 0, None)))


class _Advanced(NamedTuple):
    systems: System
    momenta: Array
    frames: tuple[Array, Array, Any, Any]
    status: Status


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _advance(
    potential: Potential,
    n_steps: int,
    save_every: int,
    with_energy_gradients: bool,
    params: Params,
    integrator: Integrator,
    systems: System,
    momenta: Array,
    neighbors: Neighbors,
    keys: Array,
) -> _Advanced:
    """Replicas by `n_steps`; the list is built anew at the start, which makes repeats exact."""

    def save(state: MDState, neighbors: Neighbors) -> tuple[Array, Array, Any, Any]:
        energy, slopes = None, None
        if with_energy_gradients:
            energy, slopes = jax.value_and_grad(potential.apply)(params, state.system, neighbors)
        return state.system.positions, state.momenta, energy, slopes

    def one(system: System, momenta: Array, neighbors: Neighbors, key: Array) -> _Advanced:
        fresh = rebuild(system, neighbors)
        state = initialize(potential, params, system, integrator, fresh, momenta=momenta, key=key)
        run = rollout(
            potential,
            params,
            state,
            integrator,
            fresh,
            n_steps=n_steps,
            save_every=save_every,
            save=save,
        )
        return _Advanced(run.state.system, run.state.momenta, run.frames, run.status)

    return map_replicas(one, len(keys))(systems, momenta, neighbors, keys)
