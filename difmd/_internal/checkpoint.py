"""Checkpoints: arrays and JSON in one file, written atomically, without pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from difmd.errors import InputError


def save_checkpoint(path: Path, tree: Any, meta: dict[str, Any]) -> None:
    """Write the leaves of `tree` and `meta`; the file is either complete or absent."""
    leaves = [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(tree)]
    arrays: dict[str, Any] = {f"leaf_{n}": leaf for n, leaf in enumerate(leaves)}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    try:
        write_archive(path, arrays, "checkpoint ")
    except InputError as error:
        raise InputError(f"{error}, then run again to resume") from error


def write_archive(path: Path, arrays: dict[str, Any], what: str = "") -> None:
    """Write a NumPy archive, called `what` in messages; the file is either complete or absent."""
    with atomically(path, what=what) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)


@contextlib.contextmanager
def atomically(path: Path, *, what: str = "", previous: Path | None = None) -> Iterator[Path]:
    """A temporary path to write to; its file replaces `path` once it is complete and on the disk.

    A previous file is moved to `previous`, if given. Messages call the file `what`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(
            f"cannot write the {what or 'file '}{path}: {error.strerror or error}; a previous file is "
            "intact. Free some space or choose another folder"
        ) from error


def load_checkpoint(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint into the structure of `like`."""
    leaves, treedef = jax.tree.flatten(like)
    try:
        with np.load(path, allow_pickle=False) as archive:
            meta = json.loads(archive["meta"].tobytes())
            stored = [archive[f"leaf_{n}"] for n in range(len(archive.files) - 1)]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"checkpoint {path} cannot be read ({error}): delete it to start again") from error
    if [x.shape for x in stored] != [np.shape(plain(leaf)) for leaf in leaves]:
        raise InputError(f"checkpoint {path} belongs to another fit: delete it to start again")
    restored = [as_like(x, y) for x, y in zip(stored, leaves, strict=True)]
    return jax.tree.unflatten(treedef, restored), meta


def fingerprint(*settings: Any) -> str:
    """A short hash of the settings of a fit, to recognise its checkpoints."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(settings):
        if hasattr(leaf, "shape"):
            value = np.asarray(plain(leaf))
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        else:
            digest.update(repr(leaf).encode() + b";")
    return digest.hexdigest()[:16]


def ensure_writable(folder: Path) -> None:
    """Create the folder and check that it can be written, before hours of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        message = f"cannot write to the run folder {folder}: {error.strerror}; choose another one"
        raise InputError(message) from error


def plain(leaf: Any) -> Any:
    """A leaf as an array that can be stored; PRNG keys as their data."""
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def as_like(stored: np.ndarray, like: Any) -> Any:
    """A stored array as a leaf of the type of `like`."""
    if hasattr(like, "dtype") and jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(stored))
    return jax.numpy.asarray(stored, getattr(like, "dtype", None))
