"""`split`: frames for training, validation and test, and files of splits with a hash of their frames."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from difmd._internal.summaries import brief_repr
from difmd.data.frames import Frame, hash_frames, is_isolated_atom
from difmd.errors import InputError

_FORMAT = 1


@brief_repr
class Split(NamedTuple):
    """Indices into one list of frames, each ascending.

    Attributes:
        train: int [frames].
        valid: int [frames].
        test: int [frames].
        seed: of the draw.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    seed: int


class Parts(NamedTuple):
    """The frames of a split.

    Attributes:
        train: frames to fit to.
        valid: frames that select the best parameters.
        test: held-out frames.
    """

    train: list[Frame]
    valid: list[Frame]
    test: list[Frame]

    def __repr__(self) -> str:
        """Numbers of frames."""
        return "Parts: " + ", ".join(f"{len(part)} {name}" for name, part in self._asdict().items())


def split(
    frames: Sequence[Frame],
    *,
    valid: float,
    test: float = 0,
    block: int = 1,
    by_kind: bool = False,
    seed: int,
) -> Split:
    """Draw frames for validation and test; the others are for training.

    Consecutive frames of a trajectory are correlated, and a validation frame between two training frames
    underestimates the error: with `block`, runs of consecutive frames stay together. Isolated atoms always
    stay in training, since they determine the reference energies.

    Args:
        frames: all frames.
        valid: a count (int), or a fraction of the frames below 1 (float).
        test: a count or a fraction.
        block: consecutive frames that stay together; counts are then exact to within one block.
        by_kind: draw the same fraction of every kind (`Frame.kind`).
        seed: the same seed draws the same frames.

    Returns:
        The `Split`.

    Raises:
        InputError: no frames, a count or fraction that is negative or leaves none for training, or a block
            below 1.
    """
    n = len(frames)
    if n == 0:
        raise InputError("there are no frames to split")
    if block < 1:
        raise InputError(f"block = {block} must be at least 1")
    free = np.array([i for i in range(n) if not is_isolated_atom(frames[i])], int)
    for name, share in (("valid", valid), ("test", test)):
        if not (math.isfinite(share) and share >= 0) or (share != int(share) and share >= 1):
            raise InputError(f"{name} = {share} must be a count (0, 1, 2 ...) or a fraction below 1")
        if by_kind and share >= 1:
            raise InputError(f"{name} = {share}: give a fraction below 1 with by_kind")
    kinds = sorted({frames[i].kind for i in free}) if by_kind else [None]
    rng = np.random.default_rng(seed)
    parts: tuple[list[int], list[int]] = ([], [])
    for kind in kinds:
        members = free if kind is None else np.array([i for i in free if frames[i].kind == kind], int)
        counts = [round(share * len(members)) if share < 1 else int(share) for share in (valid, test)]
        if sum(counts) >= len(members) > 0 and sum(counts) > 0:
            raise InputError(
                f"valid = {valid} and test = {test} leave none of {len(members)} frames"
                + (f" of kind {kind!r}" if kind is not None else "")
                + (" besides isolated atoms" if len(free) < n else "")
                + " for training: reduce them"
            )
        blocks = _blocks(members, frames, block)
        remaining = deque(blocks[k] for k in rng.permutation(len(blocks)))
        for part, count in zip(parts, counts, strict=True):
            drawn: list[int] = []
            # Blocks are added as long as they bring the number closer to the count.
            while remaining and len(drawn) + len(remaining[0]) / 2 <= count and len(drawn) < count:
                drawn += remaining.popleft()
            if count and not drawn and remaining:
                raise InputError(
                    f"a block has {len(remaining[0])} frames, but {count} are requested: reduce block = "
                    f"{block}, or request more frames"
                )
            part.extend(drawn)
        if not remaining and len(members):
            raise InputError(
                f"blocks of {block} frames leave none of {len(members)} for training: reduce block"
            )
    held_out = set(parts[0]) | set(parts[1])
    train = np.array([i for i in range(n) if i not in held_out], int)
    return Split(train, np.array(sorted(parts[0]), int), np.array(sorted(parts[1]), int), seed)


def _blocks(members: np.ndarray, frames: Sequence[Frame], block: int) -> list[list[int]]:
    """Runs of at most `block` consecutive frames of the same atoms."""
    blocks: list[list[int]] = []
    for i in members:
        last = blocks[-1] if blocks else []
        is_next = last and len(last) < block and last[-1] == i - 1
        if is_next and np.array_equal(frames[i].numbers, frames[i - 1].numbers):
            last.append(int(i))
        else:
            blocks.append([int(i)])
    return blocks


def apply_split(frames: Sequence[Frame], chosen: Split) -> Parts:
    """The frames of each part of a split.

    Args:
        frames: the frames that were split.
        chosen: the split.

    Returns:
        The frames for training, validation and test.

    Raises:
        InputError: the split is of another number of frames.
    """
    indices = np.concatenate(chosen[:3])
    if not np.array_equal(np.sort(indices), np.arange(len(frames))):
        raise InputError(
            f"the split holds {len(indices)} indices up to {indices.max(initial=-1)}, but there are "
            f"{len(frames)} frames: split these frames, or read those that were split"
        )
    return Parts(*([frames[i] for i in part] for part in chosen[:3]))


def save_split(path: str | Path, chosen: Split, frames: Sequence[Frame]) -> None:
    """Write a split as JSON, with the files of the frames, the seed and a hash of the frames.

    Args:
        path: file to write.
        chosen: the split.
        frames: the frames that were split.

    Raises:
        InputError: the split is of another number of frames.
    """
    apply_split(frames, chosen)
    # The name of a frame in its file follows the first comma.
    files = list(dict.fromkeys(frame.source.split(", ")[0] for frame in frames))
    content: dict[str, Any] = {"format": _FORMAT, "files": files, "n_frames": len(frames)}
    content |= {"sha256": hash_frames(frames), "seed": int(chosen.seed)}
    content |= {name: getattr(chosen, name).tolist() for name in ("train", "valid", "test")}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content) + "\n")


def load_split(path: str | Path, frames: Sequence[Frame]) -> Split:
    """Read a split and check that it belongs to these frames.

    Args:
        path: file written by `save_split`.
        frames: the same frames, in the same order.

    Returns:
        The split.

    Raises:
        InputError: the file does not exist, is not a split, or is the split of other frames.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}: write one with save_split")
    try:
        content = json.loads(Path(path).read_text())
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']} instead of {_FORMAT}")
        parts = [np.array(content[name], int) for name in ("train", "valid", "test")]
        files, n_frames, digest = ", ".join(content["files"]), content["n_frames"], content["sha256"]
        chosen = Split(parts[0], parts[1], parts[2], int(content["seed"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a split written by save_split ({error!r})") from error
    if n_frames != len(frames):
        raise InputError(
            f"{path} splits {n_frames} frames of {files}, but {len(frames)} are given: read the same files "
            "in the same order, or split these frames"
        )
    if digest != hash_frames(frames):
        raise InputError(
            f"{path} splits other frames, of {files}: their hash differs. Read the same files in the same "
            "order with the same keys and units, or split these frames"
        )
    apply_split(frames, chosen)
    return chosen
