"""The batches of an epoch: new frames mixed with replayed ones, for each member."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from difmd.data.batches import Batch, Batches
from difmd.errors import InputError

Selection = tuple[int, np.ndarray]
"""A shape and rows, the argument of `Batches.batch`."""

# Last numbers of seeds, which separate draws whose other numbers agree.
_REPLAYED, _RESAMPLED = 1, 2


@dataclasses.dataclass(frozen=True)
class Stream:
    """Batches as a function of the epoch alone, so that a training can resume at any epoch."""

    data: Batches  # new frames, followed by those to replay
    seed: int  # of all draws; member k has seed + k
    new: tuple[np.ndarray, ...]  # rows of the new frames, for each shape
    old: tuple[np.ndarray, ...]  # rows of the frames to replay, for each shape
    n_old: tuple[int, ...]  # number of replayed frames of each shape in an epoch
    n_members: int | None  # of a committee; None: one potential
    bootstrap: bool  # whether each member trains on a sample of the new frames, drawn with replacement

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        frames = (len(new) + n for new, n in zip(self.new, self.n_old, strict=True))
        return sum(-(-n // self.data.batch_size) for n in frames)

    def epoch(self, number: int) -> list[list[Selection]]:
        """The selections of every member, for each batch of an epoch."""
        orders = [
            self.data.epoch(self.seed + k, number, self._rows(self.seed + k, number))
            for k in range(self.n_members or 1)
        ]
        # Members have different frames, but of one shape at a time.
        shapes = [b for b, _ in orders[0]]
        aligned = []
        for order in orders:
            remaining = {b: iter([rows for c, rows in order if c == b]) for b in set(shapes)}
            aligned.append([(b, next(remaining[b])) for b in shapes])
        return [list(selections) for selections in zip(*aligned, strict=True)]

    def batch(self, selections: Sequence[Selection]) -> Batch:
        """The batch of a selection, in a committee with a leading axis of members."""
        if self.n_members is None:
            return self.data.batch(selections[0])
        return jax.tree.map(lambda *x: np.stack(x), *(self.data.batch(s) for s in selections))

    def _rows(self, seed: int, number: int) -> list[np.ndarray]:
        rows = []
        for b, (new, old, n) in enumerate(zip(self.new, self.old, self.n_old, strict=True)):
            if self.bootstrap and len(new):
                new = np.random.default_rng([seed, b, _RESAMPLED]).choice(new, len(new))
            rows.append(np.concatenate([new, _replayed(old, n * number, n, [seed, b])]))
        return rows


def stream(
    data: Batches,
    n_new: int,
    replay_fraction: float = 0.0,
    *,
    seed: int,
    n_members: int | None = None,
    bootstrap: bool = False,
) -> Stream:
    """Mix the first `n_new` frames of the data with the others; further arguments as in `train_committee`."""
    new = tuple(np.flatnonzero(places < n_new) for places in data.places)
    old = tuple(np.flatnonzero(places >= n_new) for places in data.places)
    n_replayed = sum(len(rows) for rows in old)
    counts = np.zeros(len(new), int)
    if n_replayed:
        if not 0 < replay_fraction < 1:
            raise InputError(
                f"replay_fraction = {replay_fraction} must lie between 0 and 1, both excluded: it is the "
                "fraction of replayed frames in an epoch"
            )
        total = round(replay_fraction / (1 - replay_fraction) * n_new)
        if total < 1:
            raise InputError(
                f"replay_fraction = {replay_fraction} of an epoch with {n_new} new frames is less than one "
                "frame: make it larger"
            )
        # Integers in proportion to the frames of each shape, the largest remainders rounded up.
        exact = total * np.array([len(rows) for rows in old]) / n_replayed
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return Stream(data, seed, new, old, tuple(int(n) for n in counts), n_members, bootstrap)


def _replayed(rows: np.ndarray, start: int, count: int, seed: list[int]) -> np.ndarray:
    """A part of an endless series of random permutations of the rows."""
    parts = [rows[:0]]
    while count:
        cycle, offset = divmod(start, len(rows))
        part = np.random.default_rng([*seed, cycle, _REPLAYED]).permutation(rows)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(parts)
