"""Tersoff's bond-order potential for silicon, carbon and germanium."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from difmd._internal.dtypes import floats
from difmd._internal.gather import add_at, take
from difmd.errors import InputError
from difmd.potentials.base import Params, Potential
from difmd.potentials.describe import described
from difmd.potentials.lennard_jones import lorentz_berthelot
from difmd.potentials.pair import PairValues, pair_table
from difmd.potentials.slots import Sites, slot_potential, types_of_pairs, virial_terms
from difmd.potentials.species import Species, as_species


class TersoffElement(NamedTuple):
    """Parameters of an element, named as in the paper.

    Attributes:
        A: repulsion [eV].
        B: attraction [eV].
        lambda_: decay of the repulsion [1/Å].
        mu: decay of the attraction [1/Å].
        beta: how soon bonds weaken one another.
        n: and how fast.
        c: strength of the angles.
        d: their sharpness.
        h: cosine of the angle with the strongest bonds.
        R: where the cut-off begins [Å].
        S: where it ends [Å].
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
"""Table I of Tersoff, Phys. Rev. B 39, 5566 (1989), with B of carbon as its erratum, Phys. Rev. B 41, 3248
(1990), has it."""

_CHI_1989 = {frozenset(("C", "Si")): 0.9776, frozenset(("Si", "Ge")): 1.00061}


