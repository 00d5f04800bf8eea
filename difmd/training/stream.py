"""Which batches an epoch has: of the data, with frames of older data among them, for each member."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from difmd.data.batches import Batch, Batches
from difmd.errors import InputError

Selection = tuple[int, np.ndarray]
"""A shape and rows, as `Batches.take` takes them."""

# Last words of seeds, which keep draws apart that otherwise share all numbers.
_REPLAYED, _RESAMPLED = 1, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Batches as a function of the number of the epoch alone, so that a training resumes anywhere.

    Attributes:
        data: frames to train on, followed by those to replay.
        seed: of all draws; member k has seed + k.
        own: rows of the frames to train on, for each shape.
        old: rows of the frames to replay.
        n_old: how many of these an epoch has.
        n_members: None: of one potential.
        bootstrap: whether each member has a sample of the frames, drawn with replacement.
    """

    data: Batches
    seed: int
    own: tuple[np.ndarray, ...]
    old: tuple[np.ndarray, ...]
    n_old: tuple[int, ...]
    n_members: int | None
    bootstrap: bool

    def __len__(self) -> int:
        """Batches of an epoch; the same for all of them."""
        frames = (len(own) + n for own, n in zip(self.own, self.n_old, strict=True))
        return sum(-(-n // self.data.batch_size) for n in frames)

    def epoch(self, number: int) -> list[list[Selection]]:
        """The batches of an epoch: for each of them, the selection of every member."""
        orders = [
            self.data.epoch(self.seed + k, number, self._rows(self.seed + k, number))
            for k in range(self.n_members or 1)
        ]
        # Members see other frames, but of one shape at a time.
        shapes = [b for b, _ in orders[0]]
        aligned = []
        for order in orders:
            waiting = {b: iter([rows for c, rows in order if c == b]) for b in set(shapes)}
            aligned.append([(b, next(waiting[b])) for b in shapes])
        return [list(each) for each in zip(*aligned, strict=True)]

    def take(self, selections: Sequence[Selection]) -> Batch:
        """The batch of a selection; those of members have an axis in front."""
        if self.n_members is None:
            return self.data.take(selections[0])
        return jax.tree.map(lambda *x: np.stack(x), *(self.data.take(s) for s in selections))

    def _rows(self, seed: int, number: int) -> list[np.ndarray]:
        found = []
        for b, (own, old, n) in enumerate(zip(self.own, self.old, self.n_old, strict=True)):
            if self.bootstrap and len(own):
                own = np.random.default_rng([seed, b, _RESAMPLED]).choice(own, len(own))
            found.append(np.concatenate([own, _drawn(old, n * number, n, [seed, b])]))
        return found


def stream(
    data: Batches,
    n_own: int,
    *,
    seed: int,
    replay_fraction: float = 0.0,
    n_members: int | None = None,
    bootstrap: bool = False,
) -> Stream:
    """The `Stream` of some batches.

    Args:
        data: frames to train on, followed by those to replay.
        n_own: how many there are to train on.
        seed: of all draws.
        replay_fraction: of the frames of an epoch, how many are replayed; every frame is replayed once before
            one is again.
        n_members: of a committee; None: of one potential.
        bootstrap: see `Stream`; frames are drawn within those of one padded shape.

    Raises:
        InputError: a fraction that is not between 0 and 1, or too small for a single frame.
    """
    own = tuple(np.flatnonzero(places < n_own) for places in data.places)
    old = tuple(np.flatnonzero(places >= n_own) for places in data.places)
    n_replayed = sum(len(rows) for rows in old)
    counts = np.zeros(len(own), int)
    if n_replayed:
        if not 0 < replay_fraction < 1:
            raise InputError(
                f"replay_fraction = {replay_fraction} must lie between 0 and 1, both excluded: it is the "
                "share of replayed frames in an epoch"
            )
        total = round(replay_fraction / (1 - replay_fraction) * n_own)
        if total < 1:
            raise InputError(
                f"replay_fraction = {replay_fraction} of an epoch with {n_own} new frames is not one frame: "
                "make it larger"
            )
        # Whole numbers in proportion to the frames of each shape, the largest remainders rounded up.
        exact = total * np.array([len(rows) for rows in old]) / n_replayed
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return Stream(
        data=data,
        seed=seed,
        own=own,
        old=old,
        n_old=tuple(int(n) for n in counts),
        n_members=n_members,
        bootstrap=bootstrap,
    )


def _drawn(rows: np.ndarray, start: int, count: int, seed: list[int]) -> np.ndarray:
    """Some of an endless series of random orders of the rows."""
    found = [rows[:0]]
    while count:
        cycle, offset = divmod(start, len(rows))
        part = np.random.default_rng([*seed, cycle, _REPLAYED]).permutation(rows)[offset : offset + count]
        found.append(part)
        start, count = start + len(part), count - len(part)
    return np.concatenate(found)
