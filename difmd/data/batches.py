"""Batches of frames, padded to a few shapes, with their neighbour lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.dtypes import default_float
from difmd._internal.pairs import as_triple
from difmd._internal.progress import progress_bar
from difmd._internal.summaries import brief_repr
from difmd.data.frames import Frame
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors
from difmd.neighbors.packed import Pairs, packed, pairs_of
from difmd.system import System

# Slots are rounded up to a multiple, so that there are fewer sizes.
_GROUP = 4


@brief_repr
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of a batch; 0 where a frame lacks a label.

    Attributes:
        energy: relative to the reference energies of the atoms [eV].
        forces: [eV/Å].
        stress: [eV/Å³].
        dipole: [e·Å].
        has_energy: whether a frame has an energy; False for frames that pad a batch.
        has_forces: whether a frame has forces.
        has_stress: whether a frame has a stress.
        has_dipole: whether a frame has a dipole.
    """

    energy: Float[Array, "*batch"]
    forces: Float[Array, "*batch atoms 3"]
    stress: Float[Array, "*batch 3 3"]
    dipole: Float[Array, "*batch 3"]
    has_energy: Bool[Array, "*batch"]
    has_forces: Bool[Array, "*batch"]
    has_stress: Bool[Array, "*batch"]
    has_dipole: Bool[Array, "*batch"]


@brief_repr
class Batch(NamedTuple):
    """Frames of one shape.

    Attributes:
        system: the atoms; all fields have a leading axis of frames.
        neighbors: their neighbour lists.
        labels: their labels.
        frames: index of each frame in the data, −1 for frames that pad the batch.
    """

    system: System
    neighbors: Neighbors
    labels: Labels
    frames: Int[Array, "batch"]


class Shape(NamedTuple):
    """Sizes to which frames are padded."""

    n_atoms: int
    slots: int
    n_extended: int
    n_pairs: int


