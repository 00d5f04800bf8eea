"""`System`: N atoms at one instant, with conversion from and to ASE and validation on the host."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from difmd._internal.argument_checks import check_type
from difmd._internal.dtypes import floats
from difmd._internal.lattice import signed_volume
from difmd._internal.structure_checks import (
    cell_and_pbc,
    check_distinct,
    check_dtype,
    finite_floats,
    which_fixed,
)
from difmd._internal.summaries import cell_summary, concrete, fields_summary, formula, html_table, summary
from difmd.errors import InputError

if TYPE_CHECKING:
    import ase

__all__ = ["System", "as_system", "from_ase", "host_system", "make_system", "to_ase"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class System:
    """N atoms at one instant.

    Create it with `make_system` or `from_ase`, which validate. The constructor does not.

    Attributes:
        positions: Cartesian, unwrapped [Å]; float [atoms, 3].
        atomic_numbers: 0 marks padding; int [atoms].
        masses: [amu]; float [atoms].
        cell: rows are lattice vectors [Å], ignored where the direction is not periodic; float [3, 3].
        pbc: which directions are periodic; bool [3].
        fixed: atoms that do not move in dynamics and relaxation; bool [atoms]. None: all atoms move.
    """

    positions: Float[Array, "*batch atoms 3"]
    atomic_numbers: Int[Array, "*batch atoms"]
    masses: Float[Array, "*batch atoms"]
    cell: Float[Array, "*batch 3 3"]
    pbc: Bool[Array, "*batch 3"]
    fixed: Bool[Array, "*batch atoms"] | None = None

    def __repr__(self) -> str:
        """Composition, cell and fixed atoms; without arrays, as in a tree of axes, the fields."""
        return summary(*self._summary()) if np.ndim(self.positions) > 1 else fields_summary(self)

    def _repr_html_(self) -> str:
        return html_table(*self._summary())

    def _summary(self) -> tuple[str, dict[str, Any]]:
        """Title and rows, also of replicas and under jit."""
        *batch, n_atoms, _ = np.shape(self.positions)
        title = "System: " + "".join(f"{n} replicas of " for n in batch) + f"{n_atoms} atoms"
        rows: dict[str, Any] = {}
        numbers, cell, pbc, fixed = map(concrete, (self.atomic_numbers, self.cell, self.pbc, self.fixed))
        if numbers is not None:
            first = numbers.reshape(-1, n_atoms)[0]
            n_padding = int(np.sum(first == 0))
            title += f", {formula(first[first > 0])}" + (f" and {n_padding} of padding" if n_padding else "")
        if cell is not None and pbc is not None:
            rows["cell"] = cell_summary(cell.reshape(-1, 3, 3)[0], pbc.reshape(-1, 3)[0])
        if fixed is not None:
            rows["fixed"] = f"{int(fixed.reshape(-1, n_atoms)[0].sum())} atoms"
        rows["positions"] = self.positions
        return title, rows

    @property
    def n_atoms(self) -> int:
        """Number of atoms, padding included."""
        return self.positions.shape[-2]

    @property
    def is_mobile(self) -> Bool[Array | np.ndarray, "*batch atoms"]:
        """Which atoms move: neither padding nor fixed; bool [atoms]."""
        real = self.atomic_numbers > 0
        return real if self.fixed is None else real & ~self.fixed

    @property
    def holds_atoms(self) -> Bool[Array | np.ndarray, "*batch"]:
        """Whether any atom is fixed, so that momentum is not conserved; bool []."""
        if self.fixed is None:
            return jnp.zeros(self.atomic_numbers.shape[:-1], bool)
        return jnp.any(self.fixed & (self.atomic_numbers > 0), axis=-1)

    @property
    def volume(self) -> Float[Array, "*batch"]:
        """Volume of the cell [Å³]; meaningful when all three directions are periodic."""
        return jnp.abs(signed_volume(jnp.asarray(self.cell)))

    def replace(self, **changes: Any) -> System:
        """A copy with some fields replaced, as `dataclasses.replace`."""
        return dataclasses.replace(self, **changes)


def host_system(
    positions: Any,
    atomic_numbers: Any,
    *,
    masses: Any = None,
    cell: Any = None,
    pbc: Any = None,
    fixed: Any = None,
) -> System:
    """`make_system` for data sets: a `System` of NumPy arrays, without JAX (host).

    Args:
        positions: as in `make_system`.
        atomic_numbers: as in `make_system`.
        masses: as in `make_system`.
        cell: as in `make_system`.
        pbc: as in `make_system`.
        fixed: as in `make_system`.

    Returns:
        The `System`; float64, atomic numbers int32.

    Raises:
        InputError: as `make_system`.
    """
    pos = finite_floats("positions", positions)
    if pos.ndim != 2 or pos.shape[1] != 3 or pos.shape[0] == 0:
        raise InputError(f"positions must have shape [atoms ≥ 1, 3], got {list(pos.shape)}")
    numbers = np.asarray(atomic_numbers)
    if numbers.shape != pos.shape[:1]:
        raise InputError(f"atomic_numbers has shape {list(numbers.shape)} but positions has {len(pos)} atoms")
    if not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"atomic_numbers must be integers, got dtype {numbers.dtype}")
    wrong = (numbers < 0) | (numbers > 118)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise InputError(f"atomic_numbers[{i}] = {numbers[i]} is not in 0 (padding) .. 118")
    real = numbers > 0
    if masses is None:
        from ase.data import atomic_masses

        mass = np.where(real, atomic_masses[numbers], 1.0)
    else:
        mass = finite_floats("masses", masses)
        if mass.shape != pos.shape[:1]:
            raise InputError(f"masses has shape {list(mass.shape)} but positions has {pos.shape[0]} atoms")
        if (mass <= 0).any():
            i = int(np.argmax(mass <= 0))
            raise InputError(f"masses[{i}] = {mass[i]} amu must be positive (padding atoms too)")
    box, periodic = cell_and_pbc(cell, pbc)
    check_distinct(pos[real], np.flatnonzero(real), box, periodic)
    # Copies of the arrays of the caller.
    fields: dict[str, Any] = {
        "positions": np.array(pos),
        "atomic_numbers": np.array(numbers, np.int32),
        "masses": np.array(mass),
        "cell": np.array(box),
        "pbc": np.array(periodic),
        "fixed": which_fixed(fixed, len(pos)),
    }
    return System(**fields)


def make_system(
    positions: Any,
    atomic_numbers: Any,
    *,
    masses: Any = None,
    cell: Any = None,
    pbc: Any = None,
    fixed: Any = None,
    dtype: Any = None,
) -> System:
    """Validate arrays and build a `System`.

    Args:
        positions: Cartesian [Å]; [atoms, 3].
        atomic_numbers: [atoms]; 0 is padding.
        masses: [amu], [atoms]; default: standard atomic weights from ASE.
        cell: [Å]; [3, 3] rows are lattice vectors, or [3] edges of a box; default: none.
        pbc: a bool or three; default: True with a cell, False without.
        fixed: atoms that do not move: their indices, or a bool for each; default: none.
        dtype: of the floating-point fields; default: JAX's (float32, or float64 with x64 enabled).

    Returns:
        The `System`.

    Raises:
        InputError: inconsistent shapes, values that are not finite, atomic numbers outside 0..118, masses
            ≤ 0, coinciding atoms, a singular cell, fixed atoms out of range, or not a floating-point dtype.
    """
    check_dtype(dtype)
    host = host_system(positions, atomic_numbers, masses=masses, cell=cell, pbc=pbc, fixed=fixed)
    return System(
        positions=floats(host.positions, dtype),
        atomic_numbers=jnp.asarray(host.atomic_numbers),
        masses=floats(host.masses, dtype),
        cell=floats(host.cell, dtype),
        pbc=jnp.asarray(host.pbc),
        fixed=None if host.fixed is None else jnp.asarray(host.fixed),
    )


def from_ase(atoms: ase.Atoms, *, dtype: Any = None) -> System:
    """Convert `ase.Atoms`, without velocities (see `difmd.integrators.draw_momenta`).

    Args:
        atoms: constraints other than `FixAtoms` are ignored with a warning.
        dtype: of the floating-point fields; default: JAX's.

    Returns:
        The validated `System`.

    Raises:
        InputError: as `make_system`; another object than `ase.Atoms`, or an atom without an element (X).
    """
    import ase

    check_type("atoms", atoms, ase.Atoms, "build one, or a System from arrays with difmd.make_system")
    if not atoms.numbers.all():
        i = int(np.argmin(atoms.numbers))
        raise InputError(f"atom {i} has no element (X): remove it, or set its atomic number")
    return make_system(
        atoms.get_positions(),
        atoms.get_atomic_numbers(),
        masses=atoms.get_masses(),
        cell=np.asarray(atoms.cell),
        pbc=atoms.pbc,
        fixed=_fixed_by_ase(atoms),
        dtype=dtype,
    )


def as_system(structure: Any) -> System:
    """A `System` as it is, and `ase.Atoms` converted by `from_ase` (host).

    Args:
        structure: `System` or `ase.Atoms`.

    Returns:
        The `System`, with consistent shapes.

    Raises:
        InputError: another object, or as `from_ase`.
    """
    if hasattr(structure, "get_atomic_numbers"):
        return from_ase(structure)
    check_system(structure)
    return structure


def atomic_number(species: Any) -> int:
    """The atomic number of a symbol such as "Ar", or of a number itself."""
    from ase.data import atomic_numbers

    is_number = isinstance(species, int | np.integer) and not isinstance(species, bool)
    number = int(species) if is_number else atomic_numbers.get(species) if isinstance(species, str) else None
    if number is None or not 0 < number <= 118:
        raise InputError(f"species {species!r} is neither a chemical symbol nor a number from 1 to 118")
    return number


def to_ase(system: System) -> ase.Atoms:
    """Convert to `ase.Atoms`, without padding atoms.

    Args:
        system: one system, without a dimension of replicas.

    Returns:
        The atoms, with float64 positions, masses and cell, and `FixAtoms` where some are fixed.

    Raises:
        InputError: another object, or several replicas.
    """
    check_single(system)
    import ase
    from ase.constraints import FixAtoms

    real = np.asarray(system.atomic_numbers) > 0
    fixed = None if system.fixed is None else FixAtoms(mask=np.asarray(system.fixed)[real])
    return ase.Atoms(
        numbers=np.asarray(system.atomic_numbers)[real],
        positions=np.asarray(system.positions, float)[real],
        masses=np.asarray(system.masses, float)[real],
        cell=np.asarray(system.cell, float),
        pbc=np.asarray(system.pbc),
        constraint=fixed,
    )


def check_system(system: Any) -> None:
    """Refuse other objects, and systems whose fields do not fit each other; works under jit."""
    if not isinstance(system, System):
        raise InputError(
            f"system is of type {type(system).__name__}: convert it with difmd.from_ase or build a "
            "System with difmd.make_system"
        )
    shape = np.shape(system.positions)
    if len(shape) not in (2, 3) or shape[-1] != 3:
        raise InputError(f"positions of a system must have shape [*replicas, atoms, 3], got {list(shape)}")
    batch, atoms = shape[:-2], shape[:-1]
    shapes = {"atomic_numbers": atoms, "masses": atoms, "cell": (*batch, 3, 3), "pbc": (*batch, 3)}
    if system.fixed is not None:
        shapes["fixed"] = atoms
    for name, expected in shapes.items():
        actual = np.shape(getattr(system, name))
        if actual != expected:
            raise InputError(
                f"{name} of a system have shape {list(actual)}, but positions {list(shape)}: it must be "
                f"{list(expected)}"
            )
    for name in ("masses", "cell"):
        kinds = [jax.dtypes.canonicalize_dtype(x.dtype) for x in (getattr(system, name), system.positions)]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"{name} of a system are {kinds[0]}, but positions {kinds[1]}: make all of one precision, "
                "as make_system(..., dtype=) does"
            )


def check_single(system: System) -> None:
    """`check_system`, and refuse several replicas; works under jit."""
    check_system(system)
    if np.ndim(system.positions) == 3:
        raise InputError(
            f"system holds {len(system.positions)} replicas, but one is expected: map with jax.vmap, or "
            "select one with jax.tree.map(lambda x: x[0], system)"
        )


def validate_system(system: System) -> None:
    """Run the checks of `make_system` on a `System` that was created in another way (host)."""
    host_system(
        system.positions,
        system.atomic_numbers,
        masses=system.masses,
        cell=system.cell,
        pbc=np.asarray(system.pbc),
        fixed=system.fixed,
    )


def _fixed_by_ase(atoms: ase.Atoms) -> np.ndarray | None:
    """Indices of atoms under `FixAtoms`, with a warning for other constraints."""
    from ase.constraints import FixAtoms

    indices: list[int] = []
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            indices += [int(i) for i in constraint.get_indices()]
        else:
            warnings.warn(f"{type(constraint).__name__} is ignored: only FixAtoms is read", stacklevel=3)
    return np.array(indices, int) if indices else None
