"""Frames as padded batches of a few shapes, with their neighbour lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.dtypes import default_float
from difmd._internal.progress import progress_bar
from difmd.data.frames import Frame
from difmd.errors import InputError, check_positive
from difmd.neighbors import Neighbors
from difmd.neighbors.packed import Pairs, packed, pairs_of
from difmd.system import System

# Slots come in groups, so that frames differ in fewer sizes.
_GROUP = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """What a batch is compared with; 0 where a frame has no such label.

    Attributes:
        energy: less the reference energies of its atoms [eV].
        forces: [eV/Å].
        stress: [eV/Å³].
        dipole: [e·Å].
        has_energy: whether there is one, as those that follow; False for frames that fill a batch up.
        has_forces: likewise.
        has_stress: likewise.
        has_dipole: likewise.
    """

    energy: Float[Array, "*batch"]
    forces: Float[Array, "*batch atoms 3"]
    stress: Float[Array, "*batch 3 3"]
    dipole: Float[Array, "*batch 3"]
    has_energy: Bool[Array, "*batch"]
    has_forces: Bool[Array, "*batch"]
    has_stress: Bool[Array, "*batch"]
    has_dipole: Bool[Array, "*batch"]


class Batch(NamedTuple):
    """Frames of one shape.

    Attributes:
        system: with a leading axis, as are all that follow.
        neighbors: of each.
        labels: of each.
        frames: place of each frame in the data, −1 for those that fill a batch up.
    """

    system: System
    neighbors: Neighbors
    labels: Labels
    frames: Int[Array, "batch"]


class Shape(NamedTuple):
    """Sizes that frames are padded to."""

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
    """Data ready for a potential; made by `make_batches`.

    Attributes:
        batch_size: frames of a batch.
    """

    batch_size: int
    _buckets: tuple[_Bucket, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes that frames were padded to; a function of batches is compiled once for each."""
        return tuple(bucket.shape for bucket in self._buckets)

    @property
    def n_frames(self) -> int:
        """How many frames there are."""
        return sum(len(bucket.frames) for bucket in self._buckets)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return sum(-(-len(bucket.frames) // self.batch_size) for bucket in self._buckets)

    @property
    def places(self) -> tuple[Int[np.ndarray, "frames"], ...]:
        """Places in the data of the frames of each shape."""
        return tuple(bucket.frames for bucket in self._buckets)

    def epoch(
        self, seed: int, number: int, rows: Sequence[np.ndarray] | None = None
    ) -> list[tuple[int, np.ndarray]]:
        """The batches of an epoch in random order, as bucket and rows; the same for the same numbers.

        Args:
            seed: of the order.
            number: of the epoch.
            rows: of each bucket, those that the epoch has; default: all.
        """
        rng = np.random.default_rng([seed, number])
        found = []
        for b, bucket in enumerate(self._buckets):
            order = rng.permutation(np.arange(len(bucket.frames)) if rows is None else rows[b])
            found += [(b, part) for part in _parts(order, self.batch_size)]
        return [found[k] for k in rng.permutation(len(found))]

    def in_order(self) -> list[tuple[int, np.ndarray]]:
        """All batches, in the order of the data within each shape."""
        return [
            (b, part)
            for b, bucket in enumerate(self._buckets)
            for part in _parts(np.arange(len(bucket.frames)), self.batch_size)
        ]

    def take(self, selection: tuple[int, np.ndarray]) -> Batch:
        """The batch of a bucket and rows, filled up to `batch_size`, in NumPy."""
        b, rows = selection
        fill = self.batch_size - len(rows)
        data = self._buckets[b].data
        found = jax.tree.map(lambda x: x[np.concatenate([rows, np.repeat(rows[:1], fill)])], data)
        if not fill:
            return found
        is_own = np.arange(self.batch_size) < len(rows)
        labels = {
            field.name: getattr(found.labels, field.name) & is_own
            if field.name.startswith("has_")
            else getattr(found.labels, field.name)
            for field in dataclasses.fields(Labels)
        }
        return found._replace(labels=Labels(**labels), frames=np.where(is_own, found.frames, -1))

    def __iter__(self) -> Iterator[Batch]:
        """All batches in the order of the data within each shape."""
        return (self.take(selection) for selection in self.in_order())


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
    """Build the neighbour lists of frames, once, and pad them to few shapes (host).

    Frames are sorted by size and cut into groups such that what is padded is least.

    Args:
        frames: the data.
        cutoff: of the potential [Å].
        batch_size: frames of a batch.
        references: energy of an atom of each element, which is subtracted in double precision [eV].
        max_shapes: how many shapes there may be at most, for each combination of periodic directions.
        dtype: of the floating-point fields; default: JAX's.
        progress: whether to show a bar.

    Returns:
        The `Batches`.

    Raises:
        InputError: no frames, a cutoff or batch size that is not positive, or an element without a reference.
    """
    if not frames:
        raise InputError("there are no frames to make batches of")
    check_positive("cutoff", cutoff, "Å")
    if batch_size < 1 or max_shapes < 1:
        raise InputError(f"batch_size = {batch_size} and max_shapes = {max_shapes} must be at least 1")
    dtype = np.dtype(dtype or default_float())
    found = []
    with progress_bar("neighbour lists", len(frames), enabled=progress) as advance:
        for frame in frames:
            found.append(pairs_of(frame.system, cutoff))
            advance(1)
    sizes = np.array(
        [
            [f.n_atoms, -(-max(p.n_neighbors, 1) // _GROUP) * _GROUP]
            for f, p in zip(frames, found, strict=True)
        ]
    )
    buckets = []
    # The periodic directions of a list are static.
    for pbc in sorted({_periodic(frame) for frame in frames}):
        alike = np.array([k for k, frame in enumerate(frames) if _periodic(frame) == pbc])
        for group in _groups(sizes[alike], max_shapes):
            members = np.sort(alike[group])
            shape = Shape(
                n_atoms=int(sizes[members, 0].max()),
                slots=int(sizes[members, 1].max()),
                n_extended=max(len(found[k].parents) for k in members),
                n_pairs=max(len(found[k].senders) // 2 for k in members),
            )
            rows = [
                _padded(k, frames[k], found[k], shape, pbc, cutoff, references or {}, dtype) for k in members
            ]
            data = jax.tree.map(lambda *x: np.stack(x), *rows)
            buckets.append(_Bucket(shape, members, data))
    return Batches(batch_size, tuple(buckets))


def _periodic(frame: Frame) -> tuple[bool, bool, bool]:
    a, b, c = (bool(flag) for flag in frame.pbc)
    return a, b, c


def _parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[k : k + size] for k in range(0, len(rows), size)]


def _groups(sizes: np.ndarray, most: int) -> list[np.ndarray]:
    """Members of at most `most` groups with the least Σ members · max(atoms) · max(slots).

    Frames are sorted by size, and the cuts found by dynamic programming.
    """
    order = np.lexsort((sizes[:, 1], sizes[:, 0]))
    kinds, first, counts = np.unique(sizes[order], axis=0, return_index=True, return_counts=True)
    n = len(kinds)
    # cost[a, b]: one group of the kinds a … b − 1.
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
    # Another shape costs a compilation, and must save a twentieth.
    g = next(g for g in range(1, most + 1) if best[g, n] <= 1.05 * best[1:, n].min())
    groups, end = [], n
    while g > 0:
        start = cut[g, end]
        low = first[start]
        high = first[end] if end < n else len(order)
        groups.append(order[low:high])
        g, end = g - 1, start
    return groups[::-1]


def _padded(
    place: int,
    frame: Frame,
    pairs: Pairs,
    shape: Shape,
    pbc: tuple[bool, bool, bool],
    cutoff: float,
    references: Mapping[int, float],
    dtype: np.dtype,
) -> Batch:
    n, n_all = frame.n_atoms, shape.n_atoms
    positions = np.zeros((n_all, 3), dtype)
    positions[:n] = frame.positions
    numbers = np.zeros(n_all, np.int32)
    numbers[:n] = frame.numbers
    masses = np.ones(n_all, dtype)
    masses[:n] = frame.system.masses
    cell = np.asarray(frame.cell, dtype)
    forces = np.zeros((n_all, 3), dtype)
    if frame.forces is not None:
        forces[:n] = frame.forces
    energy = 0.0
    if frame.energy is not None:
        missing = set(frame.numbers.tolist()) - set(references) if references else set()
        if missing:
            raise InputError(
                f"{frame.source}: no reference energy for the elements {sorted(missing)}: give one for each"
            )
        energy = frame.energy - sum(references.get(z, 0.0) for z in frame.numbers.tolist())
    fields: dict[str, Any] = {
        "positions": positions,
        "atomic_numbers": numbers,
        "masses": masses,
        "cell": cell,
        "pbc": np.array(pbc),
    }
    labels: dict[str, Any] = {
        "energy": np.asarray(energy, dtype),
        "forces": forces,
        "stress": np.zeros((3, 3), dtype) if frame.stress is None else np.asarray(frame.stress, dtype),
        "dipole": np.zeros(3, dtype) if frame.dipole is None else np.asarray(frame.dipole, dtype),
        "has_energy": np.bool_(frame.energy is not None),
        "has_forces": np.bool_(frame.forces is not None),
        "has_stress": np.bool_(frame.stress is not None),
        "has_dipole": np.bool_(frame.dipole is not None),
    }
    number: Any = np.int32(place)
    return Batch(
        system=System(**fields),
        neighbors=packed(
            pairs,
            positions,
            cell,
            pbc=pbc,
            cutoff=cutoff,
            slots=shape.slots,
            n_extended=shape.n_extended,
            n_pairs=shape.n_pairs,
        ),
        labels=Labels(**labels),
        frames=number,
    )
