"""The embedded-atom method with tabulated functions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd.errors import InputError, check_positive
from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.embedding import Contribution, embedding_potential
from difmd.potentials.pair import symmetric
from difmd.potentials.slots import Row, entry
from difmd.potentials.species import Species, as_species, symbols
from difmd.potentials.splines import coefficients, spline


@described
def embedded_atom(
    species: Species, *, dr: float, pair: Any, density: Any, drho: float, embedding: Any, cutoff: float
) -> Potential:
    """U = Σ_i F_i(Σ_j ρ_ij(r_ij)) + ½ Σ_i Σ_j φ_ij(r_ij), all three functions cubic splines of tables.

    Tables begin at zero, as in files of the setfl format. Beyond its last density F continues as a straight
    line; the other functions are truncated at the cut-off.

    Args:
        species: symbols or atomic numbers.
        dr: spacing of the distances [Å].
        pair: r φ(r) [eV Å]; [species, species, distances], symmetric.
        density: contribution of j to the density of i; [j, distances], or [i, j, distances] where it
            depends on both (the form of Finnis and Sinclair).
        drho: spacing of the densities.
        embedding: F [eV]; [species, densities].
        cutoff: [Å]; at most a spacing beyond the last distance, up to which the last polynomial continues.

    Returns:
        `Potential`; its params are `{"pair", "density", "embedding"}`, coefficients of cubic B-splines, two
        more than points.

    Raises:
        InputError: tables whose shapes do not match or that are not finite, spacings not positive, a
            cut-off beyond the tables, or as `embedding_potential`.

    References:
        Daw & Baskes, Phys. Rev. B 29, 6443 (1984), doi:10.1103/PhysRevB.29.6443. Finnis & Sinclair, Philos.
        Mag. A 50, 45 (1984), doi:10.1080/01418618408244210.
    """
    numbers = as_species(species)
    check_positive("dr", dr, "Å")
    check_positive("drho", drho, "in the units of the density")
    start = _spline_tables(len(numbers), pair, density, embedding)
    n_r, n_rho = start["pair"].shape[-1] - 2, start["embedding"].shape[-1] - 2
    dr, drho, cutoff = float(dr), float(drho), float(cutoff)
    # Files often give a cut-off one spacing beyond their last point.
    if cutoff > n_r * dr * (1 + 1e-9):
        end = f"{(n_r - 1) * dr:.6g} Å"
        raise InputError(
            f"cutoff = {cutoff} Å lies more than a spacing beyond the tables, which end at {end}"
        )

    def tables(params: Params, dtype: Any) -> dict[str, Array]:
        symmetrised = {**params, **symmetric({"pair": params["pair"]})}
        return {name: jnp.asarray(symmetrised[name], dtype) for name in start}

    def neighbor(table: Any, i: Any, j: Any, apart: list[Array]) -> Contribution:
        r_squared = apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
        inside = r_squared < cutoff**2
        r = jnp.sqrt(jnp.where(inside, r_squared, cutoff**2))
        phi = spline(entry(table["pair"], i, j), r / dr, n_r) / r
        rho, back = (spline(entry(table["density"], *pair), r / dr, n_r) for pair in ((i, j), (j, i)))
        phi, rho, back = (jnp.where(inside, x, 0) for x in (phi, rho, back))
        return Contribution(phi, [rho], [back])

    def embed(table: Any, i: Any, sums: list[Array]) -> Array:
        depth = n_rho + 2
        row = Row(table["embedding"].reshape(-1), 0 if i is None else i * depth)
        x = sums[0] / drho
        within = jnp.minimum(x, n_rho - 1)
        last = jnp.full(x.shape, depth - 1, jnp.int32)
        slope = 0.5 * (row.at(last) - row.at(last - 2))
        return spline(row, within, n_rho) + slope * (x - within)

    init = constant_init(**start)
    return embedding_potential(neighbor, embed, init=init, tables=tables, species=numbers, cutoff=cutoff)


def _spline_tables(n_types: int, pair: Any, density: Any, embedding: Any) -> dict[str, np.ndarray]:
    """Check the tables, and return the coefficients of their splines."""
    phi, rho, f = (np.asarray(x, np.float64) for x in (pair, density, embedding))
    n_r, n_rho = phi.shape[-1], f.shape[-1]
    if rho.ndim == 2:
        rho = np.broadcast_to(rho, (n_types, *rho.shape))
    expected = {
        "pair": (phi, (n_types, n_types, n_r)),
        "density": (rho, (n_types, n_types, n_r)),
        "embedding": (f, (n_types, n_rho)),
    }
    for name, (table, shape) in expected.items():
        if table.shape != shape or shape[-1] < 4:
            raise InputError(f"{name} has shape {table.shape}, expected {shape} with at least four points")
        if not np.isfinite(table).all():
            raise InputError(f"{name} is not finite")
    if not np.array_equal(phi, phi.swapaxes(0, 1)):
        raise InputError("pair must be the same for i, j and j, i")
    return {name: coefficients(table) for name, (table, _) in expected.items()}


def read_eam(path: str | os.PathLike[str], species: Species | None = None) -> Potential:
    """`embedded_atom` from a file `.eam`, `.alloy` or `.fs` of LAMMPS and ASE.

    Args:
        path: the file; its suffix is the format.
        species: symbols or atomic numbers, in this order; default: all in the file.

    Returns:
        `Potential`; see `embedded_atom`.

    Raises:
        InputError: no such file, one that cannot be read, or a species that is missing from it.
    """
    from ase.calculators.eam import EAM
    from ase.units import Bohr, Hartree

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.suffix not in (".eam", ".alloy", ".fs"):
        raise InputError(f"{file}: the name must end in .eam, .alloy or .fs")
    try:
        table = EAM(potential=str(file))
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{file} is not a table of the embedded-atom method: {error}") from error
    elements = list(table.elements)
    names = elements if species is None else symbols(as_species(species))
    unknown = [name for name in names if name not in elements]
    if unknown or not names:
        raise InputError(f"{file} has no {', '.join(unknown) or 'species'}; it has {', '.join(elements)}")
    at = [elements.index(name) for name in names]
    # Only one half is filled. Charges of a .eam file are in the units that LAMMPS documents, which differ
    # slightly from those of ASE.
    upper = np.asarray(table.rphi_data) * (27.2 * 0.529 / (Bohr * Hartree) if file.suffix == ".eam" else 1)
    phi = upper + np.where(np.eye(len(elements), dtype=bool)[:, :, None], 0, upper.swapaxes(0, 1))
    density = np.asarray(table.density_data)
    # With two indices, the first is the atom that makes the density, the second the atom at which it acts.
    density = density[np.ix_(at, at)].swapaxes(0, 1) if density.ndim == 3 else density[at]
    return embedded_atom(
        names,
        dr=table.dr,
        pair=phi[np.ix_(at, at)],
        density=density,
        drho=table.drho,
        embedding=np.asarray(table.embedded_data)[at],
        cutoff=table.cutoff,
    )
