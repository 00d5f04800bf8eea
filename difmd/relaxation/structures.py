"""Structures of a relaxation on the host: their progress, and groups that relax together."""

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

# Structures that relax together have at least this fraction of the atoms of the largest.
_SIMILAR = 0.5


class Frame(NamedTuple):
    """A structure after `step` steps: positions and cell [Å], enthalpy [eV], largest force [eV/Å]."""

    step: int
    positions: np.ndarray
    cell: np.ndarray
    enthalpy: float
    largest_force: float


@dataclasses.dataclass
class Structure:
    """An initial structure in NumPy, its name for messages, P [eV/Å³], its frames, and bits of `Flag`."""

    name: str
    system: System
    pressure: float
    frames: list[Frame] = dataclasses.field(default_factory=list)
    flags: int = int(Flag.NOT_CONVERGED)

    def relaxation(self, tolerance: float) -> Relaxation:
        """As returned by `relax`; before its first frame the initial structure, with NaN for its energy."""
        initial = Frame(0, self.system.positions, self.system.cell, np.nan, np.inf)  # type: ignore[arg-type]
        frames = self.frames or [initial]
        steps, positions, cells, enthalpies, forces = (np.array(x) for x in zip(*frames, strict=True))
        energies = enthalpies - self.pressure * np.abs(np.linalg.det(cells.astype(np.float64)))
        steps = steps.astype(np.int32)
        first_bad = steps[-1] if self.flags else np.int32(-1)
        status = Status(flags=np.int32(self.flags), first_bad_step=first_bad)  # type: ignore[arg-type]
        system = self.system.replace(positions=positions[-1], cell=cells[-1])
        return Relaxation(
            system=jax.tree.map(jnp.asarray, system), energy=energies[-1], largest_force=forces[-1],
            n_steps=steps[-1], status=status, pressure=np.float64(self.pressure), force_tolerance=tolerance,
            steps=steps, positions=positions, cells=cells, energies=energies, largest_forces=forces,
        )  # fmt: skip


def structures_of(systems: Any, pressure: Any) -> list[Structure]:
    """Structures of a system, a batch or a sequence, each with its pressure, after validation (host)."""
    is_sequence = isinstance(systems, Sequence) and not isinstance(systems, str)
    structures: list[tuple[str, System]] = []
    for k, item in enumerate(systems if is_sequence else [systems]):
        name = f"systems[{k}]" if is_sequence else "systems"
        try:
            system = as_system(item)
        except InputError as error:
            raise (InputError(f"{name}: {error}") if is_sequence else error) from None
        # In NumPy, where indexing a batch is cheap.
        host = jax.tree.map(np.asarray, system)
        if host.positions.ndim == 2:
            structures.append((name, host))
        elif is_sequence:
            raise InputError(f"{name} is a batch: give a batch by itself, or single structures")
        else:
            replicas = [jax.tree.map(lambda x, k=k: x[k], host) for k in range(len(host.positions))]
            structures += [(f"{name}[{k}]", replica) for k, replica in enumerate(replicas)]
    if not structures:
        raise InputError("systems is empty: give at least one structure")
    pressures = real_numbers("pressure", pressure)
    if pressures.shape not in ((), (len(structures),)):
        raise InputError(
            f"pressure has shape {list(pressures.shape)}, but there are {len(structures)} structures: give "
            "one for all, or one for each"
        )
    pressures = np.broadcast_to(pressures, len(structures))
    return [Structure(*named, float(p)) for named, p in zip(structures, pressures, strict=True)]


def groups(structures: Sequence[Structure]) -> list[list[Structure]]:
    """Structures that can relax together: of one precision, the same periodicity, and similar size."""
    by_kind: dict[tuple[Any, ...], list[list[Structure]]] = {}
    for structure in sorted(structures, key=lambda structure: -structure.system.n_atoms):
        precision = jax.dtypes.canonicalize_dtype(structure.system.positions.dtype)
        same = by_kind.setdefault((precision, *(bool(flag) for flag in structure.system.pbc)), [])
        if not same or structure.system.n_atoms < _SIMILAR * same[-1][0].system.n_atoms:
            same.append([])
        same[-1].append(structure)
    return [group for same in by_kind.values() for group in same]


def padded_batch(group: Sequence[Structure]) -> System:
    """The structures of a group as a batch, padded to the largest."""
    most = max(structure.system.n_atoms for structure in group)
    has_fixed = any(structure.system.fixed is not None for structure in group)

    def padded(system: System) -> System:
        more = most - system.n_atoms
        fixed = np.zeros(system.n_atoms, bool) if system.fixed is None else system.fixed
        return system.replace(
            positions=np.pad(system.positions, ((0, more), (0, 0))),
            atomic_numbers=np.pad(system.atomic_numbers, (0, more)),
            masses=np.pad(system.masses, (0, more), constant_values=1),
            fixed=np.pad(fixed, (0, more)) if has_fixed else None,
        )

    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *(padded(each.system) for each in group))


def collected(structures: list[Structure], systems: Any, tolerance: float) -> Relaxation | list[Relaxation]:
    """The result of `relax`, in the form of its argument `systems` (host)."""
    relaxations = [structure.relaxation(tolerance) for structure in structures]
    if isinstance(systems, Sequence):
        return relaxations
    if isinstance(systems, System) and systems.positions.ndim == 3:
        return _stacked(relaxations, systems)
    return relaxations[0]


def _stacked(relaxations: Sequence[Relaxation], batch: System) -> Relaxation:
    """Relaxations of a batch as one; a structure that has ended stays as it is."""
    steps = np.unique(np.concatenate([each.steps for each in relaxations]))
    frames = [np.searchsorted(each.steps, steps, side="right") - 1 for each in relaxations]

    def of_frames(name: str) -> np.ndarray:
        return np.stack([getattr(x, name)[k] for x, k in zip(relaxations, frames, strict=True)], axis=1)

    def of_ends(name: str) -> Any:
        return jax.tree.map(lambda *x: np.stack(x), *(getattr(each, name) for each in relaxations))

    ends = {name: jnp.stack([getattr(x.system, name) for x in relaxations]) for name in ("positions", "cell")}
    system = jax.tree.map(jnp.asarray, batch.replace(**ends))
    fields = {name: of_ends(name) for name in ("energy", "largest_force", "n_steps", "status", "pressure")}
    fields |= {name: of_frames(name) for name in ("positions", "cells", "energies", "largest_forces")}
    return Relaxation(system=system, force_tolerance=relaxations[0].force_tolerance, steps=steps, **fields)
