"""Structures on the host: one by one, as they were given, and in groups that relax together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from difmd._internal.argument_checks import real_numbers
from difmd.errors import Flag, InputError, Status
from difmd.relaxation.result import Relaxation
from difmd.system import System, as_system

# Structures that relax together have at least this share of the atoms of the largest.
_SHARE = 0.5


class Frame(NamedTuple):
    """A structure after a number of steps.

    Attributes:
        step: their number.
        positions: [Å]; [atoms, 3].
        cell: [Å]; [3, 3].
        enthalpy: U + P V [eV].
        largest_force: [eV/Å].
    """

    step: int
    positions: np.ndarray
    cell: np.ndarray
    enthalpy: float
    largest_force: float


@dataclasses.dataclass
class Structure:
    """What is known of one structure; frames and flags come as it relaxes.

    Attributes:
        name: for messages.
        system: the start, in NumPy.
        pressure: P [eV/Å³].
        frames: so far.
        flags: what is wrong with it, as bits of `Flag`; not converged until it is at rest.
    """

    name: str
    system: System
    pressure: float
    frames: list[Frame] = dataclasses.field(default_factory=list)
    flags: int = int(Flag.NOT_CONVERGED)

    def relaxation(self, tolerance: float) -> Relaxation:
        """As `relax` returns it; what has not begun is where it was, with an energy that is not known."""
        start = Frame(0, self.system.positions, self.system.cell, np.nan, np.inf)  # type: ignore[arg-type]
        frames = self.frames or [start]
        end = frames[-1]
        first_bad = end.step if self.flags else -1
        cells = np.stack([frame.cell for frame in frames])
        volumes = np.abs(np.linalg.det(cells.astype(np.float64)))
        energies = np.array([frame.enthalpy for frame in frames], np.float64) - self.pressure * volumes
        largest_forces = np.array([frame.largest_force for frame in frames], np.float64)
        return Relaxation(
            system=jax.tree.map(jnp.asarray, self.system.replace(positions=end.positions, cell=end.cell)),
            energy=energies[-1],
            largest_force=largest_forces[-1],
            n_steps=np.int32(end.step),
            status=Status(flags=np.int32(self.flags), first_bad_step=np.int32(first_bad)),  # type: ignore[arg-type]
            pressure=np.float64(self.pressure),
            force_tolerance=tolerance,
            steps=np.array([frame.step for frame in frames], np.int32),
            positions=np.stack([frame.positions for frame in frames]),
            cells=cells,
            energies=energies,
            largest_forces=largest_forces,
        )


def one_by_one(systems: Any, pressure: Any) -> list[Structure]:
    """Structures of a system, a batch or a sequence, each with its pressure (host).

    Raises:
        InputError: there are none, one is no system, of fields that do not fit each other, or a batch within
            a sequence, or pressures that are neither one nor one for each.
    """
    is_sequence = isinstance(systems, Sequence) and not isinstance(systems, str)
    given = systems if is_sequence else [systems]
    names = [f"systems[{k}]" for k in range(len(given))] if is_sequence else ["systems"]
    found: list[tuple[str, System]] = []
    for name, system in zip(names, given, strict=True):
        try:
            system = as_system(system)
        except InputError as error:
            raise (InputError(f"{name}: {error}") if is_sequence else error) from None
        # On the host, where taking one out of a batch costs nothing.
        host = jax.tree.map(np.asarray, system)
        if host.positions.ndim == 2:
            found.append((name, host))
        elif is_sequence:
            raise InputError(f"{name} is a batch: give a batch by itself, or single structures")
        else:
            ones = [jax.tree.map(lambda x, k=k: x[k], host) for k in range(len(host.positions))]
            found += [(f"{name}[{k}]", one) for k, one in enumerate(ones)]
    if not found:
        raise InputError("systems is empty: give at least one structure")
    pressures = real_numbers("pressure", pressure)
    if pressures.shape not in ((), (len(found),)):
        raise InputError(
            f"pressure has shape {list(pressures.shape)}, but there are {len(found)} structures: give one "
            "for all, or one for each"
        )
    pressures = np.broadcast_to(pressures, len(found))
    return [Structure(*one, float(p)) for one, p in zip(found, pressures, strict=True)]


def groups(structures: Sequence[Structure]) -> list[list[Structure]]:
    """Structures that may relax together: of one precision, periodic alike, and of about one size."""
    found: dict[tuple[Any, ...], list[list[Structure]]] = {}
    for one in sorted(structures, key=lambda one: -one.system.n_atoms):
        precision = jax.dtypes.canonicalize_dtype(one.system.positions.dtype)
        alike = found.setdefault((precision, *(bool(flag) for flag in one.system.pbc)), [])
        if not alike or one.system.n_atoms < _SHARE * alike[-1][0].system.n_atoms:
            alike.append([])
        alike[-1].append(one)
    return [group for alike in found.values() for group in alike]


def together(group: Sequence[Structure]) -> System:
    """A batch of them, padded to the largest."""
    most = max(one.system.n_atoms for one in group)
    has_fixed = any(one.system.fixed is not None for one in group)

    def padded(system: System) -> System:
        more = most - system.n_atoms
        fixed = np.zeros(system.n_atoms, bool) if system.fixed is None else system.fixed
        return system.replace(
            positions=np.pad(system.positions, ((0, more), (0, 0))),
            atomic_numbers=np.pad(system.atomic_numbers, (0, more)),
            masses=np.pad(system.masses, (0, more), constant_values=1),
            fixed=np.pad(fixed, (0, more)) if has_fixed else None,
        )

    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *(padded(one.system) for one in group))


def stacked(found: Sequence[Relaxation], batch: System) -> Relaxation:
    """Those of a batch as one, each where it stopped until all have (host)."""
    steps = np.unique(np.concatenate([one.steps for one in found]))
    frames = [np.searchsorted(one.steps, steps, side="right") - 1 for one in found]

    def of_frames(name: str) -> np.ndarray:
        return np.stack([getattr(one, name)[k] for one, k in zip(found, frames, strict=True)], axis=1)

    def of_ends(name: str) -> Any:
        return jax.tree.map(lambda *x: np.stack(x), *(getattr(one, name) for one in found))

    system = batch.replace(
        positions=jnp.stack([one.system.positions for one in found]),
        cell=jnp.stack([one.system.cell for one in found]),
    )
    return Relaxation(
        system=jax.tree.map(jnp.asarray, system),
        energy=of_ends("energy"),
        largest_force=of_ends("largest_force"),
        n_steps=of_ends("n_steps"),
        status=of_ends("status"),
        pressure=of_ends("pressure"),
        force_tolerance=found[0].force_tolerance,
        steps=steps,
        positions=of_frames("positions"),
        cells=of_frames("cells"),
        energies=of_frames("energies"),
        largest_forces=of_frames("largest_forces"),
    )
