"""The potential of Stillinger and Weber for tetrahedral solids and their melts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from difmd._internal.argument_checks import real_numbers
from difmd._internal.gather import take
from difmd.errors import InputError
from difmd.potentials.base import Params, Potential, constant_init
from difmd.potentials.describe import described
from difmd.potentials.embedding import Contribution, embedding_potential
from difmd.potentials.pair import PairValues, pair_table, pair_tables, symmetric
from difmd.potentials.slots import checked_tables, entry
from difmd.potentials.species import Species, as_species

# Closer to the cut-off than this fraction of it e^{σ/(r − rc)} is below 1e-40 and omitted: at the cut-off
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
    """Pairs and angles with a preferred cos θ₀; the defaults are those of silicon.

        U = Σ_{i<j} A ε [B (σ/r)^p − (σ/r)^q] e^{σ/(r − rc)}
            + Σ_i Σ_{j<k} λ ε_jk (cos θ_jik − cos θ₀)² e^{γσ/(r_ij − rc)} e^{γσ/(r_ik − rc)},    rc = a σ,

    with ε_jk = √(ε_ij ε_ik). Sums over neighbours replace the sum over triplets, so that the cost grows with
    the number of pairs. The cut-offs are fixed by this call, whatever σ in the params.

    Args:
        species: symbols or atomic numbers.
        epsilon: ε [eV], one for all pairs or a symmetric table of the species. Silicon: 2.1683.
        sigma: σ [Å], in the same form. Silicon: 2.0951.
        lambda_: λ, one for all or a table [i, j, k] of the center and its two neighbours.
        a: cut-off over σ, one for all pairs or a symmetric table.
        A: strength of the pairs, in the same form.
        B: their repulsion, in the same form; may be zero.
        gamma: γ.
        cos_theta: cos θ₀.
        p: exponent of the repulsion.
        q: exponent of the attraction, below p.

    Returns:
        `Potential`; its params are `{"epsilon", "sigma", "A", "B"}`, each [species, species], and
        `"lambda"`, [species, species, species]; only their symmetric parts count.

    Raises:
        InputError: values not positive, tables of another size or not symmetric, or as
            `embedding_potential`.

    References:
        Stillinger & Weber, Phys. Rev. B 31, 5262 (1985), doi:10.1103/PhysRevB.31.5262.
    """
    numbers = as_species(species)
    n_types = len(numbers)
    angles = _angle_table(lambda_, n_types)
    for name, value in (("gamma", gamma), ("cos_theta", cos_theta), ("p", p), ("q", q)):
        if not math.isfinite(value):
            raise InputError(f"{name} = {value} must be finite")
    if not gamma > 0 or not -1 <= cos_theta <= 1 or not p > q >= 0:
        raise InputError(
            f"gamma = {gamma} must be positive, cos_theta = {cos_theta} between −1 and 1, and p = {p} "
            f"greater than q = {q}, which must not be negative"
        )
    reach = pair_table("a", a, n_types)
    if reach.max() > _LARGEST_A * min(1, gamma):
        raise InputError(
            f"a = {reach.max()} with gamma = {gamma}: the energy would jump at the cut-off; a may be at most "
            f"{_LARGEST_A}, and {_LARGEST_A} × gamma"
        )
    pairs = pair_tables(n_types, may_vanish=("B",), epsilon=epsilon, sigma=sigma, A=A, B=B)
    # An integer power is a few products.
    p, q = (int(x) if float(x).is_integer() else float(x) for x in (p, q))
    ends = reach * pair_table("sigma", sigma, n_types)
    terms = _Terms(n_types, ends, float(gamma), float(cos_theta), p, q)

    init = constant_init(**pairs, **{"lambda": angles})
    return embedding_potential(
        terms.neighbor, terms.embed, init=init, tables=terms.tables, species=numbers, cutoff=float(ends.max())
    )


def _angle_table(lambda_: Any, n_types: int) -> np.ndarray:
    given = real_numbers("lambda_", lambda_)
    table = np.broadcast_to(given, (n_types,) * 3) if given.ndim == 0 else given
    if table.shape != (n_types,) * 3 or not np.array_equal(table, table.swapaxes(1, 2)):
        raise InputError(
            f"lambda_ has shape {table.shape}: give one value, or a table [{n_types}, {n_types}, {n_types}] "
            "of center and neighbours, symmetric in the neighbours"
        )
    if not (np.isfinite(table) & (table >= 0)).all():
        raise InputError(f"lambda_ = {table.tolist()} must be finite and not negative")
    return table


@dataclasses.dataclass(frozen=True, eq=False)
class _Terms:
    """The functions of `stillinger_weber`; `ends` are the cut-offs [Å], [species, species]."""

    n_types: int
    ends: np.ndarray
    gamma: float
    cos_theta: float
    p: float
    q: float

    def tables(self, params: Params, dtype: Any) -> dict[str, Any]:
        """Symmetric tables of pairs, and λ ε_jk of angles."""
        pair = checked_tables(params, self.n_types, dtype)
        angle = pair.pop("lambda")
        pair = symmetric(pair)
        root = jnp.sqrt(pair["epsilon"])
        angle = 0.5 * (angle + angle.swapaxes(1, 2)) * root[:, :, None] * root[:, None, :]
        return {"pair": {**pair, "end": jnp.asarray(self.ends, dtype)}, "angle": angle}

    def neighbor(self, table: Any, i: Any, j: Any, apart: list[Array]) -> Contribution:
        """Pair energy, and moments of the direction to the neighbour."""
        pair = {name: entry(x, i, j) for name, x in table["pair"].items()}
        r_squared = apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2
        near = r_squared < ((1 - _MARGIN) * pair["end"]) ** 2
        r = jnp.sqrt(jnp.where(near, r_squared, (0.5 * pair["end"]) ** 2))
        sigma = pair["sigma"]
        ratio, edge = sigma / r, sigma / (r - pair["end"])
        energy = pair["A"] * pair["epsilon"] * (pair["B"] * ratio**self.p - ratio**self.q) * jnp.exp(edge)
        h = jnp.where(near, jnp.exp(self.gamma * edge), 0)
        x, y, z = (jnp.where(near, d, 0) / r for d in apart)
        moments = [h, h * x, h * y, h * z]
        moments += [h * x * x, h * y * y, h * z * z, h * y * z, h * x * z, h * x * y]
        turned = [-m if 0 < k < 4 else m for k, m in enumerate(moments)]
        sums = [h * h * self.strength(table["angle"], i, j, j)]
        back = [h * h * self.strength(table["angle"], j, i, i)]
        for kind in range(self.n_types):
            sums += moments if j is None else [jnp.where(j == kind, m, 0) for m in moments]
            back += turned if i is None else [jnp.where(i == kind, m, 0) for m in turned]
        return Contribution(jnp.where(near, energy, 0), sums, back)

    def embed(self, table: Any, i: Any, sums: list[Array]) -> Array:
        """Energy of all angles at an atom."""
        # Σ_{j<k} h_j h_k (cos θ − c)² is half the sum over all j and k, less the terms with j = k.
        cos_theta = self.cos_theta
        total = -0.5 * (1 - cos_theta) ** 2 * sums[0]
        moments = [sums[1 + 10 * s : 11 + 10 * s] for s in range(self.n_types)]
        for j in range(self.n_types):
            for k in range(self.n_types):
                m, n = moments[j], moments[k]
                squares = sum(m[c] * n[c] * (1 if c < 7 else 2) for c in range(4, 10))
                cosines = sum(m[c] * n[c] for c in range(1, 4))
                both = squares - 2 * cos_theta * cosines + cos_theta**2 * m[0] * n[0]
                total = total + 0.5 * self.strength(table["angle"], i, j, k) * both
        return total

    def strength(self, angle: Array, i: Any, j: Any, k: Any) -> Array:
        """λ ε_jk of center i and neighbours j and k."""
        if i is None:
            return angle[0, 0, 0]
        return take(angle.reshape(-1), (i * self.n_types + j) * self.n_types + k)
