"""The potential of Stillinger and Weber for tetrahedral solids and their melts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.dtypes import floats
from difmd._internal.gather import take
from difmd.errors import InputError
from difmd.potentials.base import Params, Potential
from difmd.potentials.describe import described
from difmd.potentials.embedding import Contribution, embedding_potential
from difmd.potentials.pair import PairValues, pair_table, pair_tables, symmetric
from difmd.potentials.slots import checked_tables, entry
from difmd.potentials.species import Species, as_species

# Nearer to the cut-off than this share of it e^{σ/(r − rc)} is below 1e-40, and is left out: at the cut-off
# itself its derivatives, powers of 1/(r − rc) times it, are 0 · ∞.
_MARGIN = 1e-3
_LARGEST_A = 10.0


@described
def stillinger_weber(
    species: Species,
    *,
    epsilon: PairValues,
    sigma: PairValues,
    lambda_: float | Sequence[Sequence[Sequence[float]]] | np.ndarray = 21.0,
    a: PairValues = 1.8,
    A: PairValues = 7.049556277,
    B: PairValues = 0.6022245584,
    gamma: float = 1.2,
    cos_theta: float = -1 / 3,
    p: float = 4,
    q: float = 0,
) -> Potential:
    """Pairs and angles with a preferred cos θ₀; the shape of silicon unless told otherwise.

        U = Σ_{i<j} A ε [B (σ/r)^p − (σ/r)^q] e^{σ/(r − rc)}
            + Σ_i Σ_{j<k} λ ε_jk (cos θ_jik − cos θ₀)² e^{γσ/(r_ij − rc)} e^{γσ/(r_ik − rc)},    rc = a σ,

    with ε_jk = √(ε_ij ε_ik). Sums over neighbours stand for the sum over triplets, so that the cost grows
    with the number of pairs. The cut-offs are those of this call and stay when σ in the params changes.

    Args:
        species: symbols or atomic numbers.
        epsilon: ε [eV], one for all pairs or a symmetric table of the species. Silicon: 2.1683.
        sigma: σ [Å], likewise. Silicon: 2.0951.
        lambda_: λ, one for all or a table [i, j, k] of the center and its two neighbours.
        a: cut-off over σ, one for all pairs or a symmetric table.
        A: strength of the pairs, likewise.
        B: their repulsion, likewise; may be zero.
        gamma: γ.
        cos_theta: cos θ₀.
        p: exponent of the repulsion.
        q: exponent of the attraction, below p.

    Returns:
        `Potential`; its params are `{"epsilon", "sigma", "A", "B"}`, each [species, species], and
        `"lambda"`, [species, species, species], of which the symmetric part counts.

    Raises:
        InputError: values not positive, tables of another size or not symmetric, or as
            `embedding_potential`.

    References:
        Stillinger & Weber, Phys. Rev. B 31, 5262 (1985), doi:10.1103/PhysRevB.31.5262.
    """
    n_types = len(as_species(species))
    given = np.asarray(lambda_, np.float64)
    angles = np.broadcast_to(given, (n_types,) * 3) if given.ndim == 0 else given
    if angles.shape != (n_types,) * 3 or not np.array_equal(angles, angles.swapaxes(1, 2)):
        raise InputError(
            f"lambda_ has shape {angles.shape}: give one value, or a table [{n_types}, {n_types}, {n_types}] "
            "of center and neighbours that does not change when these are exchanged"
        )
    if not (np.isfinite(angles) & (angles >= 0)).all():
        raise InputError(f"lambda_ = {angles.tolist()} must be finite and not negative")
    for name, value in (("gamma", gamma), ("cos_theta", cos_theta), ("p", p), ("q", q)):
        if not math.isfinite(value):
            raise InputError(f"{name} = {value} must be finite")
    if not gamma > 0 or not -1 <= cos_theta <= 1 or not p > q >= 0:
        raise InputError(
            f"gamma = {gamma} must be positive, cos_theta = {cos_theta} between −1 and 1, and p = {p} "
            f"greater than q = {q}, which must not be negative"
        )
    gamma, cos_theta = float(gamma), float(cos_theta)
    # A whole power is a few products.
    p, q = (int(x) if float(x).is_integer() else float(x) for x in (p, q))
    pairs = pair_tables(n_types, may_vanish=("B",), epsilon=epsilon, sigma=sigma, A=A, B=B)
    reach = pair_table("a", a, n_types)
    if reach.max() > _LARGEST_A * min(1, gamma):
        raise InputError(
            f"a = {reach.max()} with gamma = {gamma}: energies would end with a jump; a may be at most "
            f"{_LARGEST_A}, and {_LARGEST_A} × gamma"
        )
    ends = reach * pair_table("sigma", sigma, n_types)

    def init(key: Array) -> Params:
        return {**pairs(key), "lambda": floats(angles)}

    def tables(params: Params, dtype: Any) -> dict[str, Any]:
        found = checked_tables(params, n_types, dtype)
        angle = found.pop("lambda")
        found = symmetric(found)
        root = jnp.sqrt(found["epsilon"])
        angle = 0.5 * (angle + angle.swapaxes(1, 2)) * root[:, :, None] * root[:, None, :]
        return {"pair": {**found, "end": jnp.asarray(ends, dtype)}, "angle": angle}

    def neighbor(table: Any, i: Any, j: Any, apart: list[Array]) -> Contribution:
        pair = {name: entry(x, i, j) for name, x in table["pair"].items()}
        r_squared = apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
        near = r_squared < ((1 - _MARGIN) * pair["end"]) ** 2
        r = jnp.sqrt(jnp.where(near, r_squared, (0.5 * pair["end"]) ** 2))
        sigma = pair["sigma"]
        ratio, edge = sigma / r, sigma / (r - pair["end"])
        energy = pair["A"] * pair["epsilon"] * (pair["B"] * ratio**p - ratio**q) * jnp.exp(edge)
        h = jnp.where(near, jnp.exp(gamma * edge), 0)
        x, y, z = (jnp.where(near, d, 0) / r for d in apart)
        moments = [h, h * x, h * y, h * z]
        moments += [h * x * x, h * y * y, h * z * z, h * y * z, h * x * z, h * x * y]
        turned = [-m if 0 < k < 4 else m for k, m in enumerate(moments)]
        sums, back = [h * h * strength(table["angle"], i, j, j)], [h * h * strength(table["angle"], j, i, i)]
        for kind in range(n_types):
            sums += moments if j is None else [jnp.where(j == kind, m, 0) for m in moments]
            back += turned if i is None else [jnp.where(i == kind, m, 0) for m in turned]
        return Contribution(jnp.where(near, energy, 0), sums, back)

    def embed(table: Any, i: Any, sums: list[Array]) -> Array:
        # Σ_{j<k} h_j h_k (cos θ − c)² is half the sum over all j and k, less that of j = k.
        total = -0.5 * (1 - cos_theta) ** 2 * sums[0]
        moments = [sums[1 + 10 * s : 11 + 10 * s] for s in range(n_types)]
        for j in range(n_types):
            for k in range(n_types):
                m, n = moments[j], moments[k]
                squares = sum(m[c] * n[c] * (1 if c < 7 else 2) for c in range(4, 10))
                cosines = sum(m[c] * n[c] for c in range(1, 4))
                both = squares - 2 * cos_theta * cosines + cos_theta**2 * m[0] * n[0]
                total = total + 0.5 * strength(table["angle"], i, j, k) * both
        return total

    def strength(angle: Array, i: Any, j: Any, k: Any) -> Array:
        if i is None:
            return angle[0, 0, 0]
        return take(angle.reshape(-1), (i * n_types + j) * n_types + k)

    return embedding_potential(
        neighbor, embed, init=init, tables=tables, species=species, cutoff=float(ends.max())
    )
