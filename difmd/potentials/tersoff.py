"""Tersoff's bond-order potential for silicon, carbon and germanium."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from difmd._internal.gather import add_at, take
from difmd.errors import InputError
from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.lennard_jones import lorentz_berthelot
from difmd.potentials.pair import PairValues, pair_table
from difmd.potentials.slots import Sites, slot_potential, types_of_pairs, virial_terms
from difmd.potentials.species import Species, as_species, symbols


class TersoffElement(NamedTuple):
    """Parameters of an element with the names of the paper.

    Attributes:
        A: repulsion [eV].
        B: attraction [eV].
        lambda_: decay of the repulsion [1/Å].
        mu: decay of the attraction [1/Å].
        beta: β, onset of the weakening by other bonds.
        n: its exponent.
        c: strength of the dependence on angles.
        d: its width.
        h: cosine of the angle with the strongest bonds.
        R: distance at which the cut-off begins [Å].
        S: distance at which it ends [Å].
    """

    A: float
    B: float
    lambda_: float
    mu: float
    beta: float
    n: float
    c: float
    d: float
    h: float
    R: float
    S: float


TERSOFF_1989: Mapping[str, TersoffElement] = {
    "C": TersoffElement(
        1.3936e3, 3.4674e2, 3.4879, 2.2119, 1.5724e-7, 0.72751, 3.8049e4, 4.3484, -0.57058, 1.8, 2.1
    ),
    "Si": TersoffElement(
        1.8308e3, 4.7118e2, 2.4799, 1.7322, 1.1e-6, 0.78734, 1.0039e5, 16.217, -0.59825, 2.7, 3.0
    ),
    "Ge": TersoffElement(
        1.769e3, 4.1923e2, 2.4451, 1.7047, 9.0166e-7, 0.75627, 1.0643e5, 15.652, -0.43884, 2.8, 3.1
    ),
}
"""Table I of Tersoff, Phys. Rev. B 39, 5566 (1989), and B of carbon from its erratum, Phys. Rev. B 41, 3248
(1990)."""

_Tables: TypeAlias = tuple[dict[str, Array], dict[str, Array]]

_FITTED = ("A", "B", "lambda_", "mu", "beta", "n", "c", "d", "h")
_CHI_1989 = {frozenset(("C", "Si")): 0.9776, frozenset(("Si", "Ge")): 1.00061}


@described
def tersoff(
    species: Species,
    *,
    elements: Mapping[str, TersoffElement | Sequence[float]] = TERSOFF_1989,
    chi: PairValues | None = None,
) -> Potential:
    """Pairs whose attraction weakens with the number and angles of the other neighbours.

        U = ½ Σ_i Σ_j f_ij [A_ij e^{−λ_ij r} − χ_ij b_ij B_ij e^{−μ_ij r}],
        b_ij = (1 + (β_i ζ_ij)^n_i)^{−1/2n_i},
        ζ_ij = Σ_{k≠j} f_ik g_i(θ_ijk),   g_i = 1 + c²/d² − c²/(d² + (h − cos θ)²),

    and f falls from 1 at R to 0 at S as ½ + ½ cos(π (r − R)/(S − R)). Unlike pairs: A, B, R, S are
    geometric, λ and μ arithmetic means. The cut-offs R and S are fixed.

    Args:
        species: symbols or atomic numbers.
        elements: parameters of each element; default: those of 1989, for C, Si and Ge.
        chi: χ_ij, one for all unlike pairs or a symmetric table; default: 1, and the values of the paper for
            Si–C and Si–Ge if these elements have its parameters.

    Returns:
        `Potential`; its params are `{"A", "B", "lambda", "mu", "beta", "n", "c", "d", "h"}`, each [species],
        and `"chi"`, [species, species]; only its symmetric part off the diagonal counts.

    Raises:
        InputError: an element without parameters, values out of range, or an unknown or repeated species.

    References:
        Tersoff, Phys. Rev. B 39, 5566 (1989), doi:10.1103/PhysRevB.39.5566; erratum 41, 3248 (1990).
    """
    numbers = as_species(species)
    names = symbols(numbers)
    chosen = _chosen(names, elements)
    terms = _TersoffTerms(len(numbers), np.array([[element.R, element.S] for element in chosen.values()]))
    factors = _published_chi(names, chosen) if chi is None else pair_table("chi", chi, len(names))
    factors = np.where(np.eye(len(names), dtype=bool), 1, factors)

    values = {name.rstrip("_"): [getattr(element, name) for element in chosen.values()] for name in _FITTED}
    init = constant_init(**values, chi=factors)
    cutoff = float(terms.ends[:, 1].max())
    return slot_potential(terms.energies, terms.derivative, init=init, species=numbers, cutoff=cutoff)


def _chosen(
    names: Sequence[str], elements: Mapping[str, TersoffElement | Sequence[float]]
) -> dict[str, TersoffElement]:
    missing = [name for name in names if name not in elements]
    if missing:
        raise InputError(
            f"no parameters for {', '.join(missing)}: pass them as elements, a mapping of symbols; there are "
            f"{', '.join(elements)}"
        )
    # A file contains plain numbers.
    chosen = {name: TersoffElement(*elements[name]) for name in names}
    for name, element in chosen.items():
        positive = [x for key, x in element._asdict().items() if key != "h"]
        if not all(math.isfinite(x) and x > 0 for x in positive) or not -1 <= element.h <= 1:
            raise InputError(f"{name}: {element} must have positive values, and h between −1 and 1")
        if not element.R < element.S:
            raise InputError(f"{name}: R = {element.R} Å must be below S = {element.S} Å")
    return chosen


def _published_chi(names: Sequence[str], chosen: Mapping[str, TersoffElement]) -> np.ndarray:
    """χ of pairs of elements with the parameters of the paper, 1 for others."""
    published = {name for name in names if chosen[name] == TERSOFF_1989.get(name)}
    pairs = [{a, b} for a in names for b in names]
    chi = [_CHI_1989.get(frozenset(pair), 1.0) if pair <= published else 1.0 for pair in pairs]
    return np.reshape(chi, (len(names), len(names)))


@dataclasses.dataclass(frozen=True, eq=False)
class _TersoffTerms:
    """Energies and derivatives of `tersoff`; `ends` are R and S of the species [Å], [species, 2]."""

    n_types: int
    ends: np.ndarray

    def tables(self, params: Params, dtype: Any) -> _Tables:
        """Parameters of centers and of pairs."""
        single = {name.rstrip("_"): jnp.asarray(params[name.rstrip("_")], dtype) for name in _FITTED}
        chi = jnp.asarray(params["chi"], dtype)
        decay_a, repulsion = lorentz_berthelot(single["lambda"], single["A"])
        decay_b, attraction = lorentz_berthelot(single["mu"], single["B"])
        like = jnp.eye(self.n_types, dtype=bool)
        between = np.sqrt(self.ends[:, None] * self.ends[None, :])  # [species, species, 2]
        pair = {
            "A": repulsion,
            "B": attraction * jnp.where(like, 1, 0.5 * (chi + chi.T)),
            "lambda": decay_a,
            "mu": decay_b,
            "R": jnp.asarray(between[..., 0], dtype),
            "S": jnp.asarray(between[..., 1], dtype),
        }
        return single, pair

    def parameters(self, params: Params, sites: Sites, dtype: Any) -> _Tables:
        """Parameters of each center, and of each of its neighbours."""
        single, pair = self.tables(params, dtype)
        if self.n_types == 1:
            return {name: x[0] for name, x in single.items()}, {name: x[0, 0] for name, x in pair.items()}
        types, type_of_neighbor = types_of_pairs(self.n_types, sites)
        neighbor_types = type_of_neighbor(sites.indices)
        center = {name: take(x, types) for name, x in single.items()}
        places = types[None, :] * self.n_types + neighbor_types
        return center, {name: take(x.reshape(-1), places) for name, x in pair.items()}

    def bond_energies(self, params: Params, apart: list[Array], sites: Sites) -> Array:
        """Energies of the centers from r_ij; components of [slots, atoms]."""
        center, both = self.parameters(params, sites, apart[0].dtype)
        r_squared = apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
        near = r_squared < both["S"] ** 2
        r = jnp.sqrt(jnp.where(near, r_squared, both["S"] ** 2))
        unit = [jnp.where(near, d, 0) / r for d in apart]
        x = (r - both["R"]) / (both["S"] - both["R"])
        fades = near & (x > 0)
        fading = 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.where(fades, x, 0))
        f = jnp.where(near, fading, 0)
        attraction = both["B"] * jnp.exp(-both["mu"] * r)
        total = jnp.sum(0.5 * f * both["A"] * jnp.exp(-both["lambda"] * r), axis=0)
        slots = jnp.arange(len(r), dtype=jnp.int32)

        def bond(total: Array, this: Any) -> tuple[Array, None]:
            j, unit_j, f_j, attraction_j = this

            def angle(zeta: Array, other: Any) -> tuple[Array, None]:
                k, unit_k, f_k = other
                off = center["h"] - sum(a * b for a, b in zip(unit_j, unit_k, strict=True))
                c2, d2 = center["c"] ** 2, center["d"] ** 2
                # c²/d² − c²/(d² + off²) without the difference of two large numbers.
                g = 1 + c2 * off * off / (d2 * (d2 + off * off))
                return zeta + jnp.where(k == j, 0, f_k * g), None

            zeta, _ = lax.scan(angle, jnp.zeros_like(total), (slots, unit, f))
            # ζⁿ has no slope at zero, where a bond is alone.
            shared = zeta > 0
            power = jnp.where(shared, (center["beta"] * jnp.where(shared, zeta, 1)) ** center["n"], 0)
            order = (1 + power) ** (-0.5 / center["n"])
            return total - 0.5 * f_j * order * attraction_j, None

        total, _ = lax.scan(jax.checkpoint(bond), total, (slots, unit, f, attraction))
        return total

    def energies(self, params: Params, xyz: list[Array], sites: Sites) -> Array:
        """Energies of the centers."""
        return self.bond_energies(params, _edges(xyz, sites), sites)

    def derivative(
        self, params: Params, xyz: list[Array], sites: Sites, *, with_virial: bool
    ) -> tuple[list[Array], list[Array] | None]:
        """Forces and virial of the centers."""
        apart = _edges(xyz, sites)
        value, pullback = jax.vjp(lambda d: self.bond_energies(params, d, sites), apart)
        (pull,) = pullback(jnp.ones_like(value))
        n_extended, n_atoms = len(sites.parents), len(sites.types)
        forces = []
        for slope in pull:
            # Opposite forces act on the neighbours, none on the two points behind the extended positions.
            on_images = add_at(n_extended + 2, sites.indices, slope)[:n_extended]
            on_atoms = add_at(n_atoms, sites.parents, on_images)
            forces.append(jnp.sum(slope, axis=0) - take(on_atoms, sites.order))
        if not with_virial:
            return forces, None
        return forces, [jnp.sum(x, axis=0) for x in virial_terms(pull, apart, counted=1)]


def _edges(xyz: list[Array], sites: Sites) -> list[Array]:
    return [take(x, sites.indices) - take(x, sites.centers)[None, :] for x in xyz]
