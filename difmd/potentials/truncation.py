"""Truncation of pair potentials at the cut-off, and the energy that it leaves out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from difmd._internal.argument_checks import real_numbers
from difmd._internal.lattice import signed_volume
from difmd.errors import InputError
from difmd.potentials.describe import described, summary

_Pair = Callable[[Any, Array], Array]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Truncation:
    """A truncation of φ at the cut-off.

    Attributes:
        end: `end(phi, cutoff)` → the pair function used for r < cutoff.
        missing: `missing(phi, pair, cutoff)` → ∫_0^rc r² (φ − φ_used) dr.
        onset: distance at which φ_used begins to differ in shape from φ [Å]; 0 if it does not.
        jumps: whether φ_used is discontinuous at the cut-off.
        description: factory and arguments, as for `Potential`.
    """

    end: Callable[[_Pair, float], _Pair]
    missing: Callable[[_Pair, Any, float], Array]
    onset: float
    jumps: bool
    # Not hashable.
    description: Mapping[str, Any] | None = dataclasses.field(default=None, compare=False)

    def __repr__(self) -> str:
        """The call that made it."""
        return summary(self.description) if self.description else "Truncation(functions)"


@described
def truncated() -> Truncation:
    """Cut φ off unchanged: the energy jumps at the cut-off, which does not show in the forces.

    Returns:
        The `Truncation`.
    """

    def missing(phi: _Pair, pair: Any, cutoff: float) -> Array:
        return jnp.zeros_like(phi(pair, _like(pair, cutoff**2)))

    return Truncation(end=lambda phi, cutoff: phi, missing=missing, onset=0.0, jumps=True)


@described
def shifted() -> Truncation:
    """Shift φ to zero at the cut-off: continuous energy, the forces of `truncated`.

    Returns:
        The `Truncation`.
    """

    def end(phi: _Pair, cutoff: float) -> _Pair:
        return lambda pair, r_squared: phi(pair, r_squared) - phi(pair, jnp.full_like(r_squared, cutoff**2))

    def missing(phi: _Pair, pair: Any, cutoff: float) -> Array:
        return phi(pair, _like(pair, cutoff**2)) * cutoff**3 / 3

    return Truncation(end=end, missing=missing, onset=0.0, jumps=False)


@described
def switched(onset: float) -> Truncation:
    """Multiply φ by a switch from `onset` to the cut-off: energy twice continuously differentiable.

    The switch is 1 − 10x³ + 15x⁴ − 6x⁵ with x = (r² − onset²)/(cutoff² − onset²), in r² to avoid a
    square root.

    Args:
        onset: distance at which the switch begins [Å], below the cut-off.

    Returns:
        The `Truncation`.

    Raises:
        InputError: the onset is not a number.
    """
    if real_numbers("onset", onset).ndim:
        raise InputError(f"onset = {onset} Å must be a number")

    def end(phi: _Pair, cutoff: float) -> _Pair:
        def ended(pair: Any, r_squared: Array) -> Array:
            x = (r_squared - onset**2) / (cutoff**2 - onset**2)
            return phi(pair, r_squared) * _switch(jnp.where(x > 0, x, 0))

        return ended

    def missing(phi: _Pair, pair: Any, cutoff: float) -> Array:
        nodes, weights = _gauss_legendre(onset, cutoff)
        ended = end(phi, cutoff)

        def at(r: Array) -> Array:
            return r**2 * (phi(pair, r**2) - ended(pair, r**2))

        first, *others = (w * at(_like(pair, r)) for r, w in zip(nodes, weights, strict=True))
        return sum(others, first)

    return Truncation(end=end, missing=missing, onset=float(onset), jumps=False)


@jax.custom_jvp
def _switch(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 − 10x³ + 15x⁴ − 6x⁵."""
    return 1 - x * x * x * (10 - x * (15 - 6 * x))


@_switch.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # Term by term the derivative takes twice the operations, and forces spend most of theirs on it.
    (x,) = primals
    slope = x * (1 - x)
    return _switch(x), -30 * slope * slope * tangents[0]


def tail_energy(
    phi: _Pair,
    table: Any,
    counts: Float[Array, "species"],
    cell: Float[Array, "3 3"],
    cutoff: float,
    truncation: Truncation,
) -> Float[Array, ""]:
    """Energy left out by the cut-off when g(r) = 1 wherever φ_used differs from φ [eV].

    U = (2π/V) Σ_ab N_a N_b ∫ r² (φ_ab − φ_used,ab) dr. Its derivative in V is the usual correction of
    the pressure, −(2π/3V²) Σ_ab N_a N_b ∫_rc^∞ r³ φ'_ab dr, when φ_used is continuous. A potential that
    jumps at the cut-off has a virial that misses the impulse there; the derivative then includes it.
    φ, without a cut-off, must decay faster than r⁻³; `table` is a pytree of [species, species].
    """
    volume = jnp.abs(signed_volume(cell))
    nodes, weights = _gauss_legendre(0.0, 1.0)

    def beyond(pair: Any) -> Array:
        # r = rc/u: for a sum of inverse powers the integrand is a polynomial, and the rule is exact.
        first, *others = (
            w * cutoff**3 / u**4 * phi(pair, _like(pair, (cutoff / u) ** 2))
            for u, w in zip(nodes, weights, strict=True)
        )
        return sum(others, first)

    pairs = 2 * jnp.pi * counts[:, None] * counts[None, :]
    each = jax.vmap(jax.vmap(lambda p: beyond(p) + truncation.missing(phi, p, cutoff)))(table)
    energy = jnp.sum(pairs * each) / volume
    if not truncation.jumps:
        return energy
    edge = jax.vmap(jax.vmap(lambda p: phi(p, _like(p, cutoff**2))))(table)
    fixed = jax.lax.stop_gradient(volume)
    impulse = jnp.sum(pairs * edge) * cutoff**3 / 3 / fixed
    # Zero, but with the derivative in the volume that the jump has: d(impulse·(V₀/V))/dV at V₀ = V.
    return energy + impulse * (fixed / volume - 1)


def _like(pair: Any, value: float) -> Array:
    """A number in the precision of the parameters."""
    return jnp.asarray(value, jax.tree.leaves(pair)[0].dtype)


def _gauss_legendre(start: float, stop: float, order: int = 24) -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    half = 0.5 * (stop - start)
    # Python floats, which adopt the precision of other operands.
    return (start + half * (nodes + 1)).tolist(), (half * weights).tolist()