@described
def tersoff(
    species: Species,
    *,
    elements: Mapping[str, TersoffElement | Sequence[float]] = TERSOFF_1989,
    chi: PairValues | None = None,
) -> Potential:
    """Pairs whose attraction depends on how many neighbours share in it, and at which angles.

        U = ½ Σ_i Σ_j f_ij [A_ij e^{−λ_ij r} − χ_ij b_ij B_ij e^{−μ_ij r}],
        b_ij = (1 + (β_i ζ_ij)^n_i)^{−1/2n_i},
        ζ_ij = Σ_{k≠j} f_ik g_i(θ_ijk),   g_i = 1 + c²/d² − c²/(d² + (h − cos θ)²),

    and f falls from 1 at R to 0 at S as ½ + ½ cos(π (r − R)/(S − R)). Unlike pairs: A, B, R, S are
    geometric, λ and μ arithmetic means. The cut-offs are no params.

    Args:
        species: symbols or atomic numbers.
        elements: parameters of each; default: those of 1989, for C, Si and Ge.
        chi: χ_ij, one for all unlike pairs or a symmetric table; default: 1, and what the paper has for Si–C
            and Si–Ge if these elements have its parameters.

    Returns:
        `Potential`; its params are `{"A", "B", "lambda", "mu", "beta", "n", "c", "d", "h"}`, each [species],
        and `"chi"`, [species, species], of which the symmetric part off the diagonal counts.

    Raises:
        InputError: an element without parameters, values out of range, or as `slot_potential`.

    References:
        Tersoff, Phys. Rev. B 39, 5566 (1989), doi:10.1103/PhysRevB.39.5566; erratum 41, 3248 (1990).
    """
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] for z in as_species(species)]
    n_types = len(symbols)
    missing = [name for name in symbols if name not in elements]
    if missing:
        raise InputError(
            f"no parameters for {', '.join(missing)}: pass them as elements, a mapping of symbols; there are "
            f"{', '.join(elements)}"
        )
    # Loaded from a file they are plain numbers.
    chosen = {name: TersoffElement(*elements[name]) for name in symbols}
    for name, element in chosen.items():
        positive = [x for key, x in element._asdict().items() if key != "h"]
        if not all(math.isfinite(x) and x > 0 for x in positive) or not -1 <= element.h <= 1:
            raise InputError(f"{name}: {element} must have positive values, and h between −1 and 1")
        if not element.R < element.S:
            raise InputError(f"{name}: R = {element.R} Å must be below S = {element.S} Å")
    if chi is None:
        published = {name for name in symbols if chosen[name] == TERSOFF_1989.get(name)}
        chi = [
            [_CHI_1989.get(frozenset((a, b)), 1.0) if {a, b} <= published else 1.0 for b in symbols]
            for a in symbols
        ]
    factors = np.where(np.eye(n_types, dtype=bool), 1, pair_table("chi", chi, n_types))
    ends = np.array([[element.R, element.S] for element in chosen.values()])
    between = np.sqrt(ends[:, None] * ends[None, :])  # [species, species, 2]
    names = ("A", "B", "lambda_", "mu", "beta", "n", "c", "d", "h")

    def init(key: Array) -> Params:
        del key
        params = {
            name.rstrip("_"): floats([getattr(element, name) for element in chosen.values()])
            for name in names
        }
        return params | {"chi": floats(factors)}

    def tables(params: Params, dtype: Any) -> tuple[dict[str, Array], dict[str, Array]]:
        """What centers and what pairs need."""
        single = {name.rstrip("_"): jnp.asarray(params[name.rstrip("_")], dtype) for name in names}
        weight = jnp.asarray(params["chi"], dtype)
        wrong = [name for name, x in single.items() if x.shape != (n_types,)]
        if wrong or weight.shape != (n_types, n_types):
            raise InputError(f"params of {n_types} species: give one entry a species, as `init` does")
        decay_a, repulsion = lorentz_berthelot(single["lambda"], single["A"])
        decay_b, attraction = lorentz_berthelot(single["mu"], single["B"])
        like = jnp.eye(n_types, dtype=bool)
        pair = {
            "A": repulsion,
            "B": attraction * jnp.where(like, 1, 0.5 * (weight + weight.T)),
            "lambda": decay_a,
            "mu": decay_b,
            "R": jnp.asarray(between[..., 0], dtype),
            "S": jnp.asarray(between[..., 1], dtype),
        }
        return single, pair

    def energies_of(params: Params, apart: list[Array], sites: Sites) -> Array:
        """Energies of the centers from r_ij; components of [slots, atoms]."""
        single, pair = tables(params, apart[0].dtype)
        if n_types == 1:
            own = {name: x[0] for name, x in single.items()}
            both = {name: x[0, 0] for name, x in pair.items()}
        else:
            here, type_of = types_of_pairs(n_types, sites)
            there = type_of(sites.indices)
            own = {name: take(x, here) for name, x in single.items()}
            both = {name: take(x.reshape(-1), here[None, :] * n_types + there) for name, x in pair.items()}
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
                off = own["h"] - sum(a * b for a, b in zip(unit_j, unit_k, strict=True))
                c2, d2 = own["c"] ** 2, own["d"] ** 2
                # c²/d² − c²/(d² + off²) without the difference of two large numbers.
                g = 1 + c2 * off * off / (d2 * (d2 + off * off))
                return zeta + jnp.where(k == j, 0, f_k * g), None

            zeta, _ = lax.scan(angle, jnp.zeros_like(total), (slots, unit, f))
            # ζⁿ has no slope at zero, where a bond is alone.
            shared = zeta > 0
            power = jnp.where(shared, (own["beta"] * jnp.where(shared, zeta, 1)) ** own["n"], 0)
            order = (1 + power) ** (-0.5 / own["n"])
            return total - 0.5 * f_j * order * attraction_j, None

        total, _ = lax.scan(jax.checkpoint(bond), total, (slots, unit, f, attraction))
        return total

    def edges(xyz: list[Array], sites: Sites) -> list[Array]:
        return [take(x, sites.indices) - take(x, sites.centers)[None, :] for x in xyz]

    def energies(params: Params, xyz: list[Array], sites: Sites) -> Array:
        return energies_of(params, edges(xyz, sites), sites)

    def derivative(
        params: Params, xyz: list[Array], sites: Sites, *, with_virial: bool
    ) -> tuple[list[Array], list[Array] | None]:
        apart = edges(xyz, sites)
        value, pullback = jax.vjp(lambda d: energies_of(params, d, sites), apart)
        (pull,) = pullback(jnp.ones_like(value))
        n_extended, n_atoms = len(sites.parents), len(sites.types)
        forces = []
        for slope in pull:
            # The neighbours get the opposite; what lies behind the extended positions gets nothing.
            on_images = add_at(n_extended + 2, sites.indices, slope)[:n_extended]
            on_atoms = add_at(n_atoms, sites.parents, on_images)
            forces.append(jnp.sum(slope, axis=0) - take(on_atoms, sites.order))
        if not with_virial:
            return forces, None
        return forces, [jnp.sum(x, axis=0) for x in virial_terms(pull, apart, seen=1)]

    return slot_potential(energies, derivative, init=init, species=species, cutoff=float(ends[:, 1].max()))