class _Bucket(NamedTuple):
    shape: Shape
    frames: np.ndarray
    data: Batch


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches of a data set; made by `make_batches`. Iteration follows the order of the data in each shape.

    Attributes:
        batch_size: frames of a batch.
    """

    batch_size: int
    _buckets: tuple[_Bucket, ...]

    def __repr__(self) -> str:
        """Numbers of frames, batches and shapes."""
        return f"Batches: {self.n_frames} frames in {len(self)} batches of {len(self.shapes)} shapes"

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes to which frames were padded; a function of batches is compiled once for each."""
        return tuple(bucket.shape for bucket in self._buckets)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return sum(len(bucket.frames) for bucket in self._buckets)

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return sum(-(-len(bucket.frames) // self.batch_size) for bucket in self._buckets)

    @property
    def places(self) -> tuple[Int[np.ndarray, "frames"], ...]:
        """Indices in the data of the frames of each shape."""
        return tuple(bucket.frames for bucket in self._buckets)

    def epoch(
        self, seed: int, number: int, rows: Sequence[np.ndarray] | None = None
    ) -> list[tuple[int, np.ndarray]]:
        """The batches of an epoch in random order, as pairs of shape and rows; deterministic.

        The order depends on `seed` and the number of the epoch; the default of `rows` is all of each shape.
        """
        rng = np.random.default_rng([seed, number])
        selections = []
        for b, bucket in enumerate(self._buckets):
            order = rng.permutation(np.arange(len(bucket.frames)) if rows is None else rows[b])
            selections += [(b, part) for part in _parts(order, self.batch_size)]
        return [selections[k] for k in rng.permutation(len(selections))]

    def batch(self, selection: tuple[int, np.ndarray]) -> Batch:
        """The batch of a shape and rows, padded to `batch_size`, in NumPy."""
        b, rows = selection
        n_padding = self.batch_size - len(rows)
        data = self._buckets[b].data
        batch = jax.tree.map(lambda x: x[np.concatenate([rows, np.repeat(rows[:1], n_padding)])], data)
        if not n_padding:
            return batch
        is_real = np.arange(self.batch_size) < len(rows)
        has = {name: value & is_real for name, value in vars(batch.labels).items() if name.startswith("has_")}
        labels = dataclasses.replace(batch.labels, **has)
        return batch._replace(labels=labels, frames=np.where(is_real, batch.frames, -1))

    def __iter__(self) -> Iterator[Batch]:
        """All batches in the order of the data within each shape."""
        for b, bucket in enumerate(self._buckets):
            for rows in _parts(np.arange(len(bucket.frames)), self.batch_size):
                yield self.batch((b, rows))


def make_batches(
    frames: Sequence[Frame],
    *,
    cutoff: float,
    batch_size: int,
    references: Mapping[int, float] | None = None,
    max_shapes: int = 4,
    dtype: Any = None,
    progress: bool = False,
) -> Batches:
    """Build the neighbour lists of frames once and pad them to a few shapes (host).

    Frames are sorted by size and grouped such that the padding is minimal.

    Args:
        frames: the data.
        cutoff: of the potential [Å].
        batch_size: frames of a batch.
        references: energy of an atom of each element, subtracted in double precision [eV].
        max_shapes: largest number of shapes for each combination of periodic directions.
        dtype: of the floating-point fields; default: JAX's.
        progress: show a progress bar.

    Returns:
        The `Batches`.

    Raises:
        InputError: no frames, a cut-off or batch size that is not positive, or an element without reference
            energy.
    """
    if not frames:
        raise InputError("there are no frames: give at least one")
    check_positive("cutoff", cutoff, "Å")
    if batch_size < 1 or max_shapes < 1:
        raise InputError(f"batch_size = {batch_size} and max_shapes = {max_shapes} must be at least 1")
    dtype = np.dtype(dtype or default_float())
    pairs = []
    with progress_bar("neighbour lists", len(frames), enabled=progress) as advance:
        for frame in frames:
            pairs.append(pairs_of(frame.system, cutoff))
            advance(1)
    rounded = [-(-max(p.n_neighbors, 1) // _GROUP) * _GROUP for p in pairs]
    sizes = np.column_stack([[frame.n_atoms for frame in frames], rounded])
    buckets = []
    # The periodic directions of a neighbour list are static.
    periodic = [as_triple(frame.pbc) for frame in frames]
    for pbc in sorted(set(periodic)):
        alike = np.array([k for k, directions in enumerate(periodic) if directions == pbc])
        for group in _groups(sizes[alike], max_shapes):
            members = np.sort(alike[group])
            n_atoms, slots = sizes[members].max(axis=0).tolist()
            n_extended = max(len(pairs[k].parents) for k in members)
            shape = Shape(n_atoms, slots, n_extended, max(len(pairs[k].senders) // 2 for k in members))
            rows = [_padded(k, frames[k], pairs[k], shape, cutoff, references or {}, dtype) for k in members]
            data = jax.tree.map(lambda *x: np.stack(x), *rows)
            buckets.append(_Bucket(shape, members, data))
    return Batches(batch_size, tuple(buckets))


def _parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[k : k + size] for k in range(0, len(rows), size)]


def _groups(sizes: np.ndarray, most: int) -> list[np.ndarray]:
    """Members of at most `most` groups with the least Σ members · max(atoms) · max(slots).

    Frames are sorted by size and divided by dynamic programming.
    """
    order = np.lexsort((sizes[:, 1], sizes[:, 0]))
    kinds, first, counts = np.unique(sizes[order], axis=0, return_index=True, return_counts=True)
    n = len(kinds)
    # cost[a, b]: one group of the sizes a … b − 1.
    cost = np.full((n, n + 1), np.inf)
    for a in range(n):
        widest = np.maximum.accumulate(kinds[a:], axis=0)
        cost[a, a + 1 :] = np.cumsum(counts[a:]) * widest[:, 0] * widest[:, 1]
    best = np.full((most + 1, n + 1), np.inf)
    cut = np.zeros((most + 1, n + 1), int)
    best[0, 0] = 0
    for g in range(1, most + 1):
        for b in range(1, n + 1):
            options = best[g - 1, :b] + cost[:b, b]
            cut[g, b] = int(np.argmin(options))
            best[g, b] = options[cut[g, b]]
    # Another shape costs a compilation and must save 5 %.
    g = next(g for g in range(1, most + 1) if best[g, n] <= 1.05 * best[1:, n].min())
    groups, end = [], n
    while g > 0:
        start = cut[g, end]
        groups.append(order[first[start] : first[end] if end < n else len(order)])
        g, end = g - 1, start
    return groups[::-1]


def _padded(
    index: int, frame: Frame, pairs: Pairs, shape: Shape, cutoff: float, references: Mapping[int, float],
    dtype: np.dtype,
) -> Batch:  # fmt: skip
    n, n_all = frame.n_atoms, shape.n_atoms
    numbers = np.zeros(n_all, np.int32)
    numbers[:n] = frame.numbers
    masses = np.ones(n_all, dtype)
    masses[:n] = frame.system.masses
    positions, forces = np.zeros((2, n_all, 3), dtype)
    positions[:n] = frame.positions
    forces[:n] = 0 if frame.forces is None else frame.forces
    cell = np.asarray(frame.cell, dtype)
    labels: dict[str, Any] = {
        "energy": np.asarray(_relative_energy(frame, references), dtype),
        "forces": forces,
        "stress": np.zeros((3, 3), dtype) if frame.stress is None else np.asarray(frame.stress, dtype),
        "dipole": np.zeros(3, dtype) if frame.dipole is None else np.asarray(frame.dipole, dtype),
    }
    labels |= {f"has_{name}": np.bool_(name in frame.labels) for name in tuple(labels)}
    fields: dict[str, Any] = {"positions": positions, "atomic_numbers": numbers, "masses": masses}
    fields |= {"cell": cell, "pbc": np.array(frame.pbc)}
    number: Any = np.int32(index)
    sizes = {"slots": shape.slots, "n_extended": shape.n_extended, "n_pairs": shape.n_pairs}
    neighbors = packed(pairs, positions, cell, pbc=as_triple(frame.pbc), cutoff=cutoff, **sizes)
    return Batch(System(**fields), neighbors, Labels(**labels), number)


def _relative_energy(frame: Frame, references: Mapping[int, float]) -> float:
    """Energy relative to the reference energies; 0 without a label."""
    if frame.energy is None:
        return 0.0
    missing = set(frame.numbers.tolist()) - set(references) if references else set()
    if missing:
        raise InputError(
            f"{frame.source}: no reference energy for the elements {sorted(missing)}: give one for each"
        )
    return frame.energy - sum(references.get(z, 0.0) for z in frame.numbers.tolist())
