"""Interfaces to ASE and jax-md: `interop.ase.Calculator`, `interop.jax_md.to_jax_md` and `from_jax_md`.

Each module is imported on first access.
"""

from typing import TYPE_CHECKING

from difmd._internal.lazy import importer

if TYPE_CHECKING:
    from difmd.interop import ase, jax_md
else:
    __getattr__ = importer(__name__, {name: f"difmd.interop.{name}" for name in ("ase", "jax_md")})

__all__ = ["ase", "jax_md"]


def __dir__() -> list[str]:
    return list(__all__)
